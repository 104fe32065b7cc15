"""The look-alike server in a process of its own, which can be killed and started again."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import urllib.request
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tests.mount.desk import XNATFS
from xnatfs.demo.faults import Fault


@dataclass
class Served:
    """A server over one archive folder, always at the same address."""

    root: Path
    url: str = ""
    process: subprocess.Popen[str] | None = field(default=None, repr=False)

    @property
    def request_log(self) -> Path:
        """A JSON line for each request, of all its lives."""
        return self.root.with_name(f"{self.root.name}.requests")

    def start(self) -> None:
        """Start it; returns when it answers."""
        port = ["--port", self.url.rpartition(":")[2]] if self.url else []
        self.process = subprocess.Popen(
            [XNATFS, "demo", "--serve", "--root", str(self.root), "--sample", "small",
             "--request-log", str(self.request_log), *port],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            text=True,
        )  # fmt: skip
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().strip()
        assert self.url.startswith("http"), "the server did not start"

    def end(self, number: signal.Signals = signal.SIGKILL) -> None:
        """Kill it, or ask it to end."""
        if self.process is not None:
            self.process.send_signal(number)
            self.process.wait(20)
            assert self.process.stdout is not None
            self.process.stdout.close()
            self.process = None

    def control(self, verb: str, what: str, body: object = None) -> bytes:
        """One of the look-alike's own addresses."""
        raw = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/demo/{what}", raw, method=verb)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(request, timeout=20) as reply:
            return bytes(reply.read())

    def add_faults(self, *faults: Fault) -> None:
        """Let requests go wrong."""
        self.control("POST", "faults", [asdict(fault) for fault in faults])

    def clear_faults(self) -> None:
        """Let them go right."""
        self.control("DELETE", "faults")

    def sums(self, *besides: str) -> dict[str, str]:
        """Path below the archive → MD5, of every file on its disk but in folders called so."""
        found = {}
        for folder, folders, names in os.walk(self.root / "archive"):
            folders[:] = [name for name in folders if name not in besides]
            for name in names:
                place = Path(folder, name)
                found[str(place.relative_to(self.root))] = hashlib.md5(
                    place.read_bytes()
                ).hexdigest()
        return found
