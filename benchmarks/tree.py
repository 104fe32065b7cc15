"""What names and sharing cost: requests and bytes that the server is asked for, and memory.

    python benchmarks/tree.py [--rounds N] [--only CASE] [--folder DIR]

The server is the look-alike, on a line of 30 ms and 1 Gb/s, both in processes of their own; a
mount is the `xnatfs` command as a user runs it. Requests and bytes are the server's own count,
from when the mount is ready; seconds are medians of the rounds. `find` and `ls` are the system's.
Each round begins with an empty store.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stage import SESSION, XNATFS, Mount, machine

PROJECT = "projects/ORDER000"
RTT_MS, MBPS = 30, 1000
TASKS = 50
# Nothing is to end its time in the middle of a case on a slow machine.
_STEADY = ("--metadata-ttl", "20m")


class Process:
    """A helper of this file in a process of its own: it prints a line when it is ready."""

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


def _serve(root: str, log: str, sessions: str, scans: str, files: str) -> None:
    from xnatfs.demo.order import Order
    from xnatfs.demo.server import DemoServer, ServerOptions

    order = Order(sessions=int(sessions), scans=int(scans), files=int(files), file_size=1000)
    server = DemoServer(
        ServerOptions(root=Path(root), sample="full", request_log=Path(log), order=order)
    )
    server.start()
    Path(log).touch()
    print(server.url, flush=True)
    _until_told()
    server.stop()


def _link(url: str) -> None:
    from xnatfs.demo.link import LinkProxy

    with LinkProxy(url, RTT_MS / 1000, MBPS * 1e6 / 8) as link:
        print(link.url, flush=True)
        _until_told()


def _until_told() -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told.wait()


@dataclass(frozen=True, slots=True)
class Asked:
    """What the server was asked for."""

    requests: int
    listings: int
    # Of file contents.
    bytes: int


class Site:
    """A server with an order, its line, and mounts on it.

    Threading: ``run`` may be called by several threads.
    """

    def __init__(self, folder: Path, sessions: int, scans: int, files: int) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=folder))
        self._log = self.folder / "requests.jsonl"
        self._server = Process("server", self.folder / "archive", self._log, sessions, scans, files)
        self._line = Process("link", self._server.said)
        self.environment = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("XNAT", "XDG_")) and name != "NETRC"
        }

    def close(self) -> None:
        """End it."""
        self._line.stop()
        self._server.stop()
        shutil.rmtree(self.folder)

    @contextmanager
    def mounted(self, store: Path, *options: str) -> Iterator[Mount]:
        """A mount, of a user of its own, whose store lies in a folder."""
        mount = Mount(Path(tempfile.mkdtemp(dir=self.folder)), store, self.environment)
        mount.begin(self._line.said, *options)
        try:
            yield mount
        finally:
            mount.end()

    def run(self, store: Path, path: str, script: str) -> None:
        """A task of an array: ``xnatfs run``, as a user of its own."""
        home = Path(tempfile.mkdtemp(dir=self.folder))
        (home / "run").mkdir(mode=0o700)
        more = {
            "HOME": str(home),
            "XDG_STATE_HOME": str(home / "state"),
            "XDG_CONFIG_HOME": str(home / "config"),
            "XDG_RUNTIME_DIR": str(home / "run"),
            "XNAT_USER": "admin",
            "XNAT_PASS": "admin",
        }
        words = ["run", "-s", self._line.said, "--cache-dir", store, "--metadata-ttl", "20m"]
        words += ["--cd", f"/{path}", "--", "sh", "-c", script]
        subprocess.run([XNATFS, *map(str, words)], env=self.environment | more, check=True)

    def store(self) -> Path:
        """A new place for a store."""
        return Path(tempfile.mkdtemp(dir=self.folder))

    def mark(self) -> int:
        """Where the server's log ends now; what a mount asks for by itself has been asked."""
        time.sleep(0.5)
        return len(self._log.read_text().splitlines())

    def since(self, mark: int) -> Asked:
        """What was asked for since a mark."""
        time.sleep(0.5)
        rows = [json.loads(line) for line in self._log.read_text().splitlines()[mark:]]
        listings = [row for row in rows if "format=json" in row["path"]]
        content = sum(row["bytes"] for row in rows if "/files" in row["path"])
        listed = sum(row["bytes"] for row in listings if "/files" in row["path"])
        return Asked(len(rows), len(listings), content - listed)


def shell(script: str, folder: Path) -> float:
    """Run a script in a folder; how long it took. Seconds."""
    began = time.perf_counter()
    subprocess.run(["sh", "-c", script], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return time.perf_counter() - began


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table."""

    name: str
    found: float
    # What may be reached at most.
    most: float
    unit: str
    seconds: float = 0.0


def _walk(site: Site, name: str, inside: str, script: str, most: float, rounds: int) -> Row:
    """How many requests a script needs that stands in a folder of which only the way is known."""
    counts, times = [], []
    for _ in range(rounds):
        with site.mounted(site.store(), *_STEADY) as mount:
            shell("true", (mount.point / inside).parent)
            mark = site.mark()
            times.append(shell(script, mount.point / inside))
            counts.append(site.since(mark).requests)
    return Row(name, max(counts), most, "requests", statistics.median(times))


def session(folder: Path, rounds: int) -> list[Row]:
    """One session, all of it."""
    site = Site(folder, 1, 1, 1)
    try:
        return [_walk(site, "`ls -lR` of a session", SESSION, "ls -lR", 5, rounds)]
    finally:
        site.close()


def project(folder: Path, rounds: int) -> list[Row]:
    """A project of 300 sessions with 5 scans each."""
    site = Site(folder, 300, 5, 3)
    try:
        scans = "find subjects/*/experiments/*/scans -type f"
        return [
            _walk(site, "`find` below the scans of 300 sessions x 5", PROJECT, scans, 905, rounds),
            _walk(site, "`find` below that whole project", PROJECT, "find . -type f", 905, rounds),
        ]
    finally:
        site.close()


def large_project(folder: Path, rounds: int) -> list[Row]:
    """A project of 3,000 sessions."""
    site = Site(folder, 3000, 1, 1)
    try:
        return [
            _walk(site, "`ls -l` of 3,000 sessions", PROJECT, "ls -l experiments", 5, rounds),
            _walk(
                site,
                "`ls -l` of 3,000 subjects and the session of each",
                PROJECT,
                "ls -l subjects subjects/*/experiments",
                5,
                rounds,
            ),
        ]
    finally:
        site.close()


def many_files(folder: Path, rounds: int) -> list[Row]:
    """One resource of 100,000 files."""
    site = Site(folder, 1, 1, 100_000)
    inside = f"{PROJECT}/experiments/S00001_MR/scans/1/resources/DICOM/files"
    rows, listed, peaks = [], [], []
    try:
        for _ in range(rounds):
            with site.mounted(site.store()) as mount:
                listed.append(shell("ls -f | wc -l", mount.point / inside))
                again = shell("ls -l | wc -l", mount.point / inside)
                peaks.append(mount.peak_mb())
        rows.append(Row("100,000 files: `ls -f`, cold", statistics.median(listed), 10, "s"))
        rows.append(Row("100,000 files: `ls -l` after it", again, 40, "s"))
        rows.append(Row("100,000 files: most memory of the mount", max(peaks), 300, "MB"))
        return rows
    finally:
        site.close()


def sharing(folder: Path, rounds: int) -> list[Row]:
    """Several mounts, and the tasks of an array, on one store."""
    site = Site(folder, 1, 1, 1)
    series = f"{SESSION}/scans/4/resources/DICOM/files"
    read = "cat * | md5sum"
    task = "cat scans/4/resources/DICOM/files/* | md5sum"
    rows = []
    try:
        with site.mounted(site.store()) as mount:
            mark = site.mark()
            shell(read, mount.point / series)
            alone = site.since(mark)
        four = []
        for _ in range(rounds):
            store = site.store()
            with ExitStack() as mounts, ThreadPoolExecutor(4) as pool:
                points = [mounts.enter_context(site.mounted(store)).point for _ in range(4)]
                mark = site.mark()
                list(pool.map(lambda point: shell(read, point / series), points))
                four.append(site.since(mark))
        rows += _ratios("four mounts, one series, cold, at once", four, alone)
        mark = site.mark()
        site.run(site.store(), SESSION, task)
        alone = site.since(mark)
        mark, store = site.mark(), site.store()
        began = time.perf_counter()
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda _: site.run(store, SESSION, task), range(TASKS)))
        took = time.perf_counter() - began
        rows += _ratios(f"{TASKS} `run` tasks, 8 at once", [site.since(mark)], alone, took)
        return rows
    finally:
        site.close()


def _ratios(name: str, found: list[Asked], alone: Asked, seconds: float = 0.0) -> list[Row]:
    content = max(asked.bytes for asked in found) / alone.bytes
    listings = max(asked.listings for asked in found) / alone.listings
    return [
        Row(f"{name}: bytes", content, 1.05, "x one", seconds),
        Row(f"{name}: listings ({alone.listings})", listings, 1.05, "x one"),
    ]


CASES: dict[str, Callable[[Path, int], list[Row]]] = {
    "session": session,
    "project": project,
    "large_project": large_project,
    "many_files": many_files,
    "sharing": sharing,
}


def main() -> int:
    """Measure; 1 if anything is missed."""
    if sys.argv[1:2] in (["server"], ["link"]):
        {"server": _serve, "link": _link}[sys.argv[1]](*sys.argv[2:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--folder", type=Path, help="for archive and mounts; default: a new one")
    args = parser.parse_args()
    folder = args.folder or Path(tempfile.mkdtemp(prefix="xnatfs-benchmark-"))
    print(f"{machine()}; {RTT_MS} ms, {MBPS} Mb/s; rounds: {args.rounds}\n")
    print("| case | found | at most | seconds |\n| --- | --- | --- | --- |")
    missed = 0
    try:
        for name in args.only or CASES:
            for row in CASES[name](folder, args.rounds):
                missed += row.found > row.most
                mark = "**" if row.found > row.most else ""
                took = f"{row.seconds:.1f}" if row.seconds else ""
                found = f"{mark}{round(row.found, 2):g} {row.unit}{mark}"
                print(f"| {row.name} | {found} | {row.most:g} | {took} |", flush=True)
    finally:
        if args.folder is None:
            shutil.rmtree(folder)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
