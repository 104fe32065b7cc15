"""Reading: true bytes or an error, whatever the network and the server do."""

from __future__ import annotations

import hashlib
import logging
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.core.driver import ME, NAMES, SCAN4, SESSION, Driver, Rest, requests, soon
from tests.mount.desk import HELD
from xnatfs.config import Limits
from xnatfs.demo.faults import Fault
from xnatfs.errors import Contradiction, Interrupted, NotFound, ServerFault, Stale, XnatfsError
from xnatfs.waiting import Waiter

DICOM = SCAN4 + "/resources/DICOM/files"
QUICK = Limits(io_timeout_s=2)


def slices(drive: Driver) -> list[str]:
    return [f"{DICOM}/{name}" for name in drive.names(DICOM)]


def gets(server) -> list[str]:
    return [
        line
        for line in requests(server)
        if line.startswith("GET") and "/files/" in line and "format=" not in line
    ]


def test_a_second_read_asks_nobody(connect, server) -> None:
    drive = Driver(connect())
    path = slices(drive)[0]
    first = drive.read(path)
    server.clear_log()
    assert drive.read(path) == first
    assert Driver(connect()).read(path) == first
    assert gets(server) == []


def test_concurrent_readers_share_one_transfer(connect, server) -> None:
    drive = Driver(connect())
    path = slices(drive)[0]
    server.clear_log()
    with ThreadPoolExecutor(16) as pool:
        sums = set(pool.map(lambda _: hashlib.md5(drive.read(path)).hexdigest(), range(32)))
    assert len(sums) == 1
    assert len(gets(server)) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="reset", path="/files/", verb="GET", count=2),
        Fault(kind="reset_after", path="/files/", verb="GET", count=2, bytes=50_000),
        Fault(kind="truncate", path="/files/", verb="GET", count=2, bytes=70_000),
        Fault(kind="corrupt", path="/files/", verb="GET", count=1),
        Fault(kind="status", path="/files/", verb="GET", count=2, code=503),
        Fault(kind="expire", path="/files/", verb="GET", count=1),
    ],
    ids=lambda fault: fault.kind,
)
def test_a_fault_that_passes_is_not_seen(
    connect, server, fault: Fault, expected_warnings: list[str]
) -> None:
    expected_warnings.append("")
    drive = Driver(connect())
    names = slices(drive)
    whole = Rest(server).files("/experiments/XNAT_E00001/scans/4/resources/DICOM")
    server.faults.add(fault)
    for path in names:
        assert drive.read(path) == whole[path.rpartition("/")[2]]


@pytest.mark.parametrize("kind", ["reset", "truncate", "corrupt", "stall", "html"])
def test_a_fault_that_stays_is_an_error_and_never_short(
    connect, server, kind: str, expected_warnings: list[str]
) -> None:
    expected_warnings.append("")
    drive = Driver(connect(limits=QUICK))
    path = slices(drive)[0]
    size = drive.stat(path).size
    # Not a byte arrives, for as long as anybody tries.
    server.faults.add(Fault(kind=kind, path="/files/", verb="GET", bytes=0, seconds=30))
    handle = drive.open(path)
    with pytest.raises(XnatfsError):
        drive.fs.read(handle, size, 0, Waiter(idle_s=8))
    drive.fs.release(handle, soon())
    assert [failure.path for failure in drive.fs.read_failures()] == [path]


def test_no_network_serves_what_is_in_the_store(connect, server, expected_warnings) -> None:
    expected_warnings.append("")
    drive = Driver(connect(limits=QUICK))
    here, away = slices(drive)[:2]
    content = drive.read(here)
    server.stop()
    assert drive.read(here) == content
    with pytest.raises(XnatfsError):
        drive.read(away)


def test_a_file_replaced_while_open_is_stale_never_mixed(
    connect, server, expected_warnings
) -> None:
    expected_warnings.append("")
    drive = Driver(connect())
    path = NAMES + "/plain.txt"
    drive.stat(path)
    handle = drive.open(path)
    Rest(server).ask(
        "PUT",
        "/data/experiments/XNAT_E00001/resources/NAMES/files/plain.txt?inbody=true&overwrite=true",
        b"a longer text than before\n",
    )
    with pytest.raises((Stale, Contradiction)):
        drive.fs.read(handle, 4096, 0, soon())
    drive.close(handle)
    drive.fs.refresh("/", soon())
    assert drive.read(path) == b"a longer text than before\n"


def test_an_interrupted_reader_leaves_and_the_others_go_on(connect, server) -> None:
    drive = Driver(connect())
    path = slices(drive)[0]
    size = drive.stat(path).size
    server.faults.add(Fault(kind="delay", path="/files/", verb="GET", seconds=1.5, count=1))
    handle, gone = drive.open(path), threading.Event()
    with ThreadPoolExecutor(2) as pool:
        patient = pool.submit(drive.read, path)
        hasty = pool.submit(
            drive.fs.read, handle, size, 0, Waiter(total_s=30, interrupted=gone.is_set)
        )
        gone.set()
        with pytest.raises(Interrupted):
            hasty.result(timeout=10)
        assert len(patient.result(timeout=20)) == size
    drive.close(handle)
    assert drive.fs.read_failures() == []


def test_a_catalog_that_lies_is_an_error_and_says_so(
    connect, server, tmp_path, caplog, expected_warnings
) -> None:
    expected_warnings.append("")
    (stored,) = (tmp_path / "server").rglob("NAMES/plain.txt")
    stored.write_bytes(b"plaiN\n")  # same size, other bytes than the catalog's MD5
    drive = Driver(connect())
    with pytest.raises(Contradiction):
        drive.read(NAMES + "/plain.txt")
    assert "out of date" in caplog.text
    lenient = Driver(connect(verify="warn"))
    assert lenient.read(NAMES + "/plain.txt") == b"plaiN\n"


def test_an_entry_without_bytes_is_an_error(connect, expected_warnings) -> None:
    expected_warnings.append("gone.txt")
    drive = Driver(connect())
    handle = drive.open(SESSION + "/resources/QC/files/qc.csv")
    drive.close(handle)
    with pytest.raises(ServerFault, match="has no bytes of it"):
        drive.read(NAMES + "/gone.txt")
    assert [failure.path for failure in drive.fs.read_failures()] == [NAMES + "/gone.txt"]


def test_a_file_that_was_removed_is_not_found(connect, server) -> None:
    drive = Driver(connect())
    assert "no-digest.txt" in drive.names(NAMES)
    (resource,) = [
        row for row in Rest(server).rows(f"/data{HELD}/resources?format=json")
        if row["label"] == "NAMES"
    ]  # fmt: skip
    number = resource["xnat_abstractresource_id"]
    Rest(server).ask("DELETE", f"/data{HELD}/resources/{number}/files/no-digest.txt")
    with pytest.raises(NotFound):
        drive.read(NAMES + "/no-digest.txt")
    assert drive.fs.read_failures() == []


def test_a_file_that_could_not_be_opened_could_not_be_read(
    connect, server, expected_warnings
) -> None:
    """Without a digest in the catalog, opening asks the server."""
    expected_warnings.append("no-digest.txt")
    drive = Driver(connect(limits=Limits(io_timeout_s=1)))
    assert "no-digest.txt" in drive.names(NAMES)
    server.faults.add(Fault(kind="status", path="/no-digest.txt", code=503))
    with pytest.raises(XnatfsError):
        drive.read(NAMES + "/no-digest.txt")
    assert [failure.path for failure in drive.fs.read_failures()] == [NAMES + "/no-digest.txt"]


def test_what_is_verified_is_told(connect) -> None:
    drive = Driver(connect())
    handle = drive.open(NAMES + "/plain.txt")
    drive.fs.read(handle, 100, 0, soon())
    assert drive.fs.getxattr(NAMES + "/plain.txt", "user.xnat.verified", soon()) == b"md5"
    drive.close(handle)
    handle = drive.open(NAMES + "/no-digest.txt")
    drive.fs.read(handle, 100, 0, soon())
    assert drive.fs.getxattr(NAMES + "/no-digest.txt", "user.xnat.verified", soon()) == b"size"
    drive.close(handle)


def test_pages_are_kept_for_the_same_version_only(connect, server) -> None:
    fs = connect()
    drive = Driver(fs)
    path = SESSION + "/resources/QC/files/qc.csv"

    def keep() -> bool:
        drive.stat(path)
        opened = fs.open(path, 0, ME, soon())
        drive.close(opened.handle)
        return opened.keep_pages

    assert not keep()
    assert keep()
    Rest(server).ask(
        "PUT",
        "/data/experiments/XNAT_E00001/resources/QC/files/qc.csv?inbody=true&overwrite=true",
        b"x,y\n",
    )
    fs.refresh("/", soon())
    drive.stat(path)
    assert not keep()
    assert keep()


def test_no_secret_is_logged(connect, caplog) -> None:
    caplog.set_level(logging.DEBUG)
    drive = Driver(connect("member"))
    drive.read(slices(drive)[0])
    assert "bWVtYmVyOm1lbWJlcg" not in caplog.text  # member:member in Basic's coding
    assert "JSESSIONID=" not in caplog.text.replace("JSESSIONID=***", "")
