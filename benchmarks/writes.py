"""How fast files get into the archive, against curl on the same line.

    python benchmarks/writes.py [--rounds N] [--only CASE] [--folder DIR]

The server is the look-alike, the line its link proxy, both in processes of their own; a mount is
the `xnatfs` command as a user runs it. Each round does ours and every peer one after the other,
each into a new resource; what is printed are medians of the rounds, and ratios of those. "Least"
is what the line itself takes: the bytes at its rate, and the round trips that cannot be spared.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

XNATFS = str(Path(sys.executable).parent / "xnatfs")
LOGIN = "admin"
HELD = "/data/experiments/XNAT_E00001"
SESSION = "projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"
HUGE = 2_000_000_000
MOST_MEMORY_MB = 150


class Process:
    """A helper of this file in a process of its own: it prints a line when it is ready."""

    def __init__(self, *words: str) -> None:
        self._popen = subprocess.Popen(
            [sys.executable, __file__, *words], stdout=subprocess.PIPE, text=True
        )
        assert self._popen.stdout is not None
        self.said = self._popen.stdout.readline().strip()
        if not self.said:
            raise RuntimeError(f"{words[0]} did not start")

    def stop(self) -> None:
        """End it."""
        self._popen.send_signal(signal.SIGTERM)
        self._popen.wait(10)


def _serve(root: str) -> None:
    from xnatfs.demo.server import DemoServer, ServerOptions

    server = DemoServer(ServerOptions(root=Path(root), sample="small"))
    server.start()
    print(server.url, flush=True)
    _until_told()
    server.stop()


def _link(url: str, rtt_ms: str, mbps: str) -> None:
    from xnatfs.demo.link import LinkProxy

    with LinkProxy(url, float(rtt_ms) / 1000, float(mbps) * 1e6 / 8) as link:
        print(link.url, flush=True)
        _until_told()


def _until_told() -> None:
    told = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: told.set())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    told.wait()


@dataclass
class Stage:
    """A server and lines to it, below one folder."""

    folder: Path
    _number: int = 0
    _processes: list[Process] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._server = Process("--serve", str(self.folder / "archive"))
        self.url = self._server.said
        self._environment = {
            name: text
            for name, text in os.environ.items()
            if not name.startswith(("XNAT", "XDG_")) and name != "NETRC"
        }

    def line(self, rtt_ms: float, mbps: float) -> str:
        """The server's address at the end of a line."""
        self._processes.append(Process("--link", self.url, str(rtt_ms), str(mbps)))
        return self._processes[-1].said

    def close(self) -> None:
        """End everything."""
        for process in (*self._processes, self._server):
            process.stop()

    def resource(self) -> str:
        """A new, empty resource; made past the line."""
        self._number += 1
        label = f"W{self._number}"
        curl(f"{self.url}{HELD}/resources/{label}", "-X", "PUT")
        return label

    def holds(self, label: str, count: int) -> None:
        """Fail unless the server lists so many files there."""
        found = curl(f"{self.url}{HELD}/resources/{label}/files?format=json", capture=True)
        rows = json.loads(found)["ResultSet"]["Result"]
        if len(rows) != count or not all(row["digest"] for row in rows):
            raise AssertionError(f"{label}: {len(rows)} files in place of {count}")

    @contextmanager
    def mounted(self, url: str, *options: str) -> Iterator[Mount]:
        """A mount over a line, ended within the block or at its end."""
        place = Path(tempfile.mkdtemp(dir=self.folder))
        mount = Mount(place, self._environment)
        mount.begin(url, *options)
        try:
            yield mount
        finally:
            mount.end()
            shutil.rmtree(place)


class Mount:
    """One mount."""

    def __init__(self, place: Path, environment: dict[str, str]) -> None:
        self._point = place / "xnat"
        self._point.mkdir()
        (place / "run").mkdir(mode=0o700)
        self._state = place / "state"
        self._there = False
        self._environment = environment | {
            "HOME": str(place),
            "XDG_STATE_HOME": str(self._state),
            "XDG_CACHE_HOME": str(place / "cache"),
            "XDG_CONFIG_HOME": str(place / "config"),
            "XDG_RUNTIME_DIR": str(place / "run"),
            "XNAT_USER": LOGIN,
            "XNAT_PASS": LOGIN,
        }

    def begin(self, url: str, *options: str) -> None:
        """Mount."""
        self._run("mount", url, self._point, *options)
        self._there = True
        (record,) = (self._state / "xnatfs" / "mounts").glob("*.json")
        self._pid = int(json.loads(record.read_text())["pid"])

    def end(self) -> None:
        """Unmount; everything has arrived then."""
        if self._there:
            self._run("umount", self._point, "-q")
            self._there = False

    def _run(self, *words: str | Path) -> None:
        subprocess.run([XNATFS, *map(str, words)], env=self._environment, check=True)

    def files(self, label: str) -> Path:
        """The folder of a resource, looked at as somebody does who goes there."""
        folder = self._point / SESSION / "resources" / label / "files"
        os.listdir(folder)
        return folder

    def peak_mb(self) -> float:
        """The most memory that the mount's process ever had."""
        status = Path(f"/proc/{self._pid}/status").read_text()
        found = re.search(r"VmHWM:\s*(\d+) kB", status)
        return int(found[1]) * 1024 / 1e6 if found else 0.0


def curl(url: str, *words: str, capture: bool = False) -> bytes:
    """One curl of a user who knows what to do; fails on every status but success."""
    done = subprocess.run(
        ["curl", "-sSf", "-u", f"{LOGIN}:{LOGIN}", *words, url],
        stdout=subprocess.PIPE if capture else subprocess.DEVNULL,
        check=True,
    )
    return done.stdout or b""


def put_each(url: str, label: str, files: list[Path], scratch: Path) -> None:
    """A curl process for each file, all in one session: a site has a thousand for a user."""
    jar = str(scratch / "cookies")
    for file in files:
        address = f"{url}{HELD}/resources/{label}/files/{file.name}"
        curl(address, "-X", "PUT", "-F", f"file=@{file}", "-b", jar, "-c", jar)


def put_all(url: str, label: str, files: list[Path], scratch: Path) -> None:
    """All files by one curl process, on one connection and in one session."""
    lines = []
    for file in files:
        lines += [
            f'url = "{url}{HELD}/resources/{label}/files/{file.name}"',
            f'user = "{LOGIN}:{LOGIN}"',
            'request = "PUT"',
            f'form = "file=@{file}"',
            'cookie = ""',
            'output = "/dev/null"',
            "silent",
            "fail",
            "next",
        ]
    config = scratch / "curl.config"
    config.write_text("\n".join(lines[:-1]) + "\n")
    subprocess.run(["curl", "-K", config], check=True)


def put_zip(url: str, label: str, folder: Path, scratch: Path) -> None:
    """A stored zip of a folder, unpacked by the server."""
    packed = scratch / "all.zip"
    packed.unlink(missing_ok=True)
    subprocess.run(["zip", "-0", "-q", "-r", packed, "."], cwd=folder, check=True)
    address = f"{url}{HELD}/resources/{label}/files/all.zip?extract=true"
    curl(address, "-X", "PUT", "-F", f"file=@{packed}")


def copy(*words: str | Path) -> None:
    """The cp of the system."""
    subprocess.run(["cp", *map(str, words)], check=True)


Way = Callable[[str], float]


def timed(action: Callable[[], object]) -> float:
    """How long it takes. Seconds."""
    began = time.perf_counter()
    action()
    return time.perf_counter() - began


@dataclass(frozen=True)
class Case:
    """A row of the table: ours, the peers with what is to be reached, and the line's limit."""

    name: str
    count: int
    ours: Way
    # Name → (way, the ratio to reach).
    peers: dict[str, tuple[Way, float]]
    least_s: float


def cases(stage: Stage) -> dict[str, Callable[[], Case]]:
    """What is measured, by its short name."""
    data = stage.folder / "data"

    def pair() -> Case:
        """One volume and its sidecar."""
        url = stage.line(30, 100)
        files = [
            noise(data / "pair" / "volume.nii", 21_000_000),
            noise(data / "pair" / "v.json", 2_000),
        ]

        def ours(label: str) -> float:
            with stage.mounted(url) as mount:
                folder = mount.files(label)
                return timed(lambda: copy(*files, folder))

        return Case(
            "a 21 MB .nii and its .json, cp, 30 ms, 100 Mb/s",
            2,
            ours,
            {
                "two curl": (
                    lambda label: timed(lambda: put_each(url, label, files, stage.folder)),
                    1.15,
                )
            },
            21_002_000 * 8 / 100e6 + 2 * 0.03,
        )

    def tree() -> Case:
        """A thousand small files, with write-back."""
        url = stage.line(30, 1000)
        folder = data / "tree"
        for number in range(1000):
            noise(folder / f"sub{number % 10}" / f"file{number:04}.bin", 20_000)

        def ours(label: str) -> float:
            with stage.mounted(url, "--write-back") as mount:
                target = mount.files(label)

                def all_of_it() -> None:
                    copy("-r", f"{folder}/.", target)
                    mount.end()

                return timed(all_of_it)

        def peer(label: str) -> float:
            return timed(lambda: put_zip(url, label, folder, stage.folder))

        return Case(
            "1,000 x 20 KB, cp -r, write-back, umount included, 30 ms, 1 Gb/s",
            1000,
            ours,
            {"zip, curl with extract": (peer, 2.0)},
            20_000_000 * 8 / 1e9 + 2 * 0.03,
        )

    def many() -> Case:
        """Small files, each on the server when its close returns."""
        url = stage.line(30, 1000)
        files = [noise(data / "many" / f"file{number:03}.bin", 20_000) for number in range(200)]

        def ours(label: str) -> float:
            with stage.mounted(url) as mount:
                folder = mount.files(label)
                return timed(lambda: copy(*files, folder))

        return Case(
            "200 x 20 KB, cp, 30 ms, 1 Gb/s",
            200,
            ours,
            {
                "curl in a loop": (
                    lambda label: timed(lambda: put_each(url, label, files, stage.folder)),
                    0.8,
                ),
                "one curl, kept alive": (
                    lambda label: timed(lambda: put_all(url, label, files, stage.folder)),
                    1.7,
                ),
            },
            200 * (0.03 + 20_000 * 8 / 1e9),
        )

    return {"pair": pair, "tree": tree, "many": many}


def measure(stage: Stage, case: Case, rounds: int) -> list[list[str]]:
    """Rows of the table: one for each peer."""
    ways = {"ours": case.ours, **{name: way for name, (way, _) in case.peers.items()}}
    times: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds + 1):
        for name, way in ways.items():
            label = stage.resource()
            seconds = way(label)
            stage.holds(label, case.count)
            # The first round fills the caches of the disk.
            if number:
                times[name].append(seconds)
    middle = {name: statistics.median(found) for name, found in times.items()}
    rows = []
    for name, (_, wanted) in case.peers.items():
        ratio = middle["ours"] / middle[name]
        rows.append(
            [
                case.name,
                _spread(times["ours"]),
                name,
                _spread(times[name]),
                f"{ratio:.2f}",
                f"<= {wanted:g}",
                "yes" if ratio <= wanted else "NO",
                f"{case.least_s:.2f} s",
            ]
        )
    return rows


def _spread(times: list[float]) -> str:
    return f"{statistics.median(times):.2f} s ({min(times):.2f}-{max(times):.2f})"


def memory(stage: Stage) -> list[str]:
    """The row of one huge file: memory of the mount's process."""
    file = noise(stage.folder / "data" / "huge.bin", HUGE)
    label = stage.resource()
    with stage.mounted(stage.url) as mount:
        folder = mount.files(label)
        seconds = timed(lambda: copy(file, folder))
        peak = mount.peak_mb()
    stage.holds(label, 1)
    file.unlink()
    met = "yes" if peak <= MOST_MEMORY_MB else "NO"
    return [
        "one 2 GB file, cp, no line between (one round)", f"{seconds:.1f} s", "", "",
        f"{peak:.0f} MB", f"<= {MOST_MEMORY_MB} MB", met, "",
    ]  # fmt: skip


def noise(place: Path, size: int) -> Path:
    """A file of bytes that do not compress."""
    place.parent.mkdir(parents=True, exist_ok=True)
    if not place.exists():
        dice = random.Random(str(place.name))
        with place.open("wb") as out:
            for at in range(0, size, 1 << 20):
                out.write(dice.randbytes(min(1 << 20, size - at)))
    return place


def machine() -> str:
    """What this was measured on."""
    model, memory_ = platform.processor() or platform.machine(), ""
    with suppress(OSError, TypeError):
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
        kilobytes = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
        memory_ = f", {kilobytes / (1 << 20):.0f} GiB"
    load = os.getloadavg()[0]
    return (
        f"{os.cpu_count()} x {model}{memory_}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}, load {load:.1f}"
    )


def memory_folder() -> Path | None:
    """A file system in memory with room for everything: the disk is not what is measured."""
    place = Path("/dev/shm")
    with suppress(OSError):
        if shutil.disk_usage(place).free > 4 * HUGE:
            return place
    return None


HEAD = ["case", "xnatfs", "peer", "peer's time", "ratio", "to reach", "met", "least on this line"]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", help="one case: pair, tree, many or huge")
    parser.add_argument("--folder", type=Path, default=memory_folder(),
                        help="where server, spool and data lie (default: in memory)")  # fmt: skip
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        stage = Stage(Path(folder))
        try:
            rows = []
            for name, make in cases(stage).items():
                if args.only in (None, name):
                    rows += measure(stage, make(), args.rounds)
            if args.only in (None, "huge"):
                rows.append(memory(stage))
        finally:
            stage.close()
    where = args.folder or tempfile.gettempdir()
    print(f"{machine()}\nmedians of {args.rounds} rounds (least-most), all files in {where}\n")
    print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0


if __name__ == "__main__":
    helpers = {"--serve": _serve, "--link": _link}
    if sys.argv[1:2] and sys.argv[1] in helpers:
        helpers[sys.argv[1]](*sys.argv[2:])
    else:
        sys.exit(main())
