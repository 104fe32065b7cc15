"""What the benchmarks play on: a server, links and mounts, each in a process of its own.

Everything lives below one folder and on the loopback. The server is the look-alike, the links are
its proxy (`xnatfs/demo/link.py`); a mount is the `xnatfs` command as a user runs it.
"""

from __future__ import annotations

import base64
import io
import json
import os
import platform
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from random import Random

BIN = Path(sys.executable).parent
XNATFS = str(BIN / "xnatfs")


DCM2NIIX = str(Path(find_spec("dcm2niix").origin).with_name("dcm2niix"))

# What the server has: slices of about 130 KB, and two files of noise.
SLICES, SERIES = 192, 6
LARGE, HUGE = 500_000_000, 2 << 30
# What each entry of a catalog costs the server with every request on it (R§3.3). Seconds; a guess.
ENTRY_COST_S = 50e-6

HELD = "/data/experiments/XNAT_E00001"
SESSION = "projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"
SERIES_SESSION = "projects/PVT000/subjects/Haofei01/experiments/SERIES"
DICOM = "scans/4/resources/DICOM/files"
MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Link:
    """One line between client and server."""

    rtt_ms: float
    mbps: float

    @property
    def name(self) -> str:
        """As in the table."""
        return f"{self.rtt_ms:g} ms, {self.mbps / 1000:g} Gb/s" if self.mbps >= 1000 else (
            f"{self.rtt_ms:g} ms, {self.mbps:g} Mb/s")  # fmt: skip

    def seconds(self, size: int, trips: int = 1) -> float:
        """The least time for so many bytes and round trips."""
        return size * 8 / self.mbps / 1e6 + trips * self.rtt_ms / 1000


class Process:
    """A helper process of this file: it prints a line when it is ready."""

    def __init__(self, *words: str | Path) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, __file__, *map(str, words)], stdout=subprocess.PIPE, text=True
        )
        assert self._popen.stdout is not None
        self.said = self._popen.stdout.readline().strip()
        if not self.said:
            raise RuntimeError(f"{words[0]} did not start")

    def stop(self) -> None:
        """End it."""
        self._popen.send_signal(signal.SIGTERM)
        self._popen.wait(10)


class Stage:
    """Server, links and mounts below one folder.

    Threading: used by one thread.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "requests.jsonl"
        self._links: dict[Link, Process] = {}
        self._number = 0
        root = folder / "archive"
        fresh = not root.exists()
        self._server = Process("server", root, self.log)
        self.url = self._server.said
        self._plain: Process | None = None
        if fresh:
            fill(self.url)
        self._environment = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("XNAT", "XDG_")) and name != "NETRC"
        }

    def close(self) -> None:
        """End everything."""
        for process in (*self._links.values(), self._server, self._plain):
            if process is not None:
                process.stop()

    def at(self, link: Link) -> str:
        """The server's address behind a link."""
        if link not in self._links:
            self._links[link] = Process("link", self.url, str(link.rtt_ms), str(link.mbps))
        return self._links[link].said

    def plain_server(self, link: Link) -> str:
        """A plain file server with one series, with an index, behind a link."""
        if self._plain is None:
            series = self.folder / "series"
            if not series.exists():
                unpacked = self.folder / "series.new"
                with zipfile.ZipFile(io.BytesIO(get(self.url, f"{HELD}/{DICOM}?format=zip"))) as it:
                    for name in it.namelist():
                        unpacked.mkdir(exist_ok=True)
                        (unpacked / name.rpartition("/")[2]).write_bytes(it.read(name))
                unpacked.rename(series)
            self._plain = Process("plain", series)
            self._plain_links: dict[Link, Process] = {}
        if link not in self._plain_links:
            started = Process("link", self._plain.said, str(link.rtt_ms), str(link.mbps))
            self._plain_links[link] = self._links[Link(link.rtt_ms, -link.mbps)] = started
        return self._plain_links[link].said

    def place(self) -> Path:
        """A new empty folder."""
        self._number += 1
        made = self.folder / f"place{os.getpid()}-{self._number}"
        made.mkdir()
        return made

    @contextmanager
    def mounted(self, link: Link, cache: Path, *options: str) -> Iterator[Mount]:
        """A mount over a link, with its store in a folder."""
        place = self.place()
        mount = Mount(place, cache, self._environment)
        mount.begin(self.at(link), *options)
        try:
            yield mount
        finally:
            mount.end()

    def since(self, mark: int) -> tuple[int, int]:
        """Requests, and bytes of bodies, that the server answered since a mark."""
        time.sleep(0.2)
        rows = [json.loads(line) for line in self.log.read_text().splitlines()[mark:]]
        return len(rows), sum(row["bytes"] for row in rows)

    def mark(self) -> int:
        """Requests so far."""
        return len(self.log.read_text().splitlines())


class Mount:
    """One mount."""

    def __init__(self, place: Path, cache: Path, environment: dict[str, str]) -> None:
        self.point = place / "xnat"
        self.point.mkdir()
        self._cache = cache
        self._state = place / "state"
        (place / "run").mkdir(mode=0o700)
        self._environment = environment | {
            "HOME": str(place),
            "XDG_STATE_HOME": str(self._state),
            "XDG_CONFIG_HOME": str(place / "config"),
            "XDG_RUNTIME_DIR": str(place / "run"),
            "XNAT_USER": "admin",
            "XNAT_PASS": "admin",
        }

    def begin(self, url: str, *options: str) -> None:
        """Mount."""
        self._run("mount", url, self.point, "--cache-dir", self._cache, *options)
        (record,) = (self._state / "xnatfs" / "mounts").glob("*.json")
        self.pid = int(json.loads(record.read_text())["pid"])

    def end(self) -> None:
        """Unmount."""
        self._run("umount", self.point)

    def _run(self, *words: str | Path) -> None:
        # What it says goes with the exception; a pipe would also hold the mount's process.
        subprocess.run([XNATFS, *map(str, words)], env=self._environment, check=True)

    def cpu_s(self) -> float:
        """CPU seconds of the mount's process so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def peak_mb(self) -> float:
        """The most memory that the mount's process ever had, in megabytes."""
        status = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        return int(found[1]) * 1024 / MB if found else 0.0


def get(url: str, path: str) -> bytes:
    """One plain GET as admin."""
    return _ask(url, "GET", path)


def _ask(url: str, verb: str, path: str, body: bytes | Path | None = None) -> bytes:
    data = body.open("rb") if isinstance(body, Path) else body
    request = urllib.request.Request(url + path, data, method=verb)
    request.add_header("Authorization", "Basic " + base64.b64encode(b"admin:admin").decode())
    if body is not None:
        size = body.stat().st_size if isinstance(body, Path) else len(body)
        request.add_header("Content-Type", "application/octet-stream")
        request.add_header("Content-Length", str(size))
    try:
        with urllib.request.urlopen(request, timeout=300) as reply:
            return bytes(reply.read())
    finally:
        if isinstance(body, Path):
            data.close()  # type: ignore[union-attr]


def fill(url: str) -> None:
    """Put what the cases read beside the sample."""
    from xnatfs.demo import phantom

    session = "/data/projects/PVT000/subjects/Haofei01/experiments/SERIES"
    _ask(url, "PUT", f"{session}?xsiType=xnat:mrSessionData")
    for number in range(1, SERIES + 1):
        scan = f"{session}/scans/{number}"
        _ask(url, "PUT", f"{scan}?xsiType=xnat:mrScanData&type=T{number}")
        _ask(url, "PUT", f"{scan}/resources/DICOM")
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for name, body in phantom.series(SLICES, number=number, description=f"T{number}"):
                archive.writestr(name, body)
        path = f"{scan}/resources/DICOM/files/s.zip?inbody=true&extract=true"
        _ask(url, "PUT", path, packed.getvalue())
    dice = Random(1)
    noise = dice.randbytes(16 << 20)
    place = Path(os.environ.get("TMPDIR", "/tmp")) / f"xnatfs-benchmark-{os.getpid()}.bin"
    try:
        for name, size in (("large.bin", LARGE), ("huge.bin", HUGE)):
            with place.open("wb") as out:
                # No block is like another: each begins with its own number.
                for at in range(0, size, len(noise)):
                    piece = at.to_bytes(8, "big") + noise[8:]
                    out.write(piece[: size - at])
            _ask(url, "PUT", f"{HELD}/resources/LARGE/files/{name}?inbody=true", place)
    finally:
        place.unlink(missing_ok=True)


def machine() -> str:
    """What this was measured on."""
    model, memory = platform.processor() or platform.machine(), ""
    with suppress(OSError, TypeError):
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
        kilobytes = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
        memory = f", {kilobytes / (1 << 20):.0f} GiB"
    return (
        f"{os.cpu_count()} x {model}{memory}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )


def _serve(root: str, log: str) -> None:
    from xnatfs.demo.server import DemoServer, ServerOptions

    server = DemoServer(
        ServerOptions(
            root=Path(root), sample="full", request_log=Path(log), entry_cost_s=ENTRY_COST_S
        )
    )
    server.start()
    Path(log).touch()
    print(server.url, flush=True)
    _until_told()
    server.stop()


def _link(url: str, rtt_ms: str, mbps: str) -> None:
    from xnatfs.demo.link import LinkProxy

    with LinkProxy(url, float(rtt_ms) / 1000, float(mbps) * 1e6 / 8) as link:
        print(link.url, flush=True)
        _until_told()


def _plain(folder: str) -> None:
    """A plain file server: an index with links, ranges, HEAD."""
    from aiohttp import web

    application = web.Application()
    application.router.add_static("/", folder, show_index=True)

    async def started(_: web.Application) -> None:
        print(f"http://127.0.0.1:{port}", flush=True)

    import socket

    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        port = listening.getsockname()[1]
        application.on_startup.append(started)
        web.run_app(application, sock=listening, print=None)


def _until_told() -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told.wait()


if __name__ == "__main__":
    {"server": _serve, "link": _link, "plain": _plain}[sys.argv[1]](*sys.argv[2:])
