"""Whole resources in one request: fewer requests, and not one byte that is not true."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.core.driver import SCAN4, SESSION, Driver, Rest, soon
from xnatfs.config import KIB, MIB, Limits, ServerSettings, Settings, SpoolSettings, StoreSettings
from xnatfs.demo.faults import Fault
from xnatfs.demo.order import Order
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.download import stream
from xnatfs.errors import XnatfsError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.rest.login import Credentials

DICOM = SCAN4 + "/resources/DICOM/files"
HELD = "/experiments/XNAT_E00001/scans/4/resources/DICOM"
TAR = "files?format=tar"


def singles(server: DemoServer) -> list[str]:
    """Names of the files that were asked for one by one."""
    return [
        entry.path.rpartition("/")[2]
        for entry in server.log
        if entry.verb == "GET" and "/files/" in entry.path
    ]


def tars(server: DemoServer, part: str = "") -> list[str]:
    return [entry.path for entry in server.log if TAR in entry.path and part in entry.path]


def within(seconds: float, happens: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > until:
            return False
        time.sleep(0.02)
    return True


def first_byte(drive: Driver, path: str) -> bytes:
    handle = drive.open(path)
    try:
        return drive.fs.read(handle, 1, 0, soon())
    finally:
        drive.close(handle)


# one resource


def test_the_second_file_begins_one_stream_that_brings_the_rest(connect, server) -> None:
    whole = Rest(server).files(HELD)
    drive = Driver(connect())
    names = drive.names(DICOM)
    server.clear_log()
    for name in names:
        assert drive.read(f"{DICOM}/{name}") == whole[name]
    assert singles(server) == names[:1]
    assert within(10, lambda: len(tars(server)) == 1)
    assert drive.fs.status()["downloads"]["streams"] == 1


def test_what_came_in_a_stream_was_verified_and_is_kept(connect, server) -> None:
    drive = Driver(connect())
    names = drive.names(DICOM)
    for name in names:
        drive.read(f"{DICOM}/{name}")
    # A request is logged when it has ended, and the last file was here a moment before.
    while not tars(server):
        time.sleep(0.01)
    server.clear_log()
    again = Driver(connect())
    for name in names:
        path = f"{DICOM}/{name}"
        handle = again.open(path)
        again.fs.read(handle, 1, 0, soon())
        assert again.fs.getxattr(path, "user.xnat.verified", soon()) == b"md5"
        again.close(handle)
    assert singles(server) == tars(server) == []


def test_names_that_the_server_rewrites_and_names_that_mislead(connect, server) -> None:
    """R§3.4: ids in a path come out as labels; and a path may hold what leads to it."""
    rest = Rest(server)
    base = "/data/experiments/XNAT_E00001/scans/4/resources"
    rest.ask("PUT", f"{base}/files")
    content = {
        "a.txt": b"above\n",
        "files/a.txt": b"below\n",
        "files/files/a.txt": b"belo2\n",
        "resources/files/files/a.txt": b"belo3\n",
        "4/b.txt": b"in a folder that is called as the scan\n",
        "4-Ax_3D_T1/b.txt": b"in one called as the scan in a tar ...\n",
        "XNAT_E00001.txt": b"called as the session is\n",
        "Haofei01_MR1.txt": b"called as it comes out ..\n",
        "same1.bin": b"same",
        "same2.bin": b"same",
        "n" * 150 + ".bin": b"long",
    }
    for path, body in content.items():
        rest.ask("PUT", f"{base}/files/files/{path}?inbody=true", body)
    drive = Driver(connect())
    folder = SCAN4 + "/resources/files/files"
    # Twice: what is not in the stream is asked for alone, and then is here.
    for _ in range(2):
        for path, body in content.items():
            assert drive.read(f"{folder}/{path}") == body
    assert len(tars(server)) >= 1
    assert drive.fs.read_failures() == []


def test_a_file_without_digest_is_not_taken_from_a_stream(connect, server, tmp_path) -> None:
    names = SESSION + "/resources/NAMES/files"
    drive = Driver(connect())
    for name in ("plain.txt", "with space.txt", "plus+plus.txt"):
        drive.read(f"{names}/{name}")
    assert within(10, lambda: len(tars(server)) == 1)
    drive.read(f"{names}/no-digest.txt")
    assert "no-digest.txt" in singles(server)


# faults in the middle


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="reset", path=TAR.replace("?", r"\?"), count=1),
        Fault(kind="reset_after", path=TAR.replace("?", r"\?"), bytes=300_000, count=1),
        Fault(kind="reset_after", path=TAR.replace("?", r"\?"), bytes=300_000),
        Fault(kind="truncate", path=TAR.replace("?", r"\?"), bytes=600_000, count=1),
        Fault(kind="truncate", path=TAR.replace("?", r"\?"), bytes=0),
        Fault(kind="corrupt", path=TAR.replace("?", r"\?"), bytes=400_000, count=1),
        Fault(kind="corrupt", path=TAR.replace("?", r"\?"), bytes=100, count=1),
        Fault(kind="corrupt", path=TAR.replace("?", r"\?"), bytes=700_000),
        Fault(kind="html", path=TAR.replace("?", r"\?")),
        Fault(kind="status", path=TAR.replace("?", r"\?"), code=503, count=1),
        Fault(kind="status", path=TAR.replace("?", r"\?"), code=500),
        Fault(kind="status", path=TAR.replace("?", r"\?"), code=404),
        Fault(kind="expire", path=TAR.replace("?", r"\?"), count=1),
        Fault(kind="stall", path=TAR.replace("?", r"\?"), bytes=300_000, seconds=20),
        Fault(kind="stall", path=TAR.replace("?", r"\?"), bytes=0, seconds=20),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.bytes}-{fault.count}",
)
def test_a_stream_that_breaks_costs_no_byte(
    connect, server, fault: Fault, expected_warnings: list[str]
) -> None:
    expected_warnings.append("")
    whole = Rest(server).files(HELD)
    drive = Driver(connect(limits=Limits(io_timeout_s=4)))
    names = drive.names(DICOM)
    server.faults.add(fault)
    for name in names:
        assert drive.read(f"{DICOM}/{name}") == whole[name]
    assert drive.fs.read_failures() == []


def test_what_came_before_the_break_is_not_asked_for_again(connect, server) -> None:
    whole = Rest(server).files(HELD)
    drive = Driver(connect())
    names = drive.names(DICOM)
    # Six of eight slices arrive: beginning again would bring them in vain.
    server.faults.add(Fault(kind="truncate", path="format=tar", bytes=6 * 134_000))
    for name in names:
        assert drive.read(f"{DICOM}/{name}") == whole[name]
    assert within(10, lambda: len(tars(server)) == 1)
    asked = singles(server)
    assert sorted(asked) == sorted(set(asked))
    assert len(asked) == 3  # the first, and the two that did not come


def test_a_break_near_the_start_begins_again(connect, server) -> None:
    drive = Driver(connect())
    names = drive.names(DICOM)
    server.faults.add(Fault(kind="reset_after", path="format=tar", bytes=140_000, count=1))
    for name in names:
        drive.read(f"{DICOM}/{name}")
    assert within(10, lambda: len(tars(server)) == 2)
    assert singles(server) == names[:1]


def test_a_replaced_file_is_never_mixed_into_the_old_series(
    connect, server, expected_warnings
) -> None:
    expected_warnings.append("")
    whole = Rest(server).files(HELD)
    drive = Driver(connect())
    names = drive.names(DICOM)
    for name in names:
        drive.stat(f"{DICOM}/{name}")
    new = b"N" * len(whole[names[5]])
    Rest(server).ask("PUT", f"/data{HELD}/files/{names[5]}?inbody=true&overwrite=true", new)
    for name in names:
        if name == names[5]:
            with pytest.raises(XnatfsError):
                drive.read(f"{DICOM}/{name}")
        else:
            assert drive.read(f"{DICOM}/{name}") == whole[name]
    drive.fs.refresh("/", soon())
    assert drive.read(f"{DICOM}/{names[5]}") == new


def test_a_file_far_from_the_streams_head_is_fetched_alone(connect, server) -> None:
    whole = Rest(server).files(HELD)
    drive = Driver(connect())
    names = drive.names(DICOM)
    drive.read(f"{DICOM}/{names[0]}")
    server.faults.add(Fault(kind="slow", path="format=tar", rate=150_000))
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(drive.read, f"{DICOM}/{names[1]}")
        assert within(10, lambda: drive.fs.status()["downloads"]["fetched"] > 250_000)
        before = time.monotonic()
        assert drive.read(f"{DICOM}/{names[-1]}") == whole[names[-1]]
        # The stream needs five seconds more to get there.
        assert time.monotonic() - before < 4
        assert second.result(20) == whole[names[1]]
    assert names[-1] in singles(server)
    assert drive.fs.status()["downloads"]["streams"] == 1


def test_a_store_without_room_does_not_stream_and_does_not_fail(
    connect, server, tmp_path, expected_warnings
) -> None:
    expected_warnings.append("the store in")
    whole = Rest(server).files(HELD)
    fs = connect()
    drive = Driver(fs)
    names = drive.names(DICOM)
    (tmp_path / "cache").chmod(0o500)
    fs._parts.store._room.full(OSError(28, "No space left on device"))
    for name in names:
        assert drive.read(f"{DICOM}/{name}") == whole[name]
    assert drive.fs.status()["downloads"]["fetched"] < 3 * sum(map(len, whole.values()))
    (tmp_path / "cache").chmod(0o700)


# many resources: data on order

Site = Callable[[Order], tuple[DemoServer, Driver]]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    running: list[tuple[DemoServer, FileSystem]] = []

    def make(order: Order) -> tuple[DemoServer, Driver]:
        server = DemoServer(ServerOptions(root=tmp_path / "ordered", sample="none", order=order))
        server.start()
        settings = Settings(
            server=ServerSettings(url=server.url),
            store=StoreSettings(folder=tmp_path / "cache"),
            spool=SpoolSettings(folder=tmp_path / "spool"),
            state_folder=tmp_path / "state",
        )
        fs = FileSystem.connect(settings, Credentials("admin", "admin", "the test"), soon())
        fs.adopt(soon())
        running.append((server, fs))
        return server, Driver(fs)

    yield make
    for server, fs in running:
        fs.close()
        server.stop()


ORDERED = "/projects/ORDER000/subjects/S00001/experiments/S00001_MR/scans"


def folder(scan: int) -> str:
    return f"{ORDERED}/{scan}/resources/DICOM/files"


def read_all(drive: Driver, scan: int) -> None:
    for name in drive.names(folder(scan)):
        drive.read(f"{folder(scan)}/{name}")


def test_one_header_of_each_scan_downloads_no_scan(site: Site) -> None:
    server, drive = site(Order(sessions=1, scans=30, files=10, file_size=20 * KIB))
    for scan in range(1, 31):
        name = drive.names(folder(scan))[0]
        first_byte(drive, f"{folder(scan)}/{name}")
    assert tars(server) == []
    assert drive.fs.status()["downloads"]["fetched"] == 30 * 20 * KIB


def test_the_first_file_of_a_long_listed_folder_begins_the_stream(site: Site) -> None:
    server, drive = site(Order(sessions=1, scans=3, files=40, file_size=20 * KIB))
    read_all(drive, 1)
    assert singles(server) == []
    assert within(10, lambda: len(tars(server)) == 1)
    # Not listed: it may be the only one that is wanted.
    first_byte(drive, f"{folder(2)}/IM000001.dcm")
    # Listed, and not the first.
    first_byte(drive, f"{folder(3)}/{drive.names(folder(3))[7]}")
    assert singles(server) == ["IM000001.dcm", drive.names(folder(3))[7]]
    assert len(tars(server)) == 1


def test_who_reads_the_first_of_everything_is_found_out(site: Site) -> None:
    server, drive = site(Order(sessions=1, scans=20, files=40, file_size=20 * KIB))
    for scan in range(1, 21):
        name = drive.names(folder(scan))[0]
        first_byte(drive, f"{folder(scan)}/{name}")
    # Two scans might have been read whole.
    assert within(10, lambda: len(tars(server)) == 2)
    assert len(singles(server)) == 18
    read_all(drive, 5)
    assert within(10, lambda: len(tars(server)) == 3)


def test_find_downloads_nothing(site: Site) -> None:
    _server, drive = site(Order(sessions=1, scans=3, files=10, file_size=20 * KIB))
    assert len(drive.walk(ORDERED)) == 3 * (10 + 4)
    assert drive.fs.status()["downloads"]["fetched"] == 0


@pytest.mark.parametrize("order", [range(1, 13), sorted(range(1, 13), key=str)])
def test_scans_read_one_after_the_other_are_fetched_ahead(site: Site, order: list[int]) -> None:
    """In the order of the listing, and in that of a shell's ``*``."""
    server, drive = site(Order(sessions=1, scans=12, files=6, file_size=20 * KIB))
    order = list(order)

    def streamed(scan: int) -> bool:
        # The numbers of the resources of an order follow each other.
        return bool(tars(server, f"/scans/{scan}/resources/"))

    read_all(drive, order[0])
    time.sleep(0.3)
    assert within(10, lambda: len(tars(server)) == 1)
    read_all(drive, order[1])
    assert within(10, lambda: streamed(order[2]))
    time.sleep(0.3)
    assert within(10, lambda: len(tars(server)) == 3)
    # The third comes from the store; and the fourth is on its way.
    assert within(10, lambda: not drive.fs._parts.downloads.bulk._running)
    server.clear_log()
    read_all(drive, order[2])
    assert singles(server) == []
    assert within(10, lambda: streamed(order[3]))


def test_a_stream_that_nobody_reads_stops(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream, "_UNREAD_S", 1.0)
    _server, drive = site(Order(sessions=1, scans=1, files=100, file_size=MIB))
    names = drive.names(folder(1))
    for name in names[:2]:
        first_byte(drive, f"{folder(1)}/{name}")
    bulk = drive.fs._parts.downloads.bulk
    assert within(10, lambda: not bulk._running)
    fetched = drive.fs.status()["downloads"]["fetched"]
    assert fetched < 30 * MIB
    # Who comes back finds what came, and gets the rest.
    for name in names:
        assert len(drive.read(f"{folder(1)}/{name}")) == MIB
    assert drive.fs.read_failures() == []


def test_four_readers_of_one_resource_share_one_stream(site: Site) -> None:
    server, drive = site(Order(sessions=1, scans=1, files=40, file_size=64 * KIB))
    names = drive.names(folder(1))
    with ThreadPoolExecutor(4) as pool:
        sizes = list(pool.map(lambda name: len(drive.read(f"{folder(1)}/{name}")), names * 4))
    assert sizes == [64 * KIB] * 160
    assert within(10, lambda: len(tars(server)) == 1)
    assert drive.fs.status()["downloads"]["fetched"] < 1.3 * 40 * 64 * KIB
