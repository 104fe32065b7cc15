"""Writing, making, renaming and removing: what the server holds afterwards, byte for byte."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from pathlib import Path

import pytest

from tests.core.driver import ME, NAMES, SCAN4, SESSION, Driver, Rest, requests, soon
from tests.core.slowlink import SlowLink
from xnatfs.config import Limits
from xnatfs.demo.faults import Fault
from xnatfs.errors import (
    AlreadyExists,
    BadName,
    CrossResource,
    FolderNotEmpty,
    NoSpace,
    NotFound,
    NotPermitted,
    NotSupported,
    Protected,
    ReadOnly,
    XnatfsError,
)
from xnatfs.fs.values import Caller
from xnatfs.waiting import Waiter

NIFTI = SCAN4 + "/resources/NIFTI"
FILES = NIFTI + "/files"
HELD = "/experiments/XNAT_E00001/scans/4/resources/NIFTI"


@pytest.fixture
def drive(connect) -> Driver:
    driver = Driver(connect("member"))
    driver.mkdir(NIFTI)
    return driver


@pytest.fixture
def rest(server) -> Rest:
    return Rest(server)


def puts(server) -> list[str]:
    return [line for line in requests(server) if line.startswith("PUT") and "/files/" in line]


def test_what_was_closed_is_on_the_server(drive: Driver, rest: Rest) -> None:
    content = {
        "a.nii": os.urandom(300_000),
        "empty": b"",
        "größe.nii": b"g",
        "a#b": b"h",
        "sp ace+plus": b"s",
        "it's (1) [2] {3} & co, @=~$!": b"q",
        "n" * 200 + ".nii": b"n",
    }
    for name, data in content.items():
        drive.write(f"{FILES}/{name}", data)
        assert drive.read(f"{FILES}/{name}") == data
    drive.mkdir(FILES + "/sub")
    drive.write(FILES + "/sub/ü x", b"below")
    content["sub/ü x"] = b"below"
    assert rest.files(HELD) == content
    assert set(drive.names(FILES)) == {name for name in content if "/" not in name} | {"sub"}


@pytest.mark.parametrize("name", ["100%.nii", "a;b", "back\\slash", "%41"])
def test_a_name_the_server_cannot_store_is_refused_first(
    drive: Driver, server, rest: Rest, name: str
) -> None:
    server.clear_log()
    with pytest.raises(BadName):
        drive.create(f"{FILES}/{name}")
    assert puts(server) == []
    assert not drive.exists(f"{FILES}/{name}")
    assert rest.files(HELD) == {}


@pytest.mark.parametrize("label", ["17", "a,b", "a b", "größe", "a%b"])
def test_a_label_that_does_not_come_back_is_refused(drive: Driver, label: str) -> None:
    with pytest.raises(BadName):
        drive.mkdir(f"{SCAN4}/resources/{label}")


def test_random_writes_appends_and_truncates(drive: Driver, rest: Rest) -> None:
    path = FILES + "/rw"
    handle = drive.create(path)
    drive.fs.write(handle, b"0123456789", 0, soon())
    drive.fs.write(handle, b"AB", 20, soon())
    drive.fs.write(handle, b"xyz", 3, soon())
    drive.fs.truncate(path, 21, handle, soon())
    assert drive.fs.read(handle, 100, 0, soon()) == b"012xyz6789" + bytes(10) + b"A"
    drive.close(handle)
    assert rest.files(HELD)["rw"] == b"012xyz6789" + bytes(10) + b"A"
    handle = drive.open(path, os.O_WRONLY | os.O_APPEND)
    drive.fs.write(handle, b"end", 21, soon())
    drive.close(handle)
    drive.fs.truncate(path, 5, None, soon())
    assert rest.files(HELD)["rw"] == b"012xy"
    assert drive.stat(path).size == 5


def test_several_descriptors_see_one_file(drive: Driver, rest: Rest) -> None:
    path = FILES + "/shared"
    one = drive.create(path)
    drive.fs.write(one, b"first", 0, soon())
    two = drive.open(path, os.O_RDWR)
    drive.fs.write(two, b"SECOND", 5, soon())
    assert drive.fs.read(one, 100, 0, soon()) == b"firstSECOND"
    drive.close(two)
    drive.fs.write(one, b"!", 11, soon())
    drive.close(one)
    assert rest.files(HELD)["shared"] == b"firstSECOND!"


def test_exclusive_creation(drive: Driver) -> None:
    drive.write(FILES + "/x", b"1")
    with pytest.raises(AlreadyExists):
        drive.create(FILES + "/x", os.O_EXCL)


def test_a_descriptor_that_a_child_closes_uploads_nothing(drive: Driver, server) -> None:
    """``{ a; b; } > file`` is one upload, and no empty one before it."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        server.clear_log()
        handle = drive.create(FILES + "/group")
        drive.fs.flush(handle, ME, soon())  # the shell moved the descriptor
        assert puts(server) == []
        drive.fs.write(handle, b"a", 0, soon())
        drive.fs.flush(handle, Caller(child.pid), soon())
        assert puts(server) == []
        drive.fs.write(handle, b"b", 1, soon())
        drive.close(handle)
        assert len(puts(server)) == 1
    finally:
        child.kill()
        child.wait()


def test_the_flush_of_a_child_counts_when_the_opener_is_gone(drive: Driver, server) -> None:
    opener = subprocess.Popen(["true"])
    opener.wait()
    handle = drive.create(FILES + "/orphan", caller=Caller(opener.pid))
    drive.fs.write(handle, b"x", 0, soon())
    server.clear_log()
    drive.fs.flush(handle, ME, soon())
    assert len(puts(server)) == 1
    drive.fs.release(handle, soon())


def test_overwriting_by_truncation_is_one_upload(drive: Driver, server, rest: Rest) -> None:
    drive.write(FILES + "/again", b"long content")
    server.clear_log()
    handle = drive.open(FILES + "/again", os.O_WRONLY | os.O_TRUNC)
    drive.fs.flush(handle, ME, soon())
    assert drive.stat(FILES + "/again").size == 0
    drive.fs.write(handle, b"new", 0, soon())
    drive.close(handle)
    assert len(puts(server)) == 1
    assert rest.files(HELD)["again"] == b"new"


def test_a_job_can_be_run_again(connect, rest: Rest) -> None:
    first = Driver(connect("member"))
    first.mkdir(NIFTI)
    first.write(FILES + "/result", b"one")
    first.fs.drain(soon())
    second = Driver(connect("member"))
    second.write(FILES + "/result", b"two!")
    assert rest.files(HELD) == {"result": b"two!"}


def test_others_files_are_safe_by_default(connect, server, rest: Rest) -> None:
    before = rest.files("/experiments/XNAT_E00001/resources/NAMES")
    drive = Driver(connect("admin"))
    server.clear_log()
    path = NAMES + "/plain.txt"
    for attempt in (
        lambda: drive.open(path, os.O_WRONLY),
        lambda: drive.open(path, os.O_RDWR | os.O_TRUNC),
        lambda: drive.fs.truncate(path, 0, None, soon()),
        lambda: drive.fs.unlink(path, soon()),
        lambda: drive.fs.rename(path, NAMES + "/other.txt", soon()),
        lambda: drive.fs.rename(NAMES + "/with space.txt", path, soon()),
        lambda: drive.fs.rmdir(NAMES + "/a", soon()),
        lambda: drive.fs.rmdir(SESSION + "/resources/NAMES", soon()),
        lambda: drive.fs.rmdir(SESSION + "/scans/4", soon()),
        lambda: drive.fs.chmod(path, 0o600, soon()),
    ):
        with pytest.raises((Protected, FolderNotEmpty, NotPermitted)):
            attempt()
    assert all(line.startswith(("GET", "HEAD")) for line in requests(server) if "/files" in line)
    assert rest.files("/experiments/XNAT_E00001/resources/NAMES") == before


def test_others_files_change_when_it_is_allowed(connect, rest: Rest) -> None:
    drive = Driver(connect("admin", allow_overwrite=True, allow_delete=True))
    drive.write(NAMES + "/plain.txt", b"changed")
    drive.fs.unlink(NAMES + "/with space.txt", soon())
    held = rest.files("/experiments/XNAT_E00001/resources/NAMES")
    assert held["plain.txt"] == b"changed"
    assert "with space.txt" not in held


def test_removing_never_touches_a_neighbour(connect, rest: Rest) -> None:
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    names = ["a.nii", "a.nii.gz", "a.nii.json", "a.niix", "aXnii", "sub/a", "sub2/a"]
    for name in names:
        if "/" in name:
            drive.mkdir(f"{FILES}/{name.partition('/')[0]}")
        drive.write(f"{FILES}/{name}", name.encode())
    left = {name: name.encode() for name in names}
    for name in ("a.nii.gz", "sub/a"):
        drive.fs.unlink(f"{FILES}/{name}", soon())
        del left[name]
        assert rest.files(HELD) == left
    drive.fs.rmdir(FILES + "/sub", soon())
    assert "sub" not in drive.names(FILES)
    # "a.nii" alone cannot be told from "aXnii" by any request: refused, nothing lost.
    with pytest.raises(BadName):
        drive.fs.unlink(FILES + "/a.nii", soon())
    assert rest.files(HELD) == left


def test_members_may_not_delete(drive: Driver, server, rest: Rest) -> None:
    drive.write(FILES + "/mine", b"1")
    server.clear_log()
    with pytest.raises(NotPermitted):
        drive.fs.unlink(FILES + "/mine", soon())
    assert not any(line.startswith("DELETE") for line in requests(server))
    assert rest.files(HELD) == {"mine": b"1"}


def test_readers_change_nothing(connect, rest: Rest) -> None:
    owner = Driver(connect("admin"))
    owner.mkdir(NIFTI)
    drive = Driver(connect("reader"))
    with pytest.raises(NotPermitted):
        drive.write(FILES + "/x", b"1")
    with pytest.raises(NotPermitted):
        drive.mkdir(SCAN4 + "/resources/MORE")
    with pytest.raises(NotPermitted):
        drive.mkdir(FILES + "/folder")
    assert rest.files(HELD) == {}


def test_a_read_only_mount(connect) -> None:
    drive = Driver(connect("admin", read_only=True))
    with pytest.raises(ReadOnly):
        drive.mkdir(NIFTI)
    with pytest.raises(ReadOnly):
        drive.create(NAMES + "/new")
    assert drive.stat(NAMES).mode == 0o555


def test_folders(drive: Driver) -> None:
    with pytest.raises(AlreadyExists):
        drive.mkdir(NIFTI)
    for path in (SCAN4 + "/foo", SESSION + "/scans/99", NIFTI + "/x", "/projects/NEW"):
        with pytest.raises(Protected):
            drive.mkdir(path)
    drive.mkdir(FILES + "/a")
    drive.mkdir(FILES + "/a/b")
    assert drive.names(FILES) == ["a"]
    with pytest.raises(FolderNotEmpty):
        drive.fs.rmdir(FILES + "/a", soon())
    drive.fs.rmdir(FILES + "/a/b", soon())
    drive.fs.rmdir(FILES + "/a", soon())
    assert drive.names(FILES) == []


def test_a_folder_outlives_its_last_file(connect) -> None:
    drive = Driver(connect("admin", allow_delete=True))
    drive.fs.unlink(NAMES + "/a/b/c.txt", soon())
    assert drive.names(NAMES + "/a/b") == []
    drive.fs.rmdir(NAMES + "/a/b", soon())
    assert "b" not in drive.names(NAMES + "/a")


def test_renaming_what_somebody_has_open(connect, rest: Rest) -> None:
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/old", b"content")
    handle = drive.open(FILES + "/old", os.O_RDWR)
    drive.fs.rename(FILES + "/old", FILES + "/new", soon())
    drive.write(FILES + "/old", b"another")
    assert drive.fs.read(handle, 100, 0, soon()) == b"content"
    drive.fs.write(handle, b"C", 0, soon())
    drive.close(handle)
    assert rest.files(HELD) == {"new": b"Content", "old": b"another"}


def test_a_resource_of_our_own_can_be_removed_while_empty(connect) -> None:
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/x", b"1")
    with pytest.raises(FolderNotEmpty):
        drive.fs.rmdir(NIFTI, soon())
    drive.fs.unlink(FILES + "/x", soon())
    drive.fs.rmdir(NIFTI, soon())
    assert not drive.exists(NIFTI)


def test_files_live_below_files_only(drive: Driver) -> None:
    for path in ("/x", SESSION + "/x", NIFTI + "/x", SCAN4 + "/resources/x"):
        with pytest.raises(Protected):
            drive.create(path)
    for make in (drive.fs.symlink, drive.fs.link):
        with pytest.raises(NotSupported):
            make(FILES + "/l", "/etc/passwd", soon())


def test_renaming_what_is_on_the_server(connect, rest: Rest) -> None:
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/old", b"content")
    drive.fs.rename(FILES + "/old", FILES + "/new", soon())
    assert rest.files(HELD) == {"new": b"content"}
    drive.write(FILES + "/other", b"other")
    drive.fs.rename(FILES + "/other", FILES + "/new", soon())
    assert rest.files(HELD) == {"new": b"other"}
    with pytest.raises(CrossResource):
        drive.fs.rename(FILES + "/new", NAMES + "/new", soon())


def test_a_member_cannot_rename_what_is_on_the_server(drive: Driver, rest: Rest) -> None:
    drive.write(FILES + "/old", b"content")
    with pytest.raises(NotPermitted):
        drive.fs.rename(FILES + "/old", FILES + "/new", soon())
    assert rest.files(HELD) == {"old": b"content"}


def test_temporary_names_never_reach_the_server(drive: Driver, server, rest: Rest) -> None:
    server.clear_log()
    handle = drive.create(FILES + "/.result.nii.Xy12Zq", os.O_EXCL, 0o600)
    drive.fs.write(handle, b"rsync", 0, soon())
    drive.close(handle)
    assert puts(server) == []
    drive.fs.rename(FILES + "/.result.nii.Xy12Zq", FILES + "/result.nii", soon())
    assert rest.files(HELD) == {"result.nii": b"rsync"}
    assert drive.names(FILES) == ["result.nii"]


def test_a_closed_file_is_sent_by_its_rename_though_its_release_is_late(
    drive: Driver, rest: Rest
) -> None:
    handle = drive.create(FILES + "/.result.nii.Xy12Zq", os.O_EXCL, 0o600)
    drive.fs.write(handle, b"rsync", 0, soon())
    drive.fs.flush(handle, ME, soon())
    drive.fs.rename(FILES + "/.result.nii.Xy12Zq", FILES + "/result.nii", soon())
    assert rest.files(HELD) == {"result.nii": b"rsync"}
    drive.fs.release(handle, soon())
    assert drive.read(FILES + "/result.nii") == b"rsync"


def test_removed_while_open(connect, rest: Rest) -> None:
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/open", b"still here")
    handle = drive.open(FILES + "/open")
    hidden = FILES + "/.fuse_hidden0000000100000001"
    drive.fs.rename(FILES + "/open", hidden, soon())
    assert not drive.exists(FILES + "/open")
    assert drive.fs.read(handle, 100, 0, soon()) == b"still here"
    drive.close(handle)
    drive.fs.unlink(hidden, soon())
    assert rest.files(HELD) == {}
    assert drive.names(FILES) == []


def test_a_name_that_was_renamed_away_can_be_used_again(connect, rest: Rest) -> None:
    """What the kernel was told of the old file is not the version of the new one."""
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/name", b"first")
    drive.stat(FILES + "/name")
    drive.fs.rename(FILES + "/name", FILES + "/other", soon())
    drive.write(FILES + "/name", b"second one")
    drive.write(FILES + "/name", b"third")
    assert rest.files(HELD) == {"name": b"third", "other": b"first"}


def test_a_name_that_comes_back_while_its_removal_is_on_its_way(
    connect, server, rest: Rest
) -> None:
    """Releases come late: what is made under the name meanwhile must not be removed with it."""
    drive = Driver(connect("admin"))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/name", b"the removed one")
    drive.stat(FILES + "/name")
    hidden = FILES + "/.fuse_hidden0000000100000001"
    handle = drive.open(FILES + "/name")
    drive.fs.rename(FILES + "/name", hidden, soon())
    drive.close(handle)
    server.faults.add(Fault(kind="delay", verb="DELETE", seconds=0.5, count=1))
    removing = threading.Thread(target=lambda: drive.fs.unlink(hidden, soon()))
    server.clear_log()
    removing.start()
    while not requests(server):  # it looks once more, then deletes
        time.sleep(0.01)
    drive.write(FILES + "/name", b"the new one, which is ours")
    removing.join()
    assert rest.files(HELD) == {"name": b"the new one, which is ours"}
    drive.write(FILES + "/name", b"and may be changed")
    drive.fs.unlink(FILES + "/name", soon())
    assert rest.files(HELD) == {}


def test_modes_and_times_last_as_long_as_the_mount(drive: Driver) -> None:
    drive.write(FILES + "/x", b"1")
    drive.fs.chmod(FILES + "/x", 0o640, soon())
    drive.fs.utimens(FILES + "/x", 1.0, 1234567890.0, soon())
    drive.fs.utimens(FILES, 1.0, 1234567891.0, soon())
    shown = drive.stat(FILES + "/x")
    assert (shown.mode, shown.mtime) == (0o640, 1234567890.0)
    assert drive.stat(FILES).mtime == 1234567891.0


def test_a_file_that_did_not_arrive_is_kept(
    connect, server, rest: Rest, expected_warnings: list[str], tmp_path: Path
) -> None:
    expected_warnings.append("again in")
    expected_warnings.append("lost")
    drive = Driver(connect("member", limits=Limits(io_timeout_s=1.5)))
    drive.mkdir(NIFTI)
    server.faults.add(Fault(kind="reset", path="/files/lost", verb="PUT"))
    handle = drive.create(FILES + "/lost")
    drive.fs.write(handle, b"precious", 0, soon())
    with pytest.raises(XnatfsError) as first:
        drive.fs.flush(handle, ME, soon())
    with pytest.raises(XnatfsError) as second:
        drive.fs.flush(handle, ME, soon())
    assert str(first.value) == str(second.value)
    drive.fs.release(handle, soon())
    assert [row["path"] for row in drive.fs.pending()] == [FILES + "/lost"]
    kept = [path.read_bytes() for path in tmp_path.glob("state/spool/*/*/bytes")]
    assert kept == [b"precious"]
    server.faults.clear()
    drive.write(FILES + "/lost", b"precious")
    assert rest.files(HELD) == {"lost": b"precious"}


def test_an_upload_that_moves_may_take_longer_than_the_timeout(connect, server, rest: Rest) -> None:
    content = os.urandom(16 << 20)
    with SlowLink(server.url, upward=4 << 20) as link:  # bytes per second: about 4 s
        drive = Driver(connect("member", url=link.url, limits=Limits(io_timeout_s=1.5)))
        drive.mkdir(NIFTI)
        handle = drive.create(FILES + "/slow")
        drive.fs.write(handle, content, 0, soon())
        drive.fs.flush(handle, ME, Waiter(idle_s=1.5))
        drive.fs.release(handle, soon())
    assert rest.files(HELD) == {"slow": content}


def test_a_file_that_could_not_be_written_whole_is_not_sent(connect, rest: Rest) -> None:
    drive = Driver(connect("member", spool_size=1_000_000))
    drive.mkdir(NIFTI)
    handle = drive.create(FILES + "/big")
    drive.fs.write(handle, bytes(800_000), 0, soon())
    with pytest.raises(NoSpace):
        drive.fs.write(handle, bytes(800_000), 800_000, soon())
    with pytest.raises(NoSpace):
        drive.fs.flush(handle, ME, soon())
    drive.fs.release(handle, soon())
    assert rest.files(HELD) == {}
    assert [row["path"] for row in drive.fs.pending()] == [FILES + "/big"]
    drive.write(FILES + "/small", b"fits")
    assert rest.files(HELD) == {"small": b"fits"}


def test_nobody_elses_new_file_is_overwritten(drive: Driver, rest: Rest, expected_warnings) -> None:
    expected_warnings.append("race")
    handle = drive.create(FILES + "/race")
    drive.fs.write(handle, b"ours", 0, soon())
    rest.ask("PUT", f"/data{HELD}/files/race?inbody=true", b"theirs")
    with pytest.raises(XnatfsError):
        drive.fs.flush(handle, ME, soon())
    drive.fs.release(handle, soon())
    assert rest.files(HELD) == {"race": b"theirs"}


def test_every_change_carries_a_reason(drive: Driver, server) -> None:
    server.clear_log()
    drive.write(FILES + "/x", b"1")
    assert all("event_reason=xnatfs" in line for line in puts(server))


def test_writing_dicom_is_warned_of(
    drive: Driver, caplog: pytest.LogCaptureFixture, expected_warnings: list[str]
) -> None:
    expected_warnings.append("anonymisation")
    drive.write(FILES + "/x.dcm", bytes(128) + b"DICM" + bytes(10))
    assert f"{FILES}/x.dcm: DICOM" in caplog.text


def test_an_uploaded_file_can_be_gone_again(drive: Driver, rest: Rest) -> None:
    """Somebody else removes what we wrote: the next look says so."""
    drive.write(FILES + "/gone", b"1")
    rest.ask("DELETE", f"/data{HELD}/files/gone")
    drive.fs.refresh("/", soon())
    with pytest.raises(NotFound):
        drive.stat(FILES + "/gone")
