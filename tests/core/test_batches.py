"""Many small files as one archive: whatever the server answers, each arrives once and whole."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.driver import SCAN4, Driver, Rest, requests, soon
from tests.core.test_write_back import drain, kept
from tests.mount.desk import within
from xnatfs.config import Limits
from xnatfs.demo.faults import Fault
from xnatfs.errors import XnatfsError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.upload import batch, outbox

NIFTI = SCAN4 + "/resources/NIFTI"
FILES = NIFTI + "/files"
HELD = "/experiments/XNAT_E00001/scans/4/resources/NIFTI"
NAMES = ("a", "sub/b c.nii", "sub/größe#1.nii", "d+e", "sub/deep/f")
WANTED = {name: f"content of {name}".encode() * 50 for name in NAMES}


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything is sent together, when somebody waits for it; and is soon tried again."""
    monkeypatch.setattr(outbox, "LINGER_S", 3600.0)
    monkeypatch.setattr(outbox, "FIRST_PAUSE_S", 0.1)
    return


@pytest.fixture
def rest(server) -> Rest:
    return Rest(server)


@pytest.fixture
def drive(connect) -> Driver:
    drive = Driver(connect("member", write_back=True, limits=Limits(io_timeout_s=5)))
    drive.mkdir(NIFTI)
    for folder in ("/sub", "/sub/deep"):
        drive.mkdir(FILES + folder)
    for name, content in WANTED.items():
        drive.write(f"{FILES}/{name}", content)
    return drive


def archives(server) -> int:
    return sum("extract=true" in line for line in requests(server))


def singles(server) -> int:
    return sum("/files/" in line and line.startswith(("PUT", "POST")) for line in requests(server))


def test_one_archive_and_a_listing_on_each_side(drive: Driver, server, rest: Rest) -> None:
    server.clear_log()
    drain(drive)
    assert rest.files(HELD) == WANTED
    assert drive.fs.pending() == []
    assert (archives(server), singles(server)) == (1, 0)
    assert sum(line.endswith("files?format=json") for line in requests(server)) == 2


@pytest.mark.parametrize(
    ("fault", "most_archives"),
    [
        (Fault(kind="status", verb="POST", code=500, count=1), 2),
        (Fault(kind="status", verb="POST", code=503, count=2, retry_after="0"), 3),
        (Fault(kind="status_after", verb="POST", code=500, count=1), 1),
        (Fault(kind="status_after", verb="POST", code=504, count=1), 1),
        (Fault(kind="html", verb="POST", count=1), 2),
        (Fault(kind="reset", verb="POST", count=2), 3),
        (Fault(kind="reset_after", verb="POST", count=1, bytes=500), 2),
        (Fault(kind="expire", verb="POST", count=1), 1),
        (Fault(kind="stall", verb="POST", count=1, seconds=7), 1),
        (Fault(kind="status", verb="GET", path="files", code=502, count=2), 1),
        (Fault(kind="html", verb="GET", path="files", count=1), 1),
        (Fault(kind="reset", verb="GET", path="files", count=1, after=1), 1),
    ],
    ids=lambda value: f"{value.kind}-{value.verb}-{value.code}" if isinstance(value, Fault) else "",
)
def test_it_arrives_in_spite_of(
    drive: Driver, server, rest: Rest, fault: Fault, most_archives: int
) -> None:
    server.clear_log()
    server.faults.add(fault)
    drain(drive, 20)
    server.faults.clear()
    assert rest.files(HELD) == WANTED
    assert drive.fs.pending() == []
    assert archives(server) <= most_archives
    # Never twice under two names, and listed, with its digest.
    rows = rest.rows(f"/data{HELD}/files?format=json")
    assert sorted(row["URI"].partition("/files/")[2] for row in rows) == sorted(WANTED)
    assert all(row["digest"] for row in rows)


def test_what_a_conflict_left_unlisted_is_replaced(
    drive: Driver, server, rest: Rest, tmp_path: Path, expected_warnings: list[str]
) -> None:
    """R§4.6: the bytes are in place, in no listing, and their names are refused as duplicates."""
    # Below a folder only an archive carries this name, and archives overwrite nothing.
    odd = "sub/größe#1.nii"
    expected_warnings.append(odd)
    server.clear_log()
    server.faults.add(Fault(kind="conflict", verb="POST", count=1))
    drain(drive, 20)
    assert rest.files(HELD) == {name: text for name, text in WANTED.items() if name != odd}
    assert any("overwrite=true" in line for line in requests(server))
    (row,) = drive.fs.pending()
    assert row["path"] == f"{FILES}/{odd}"
    assert "cannot overwrite" in row["error"]
    assert kept(tmp_path) == [WANTED[odd]]


def test_too_large_an_archive_is_halved(connect, server, rest: Rest, monkeypatch) -> None:
    """A proxy's bound (413) tells nothing of the single files."""
    drive = Driver(connect("member", write_back=True))
    drive.mkdir(NIFTI)
    wanted = {f"f{number}": b"%d" % number * 1000 for number in range(8)}
    for name, content in wanted.items():
        drive.write(f"{FILES}/{name}", content)
    server.faults.add(Fault(kind="status", code=413, verb="POST", path="extract", count=1))
    server.clear_log()
    drain(drive)
    assert rest.files(HELD) == wanted
    more = {f"g{number}": b"%d" % number * 1000 for number in range(8)}
    for name, content in more.items():
        drive.write(f"{FILES}/{name}", content)
    server.clear_log()
    drain(drive)
    assert rest.files(HELD) == wanted | more
    assert archives(server) == 2


@pytest.mark.parametrize(("code", "words"), [(403, "may not write"), (507, "507"), (404, "404")])
def test_a_refusal_is_not_repeated(
    drive: Driver, server, rest: Rest, code: int, words: str, expected_warnings: list[str]
) -> None:
    expected_warnings.append("is not on the server")
    server.faults.add(Fault(kind="status", code=code, path="/files"))
    server.faults.add(Fault(kind="status", code=code, verb="PUT"))
    server.faults.clear()
    server.faults.add(Fault(kind="status", code=code, verb="POST"))
    server.faults.add(Fault(kind="status", code=code, verb="PUT"))
    server.clear_log()
    drain(drive)
    server.faults.clear()
    assert rest.files(HELD) == {}
    assert archives(server) <= 1 + sum(not name.isascii() or "#" in name for name in NAMES)
    assert singles(server) <= len(NAMES)
    rows = drive.fs.pending()
    assert {row["state"] for row in rows} == {"failed"}
    assert all(words in str(row["error"]) for row in rows)
    assert len(rows) == len(NAMES)


def test_a_server_that_stays_away_keeps_it_waiting(
    drive: Driver, server, rest: Rest, connect, tmp_path: Path
) -> None:
    server.faults.add(Fault(kind="status", code=503, path="/files"))
    with pytest.raises(XnatfsError):
        drain(drive, 1)
    rows = drive.fs.pending()
    assert {row["state"] for row in rows} == {"sealed"}
    assert len(kept(tmp_path)) == len(NAMES)
    # Still there to be read, renamed and removed.
    assert drive.read(FILES + "/a") == WANTED["a"]
    server.faults.clear()
    drain(drive)
    assert rest.files(HELD) == WANTED


def test_renaming_what_may_have_arrived(drive: Driver, server, rest: Rest, connect) -> None:
    """The answer was lost, and the file is renamed: it is looked for under its old name first."""
    server.faults.add(Fault(kind="status_after", code=504, verb="POST", count=1))
    server.faults.add(Fault(kind="status", code=503, verb="GET", path="/files", after=1))
    with pytest.raises(XnatfsError):
        drain(drive, 1)
    assert {row["state"] for row in drive.fs.pending()} == {"sealed"}
    server.faults.clear()
    with pytest.raises(XnatfsError):
        # It is on the server now, and a member may not delete there.
        drive.fs.rename(FILES + "/a", FILES + "/z", soon())
    drain(drive)
    assert rest.files(HELD) == WANTED


def test_writing_again_what_may_have_arrived(drive: Driver, server, rest: Rest) -> None:
    """The version that arrived without an answer is ours to replace, and nobody else's."""
    server.faults.add(Fault(kind="status_after", code=504, verb="POST", count=1))
    server.faults.add(Fault(kind="status", code=503, verb="GET", path="/files", after=1))
    with pytest.raises(XnatfsError):
        drain(drive, 1)
    server.faults.clear()
    drive.write(FILES + "/a", b"written again")
    drain(drive)
    assert rest.files(HELD) == WANTED | {"a": b"written again"}


def test_two_mounts_write_into_one_resource(connect, server, rest: Rest) -> None:
    """Each spoils the other's catalog (R§4.6) again and again; all arrives."""
    drives = [Driver(connect(user, write_back=True)) for user in ("admin", "member")]
    drives[0].mkdir(NIFTI)
    server.faults.add(Fault(kind="conflict", path="/files", probability=0.3))
    wanted = {}
    for number in range(30):
        for which, drive in enumerate(drives):
            name, content = f"{which}-{number}", b"%d %d" % (which, number) * 100
            drive.write(f"{FILES}/{name}", content)
            wanted[name] = content
    threads = [threading.Thread(target=drain, args=(drive, 60)) for drive in drives]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    server.faults.clear()
    assert rest.files(HELD) == wanted
    assert [drive.fs.pending() for drive in drives] == [[], []]


def test_a_file_that_grew_beyond_company_goes_alone(
    connect, server, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batch, "LARGEST", 1000)
    drive = Driver(connect("member", write_back=True))
    drive.mkdir(NIFTI)
    wanted = {f"f{number}": bytes([number]) * (900 + 50 * number) for number in range(6)}
    for name, content in wanted.items():
        drive.write(f"{FILES}/{name}", content)
    server.clear_log()
    drain(drive)
    assert rest.files(HELD) == wanted
    assert (archives(server), singles(server)) == (1, 3)


def test_a_copy_that_is_gone_harms_no_other(
    drive: Driver, rest: Rest, tmp_path: Path, expected_warnings: list[str]
) -> None:
    """Somebody has cleaned up in the spool."""
    expected_warnings.append(f"{FILES}/a")
    (place,) = tmp_path.glob("state/spool/*/*-a/bytes")
    place.unlink()
    drain(drive)
    assert rest.files(HELD) == {name: text for name, text in WANTED.items() if name != "a"}
    (row,) = drive.fs.pending()
    assert (row["path"], row["state"]) == (f"{FILES}/a", "failed")
    assert str(row["error"]).startswith("the local disk failed")


def test_writers_wait_while_uploads_make_room(
    connect, server, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LINGER_S", 0.2)
    drive = Driver(connect("admin", write_back=True, spool_size=100_000))
    drive.mkdir(NIFTI)
    wanted = {f"f{number}": bytes([number]) * 30_000 for number in range(20)}
    for name, content in wanted.items():
        drive.write(f"{FILES}/{name}", content)
    drain(drive)
    assert rest.files(HELD) == wanted


def test_without_a_way_out_a_full_spool_is_enospc(
    connect, server, rest: Rest, expected_warnings: list[str]
) -> None:
    """A member's files wait for the end: no room comes of itself."""
    expected_warnings.append("f3")
    drive = Driver(connect("member", write_back=True, spool_size=100_000))
    drive.mkdir(NIFTI)
    for number in range(3):
        drive.write(f"{FILES}/f{number}", bytes(30_000))
    with pytest.raises(XnatfsError, match="--spool-size"):
        drive.write(f"{FILES}/f3", bytes(30_000))
    drain(drive)
    assert sorted(rest.files(HELD)) == ["f0", "f1", "f2"]


def test_recovered_files_are_seen_and_sent_once(connect, server, rest: Rest) -> None:
    """As after a crash: the records are there, their process is not."""
    first: FileSystem = connect("member", write_back=True)
    drive = Driver(first)
    drive.mkdir(NIFTI)
    for name in ("x", "y", "z"):
        drive.write(f"{FILES}/{name}", name.encode())
    first.close()
    second: FileSystem = connect("member", write_back=True)
    second.recover()
    after = Driver(second)
    assert after.names(FILES) == ["x", "y", "z"]
    assert after.read(FILES + "/y") == b"y"
    after.fs.rename(FILES + "/y", FILES + "/renamed", soon())
    after.fs.unlink(FILES + "/z", soon())
    drain(after)
    assert rest.files(HELD) == {"x": b"x", "renamed": b"y"}
    assert after.fs.pending() == []


def test_nobody_takes_what_another_account_left(connect, server, rest: Rest) -> None:
    first = Driver(connect("member", write_back=True))
    first.mkdir(NIFTI)
    first.write(FILES + "/x", b"x")
    first.fs.close()
    other = connect("admin", write_back=True)
    other.recover()
    assert other.pending() == []
    reader = connect("member", read_only=True)
    reader.recover()
    assert reader.pending() == []
    again = connect("member")
    again.recover()
    assert within(10, lambda: rest.files(HELD) == {"x": b"x"} or not drain(Driver(again)))
    assert rest.files(HELD) == {"x": b"x"}
