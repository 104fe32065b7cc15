"""`xnatfs demo --serve`: the server in the foreground, until SIGINT or SIGTERM."""

from __future__ import annotations

import json
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from types import FrameType

from xnatfs.demo.faults import Fault, fault_from
from xnatfs.demo.link import LinkProxy
from xnatfs.demo.sample import LOGINS
from xnatfs.demo.server import DemoServer, ServerOptions


def faults_in(file: Path) -> list[Fault]:
    """The rules in a JSON file. Raises OSError or ValueError."""
    return [fault_from(it) for it in json.loads(file.read_text())]


def serve(
    options: ServerOptions,
    faults: list[Fault],
    *,
    rtt_s: float = 0.0,
    bytes_per_s: float = 0.0,
    prepare: Callable[[str], None] | None = None,
) -> int:
    """Serve an archive folder and return the exit code.

    The first line printed is the URL for clients, the second the logins. With `rtt_s` (seconds)
    or `bytes_per_s` a link stands in front of the server, at the port of the options. `prepare`
    is called with the server's own URL before anything is printed; `faults` count from then on.
    """
    has_link = rtt_s > 0 or bytes_per_s > 0
    server = DemoServer(replace(options, port=0) if has_link else options)
    ending = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()

    with ExitStack() as closing:
        try:
            server.start()
            closing.callback(server.stop)
            url = server.url
            if has_link:
                link = LinkProxy(server.url, rtt_s, bytes_per_s).start(options.port)
                closing.callback(link.stop)
                url = link.url
        except OSError as problem:
            print(f"cannot serve on port {options.port}: {problem}", file=sys.stderr)
            return 1
        if prepare is not None:
            prepare(server.url)
        server.faults.add(*faults)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        print(url)
        print("logins: " + ", ".join(f"{name}/{name} ({role})" for name, role in LOGINS))
        print(f"archive: {options.root}")
        if has_link:
            print(f"without the link: {server.url}")
        sys.stdout.flush()
        ending.wait()
    return 0
