"""`xnatfs demo --serve`: the server in the foreground, until SIGINT or SIGTERM."""

from __future__ import annotations

import json
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from xnatfs.demo.faults import fault_from
from xnatfs.demo.sample import LOGINS
from xnatfs.demo.server import DemoServer, ServerOptions


def serve(
    root: Path | None = None,
    port: int = 0,
    *,
    sample: str = "full",
    faults: Path | None = None,
    request_log: Path | None = None,
    open_site: bool = False,
    context_path: str = "",
) -> int:
    """Serve an archive folder (a temporary one for None) and return the exit code.

    The first line printed is the URL, the second the logins. `faults` is a JSON list of rules.
    """
    if root is None:
        with tempfile.TemporaryDirectory(prefix="xnatfs-demo-") as folder:
            return serve(
                Path(folder), port, sample=sample, faults=faults, request_log=request_log,
                open_site=open_site, context_path=context_path,
            )  # fmt: skip
    ending = threading.Event()

    def end(_number: int, _frame: FrameType | None) -> None:
        ending.set()

    server = DemoServer(
        ServerOptions(
            root=root, port=port, sample=sample, request_log=request_log, open_site=open_site,
            context_path=context_path,
        )
    )  # fmt: skip
    if faults is not None:
        server.faults.add(*(fault_from(it) for it in json.loads(faults.read_text())))
    try:
        server.start()
    except OSError as problem:
        print(f"cannot serve on port {port}: {problem}", file=sys.stderr)
        return 1
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, end)
    print(server.url)
    print("logins: " + ", ".join(f"{name}/{name} ({role})" for name, role in LOGINS))
    print(f"archive: {root}", flush=True)
    ending.wait()
    server.stop()
    return 0
