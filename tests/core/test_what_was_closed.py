"""What was closed counts, whatever is done to its name: removals, renames, races, full disks."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from tests.core.driver import NAMES, SCAN4, Driver, Rest, requests, soon
from tests.mount.desk import within
from xnatfs.demo.faults import Fault
from xnatfs.errors import NoSpace, ServerFault, XnatfsError
from xnatfs.tree.node import Node
from xnatfs.upload import outbox, upload
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

NIFTI = SCAN4 + "/resources/NIFTI"
FILES = NIFTI + "/files"
HELD = "/experiments/XNAT_E00001/scans/4/resources/NIFTI"
NAMES_HELD = "/experiments/XNAT_E00001/resources/NAMES"
HIDDEN = FILES + "/.fuse_hidden0000000100000001"
BESIDE = FILES + "/.a.Xy12Zq"


@pytest.fixture
def rest(server) -> Rest:
    return Rest(server)


@pytest.fixture
def owner(connect) -> Driver:
    drive = Driver(connect("admin", write_back=True))
    drive.mkdir(NIFTI)
    return drive


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is sent before somebody waits for it."""
    monkeypatch.setattr(outbox, "LINGER_S", 3600.0)
    return


def drain(drive: Driver) -> None:
    drive.fs.drain(Waiter(idle_s=20))


def spool(drive: Driver) -> list[tuple[str, str]]:
    return sorted((row["path"], row["state"]) for row in drive.fs.pending())


def kept(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.glob("state/spool/*/*/bytes"))


def half(drive: Driver) -> int:
    """A file beside, not complete; its handle."""
    handle = drive.create(BESIDE, os.O_EXCL, 0o600)
    drive.fs.write(handle, b"half", 0, soon())
    return handle


def test_renaming_over_it_while_somebody_reads_it(
    patient, owner: Driver, rest: Rest, tmp_path: Path
) -> None:
    """libfuse renames an open target away first."""
    owner.write(FILES + "/a", b"closed")
    reader, writer = owner.open(FILES + "/a"), half(owner)
    owner.fs.rename(FILES + "/a", HIDDEN, soon())
    assert (FILES + "/a", "sealed") in spool(owner)
    owner.fs.rename(BESIDE, FILES + "/a", soon())
    assert owner.fs.read(reader, 100, 0, soon()) == b"closed"
    owner.close(reader)
    owner.fs.unlink(HIDDEN, soon())
    # A crash at this moment: what was closed is what counts.
    assert spool(owner) == [(FILES + "/a", "open"), (FILES + "/a", "sealed")]
    assert kept(tmp_path) == [b"closed", b"half"]
    owner.close(writer)
    drain(owner)
    assert rest.files(HELD) == {"a": b"half"}
    assert kept(tmp_path) == []


def test_renaming_over_what_has_arrived_and_is_still_open(owner: Driver, rest: Rest) -> None:
    """Its last release may come late: nobody finds the old version under that name any more."""
    owner.write(FILES + "/a", b"old")
    owner.write(FILES + "/b", b"new")
    drain(owner)
    reader = owner.open(FILES + "/a")
    owner.fs.rename(FILES + "/b", FILES + "/a", soon())
    assert owner.read(FILES + "/a") == b"new"
    owner.write(FILES + "/a", b"newer")
    drain(owner)
    owner.close(reader)
    assert owner.read(FILES + "/a") == b"newer"
    assert rest.files(HELD) == {"a": b"newer"}
    assert spool(owner) == []


def test_making_it_anew_while_somebody_reads_it(
    patient, owner: Driver, rest: Rest, tmp_path: Path
) -> None:
    owner.write(FILES + "/a", b"closed")
    reader = owner.open(FILES + "/a")
    owner.fs.rename(FILES + "/a", HIDDEN, soon())
    assert owner.names(FILES) == [HIDDEN.rpartition("/")[2]]
    writer = owner.create(FILES + "/a")
    owner.fs.write(writer, b"anew", 0, soon())
    owner.close(reader)
    owner.fs.unlink(HIDDEN, soon())
    assert kept(tmp_path) == [b"anew", b"closed"]
    owner.close(writer)
    assert kept(tmp_path) == [b"anew"]
    drain(owner)
    assert rest.files(HELD) == {"a": b"anew"}


def test_removed_while_open_it_never_goes(
    patient, owner: Driver, server, rest: Rest, tmp_path: Path
) -> None:
    owner.write(FILES + "/a", b"closed")
    handle = owner.open(FILES + "/a", os.O_RDWR)
    owner.fs.rename(FILES + "/a", HIDDEN, soon())
    owner.fs.write(handle, b"on and on", 0, soon())
    drain(owner)
    assert rest.files(HELD) == {}
    assert owner.fs.read(handle, 100, 0, soon()) == b"on and on"
    owner.close(handle)
    owner.fs.unlink(HIDDEN, soon())
    assert (kept(tmp_path), owner.names(FILES), spool(owner)) == ([], [], [])
    drain(owner)
    assert rest.files(HELD) == {}


def test_what_arrives_while_it_is_renamed_is_not_pinned(
    connect, server, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LINGER_S", 0.0)
    drive = Driver(connect("admin", write_back=True))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/x", b"the one that comes over it")
    drive.write(FILES + "/a", b"one")
    drain(drive)
    server.faults.add(Fault(kind="delay", verb="PUT", seconds=1.0, count=1))
    server.clear_log()
    drive.write(FILES + "/a", b"two")
    # A look at what is replaced, then it is on its way.
    assert within(10, lambda: bool(requests(server)))
    threading.Event().wait(0.1)
    drive.fs.rename(FILES + "/a", FILES + "/b", soon())
    drain(drive)
    drive.fs.rename(FILES + "/x", FILES + "/b", soon())
    assert drive.read(FILES + "/b") == b"the one that comes over it"
    handle = drive.open(FILES + "/b", os.O_WRONLY)
    drive.fs.write(handle, b", and more", 26, soon())
    drive.close(handle)
    drain(drive)
    assert rest.files(HELD) == {"b": b"the one that comes over it, and more"}


def test_two_last_releases_at_once(connect, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that nobody has written only the last release tells that it is complete."""
    interval = sys.getswitchinterval()
    drive = Driver(connect("admin", write_back=True))
    drive.mkdir(NIFTI)
    monkeypatch.setattr(outbox, "LINGER_S", 3600.0)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(2) as threads:
            for number in range(100):
                path = f"{FILES}/{number}"
                handles = drive.create(path), drive.open(path, os.O_WRONLY)
                meeting = threading.Barrier(2)

                def release(handle: int, meeting: threading.Barrier = meeting) -> None:
                    meeting.wait()
                    drive.fs.release(handle, soon())

                list(threads.map(release, handles))
    finally:
        sys.setswitchinterval(interval)
    assert {row["state"] for row in drive.fs.pending()} == {"sealed"}


def test_what_arrives_just_before_it_is_renamed_or_removed(
    connect, server, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at a name and the work with it, the new version may arrive."""
    drive = Driver(connect("admin", write_back=True))
    drive.mkdir(NIFTI)
    drive.write(FILES + "/a", b"one")
    drive.write(FILES + "/b", b"one")
    drain(drive)
    look = drive.fs._node

    def looked_at_before(path: str, waiter: Waiter) -> Node:
        node = look(path, waiter)
        drain(drive)
        return node

    for name in "ab":
        drive.write(f"{FILES}/{name}", b"the second")
    monkeypatch.setattr(drive.fs, "_node", looked_at_before)
    drive.fs.rename(FILES + "/a", FILES + "/c", soon())
    drive.write(FILES + "/b", b"the third one")
    drive.fs.unlink(FILES + "/b", soon())
    assert rest.files(HELD) == {"c": b"the second"}


def test_a_rename_that_fails_leaves_it_waiting(
    patient, owner: Driver, server, rest: Rest, tmp_path: Path
) -> None:
    """It was closed: the server's trouble of this moment is no reason to give it up."""
    owner.write(FILES + "/a", b"one")
    drain(owner)
    owner.write(FILES + "/a", b"the second")
    server.faults.add(Fault(kind="status", verb="PUT", code=500))
    with pytest.raises(ServerFault):
        owner.fs.rename(FILES + "/a", FILES + "/b", soon())
    server.faults.clear()
    assert spool(owner) == [(FILES + "/a", "sealed")]
    assert owner.read(FILES + "/a") == b"the second"
    drain(owner)
    assert rest.files(HELD) == {"a": b"the second"}


def test_a_temporary_file_that_cannot_be_renamed_stays_one(
    patient, owner: Driver, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.write(FILES + "/a", b"closed")
    writer = half(owner)
    owner.close(writer)

    def full(*_: object, **__: object) -> None:
        raise NoSpace("full")

    with monkeypatch.context() as broken:
        broken.setattr(Upload, "readdress", full)
        with pytest.raises(NoSpace):
            owner.fs.rename(BESIDE, FILES + "/a", soon())
    drain(owner)
    assert rest.files(HELD) == {"a": b"closed"}


def test_a_disk_that_is_full_in_the_middle_of_a_rename(
    patient, owner: Driver, rest: Rest, monkeypatch: pytest.MonkeyPatch, expected_warnings
) -> None:
    """Either all of it, the content that counts and what is being written, or nothing."""
    owner.write(FILES + "/a", b"closed")
    owner.write(FILES + "/b", b"neighbour")
    handle = owner.open(FILES + "/a", os.O_WRONLY | os.O_TRUNC)
    owner.fs.write(handle, b"half", 0, soon())
    write, room = upload.write_record, [1]

    def nearly_full(*args: Any, **more: Any) -> None:
        if not room:
            raise NoSpace("full")
        room.pop()
        write(*args, **more)

    expected_warnings.append("its record could not be written")
    with monkeypatch.context() as broken:
        broken.setattr(upload, "write_record", nearly_full)
        owner.fs.rename(FILES + "/a", FILES + "/c", soon())
        with pytest.raises(NoSpace):
            owner.fs.rename(FILES + "/c", FILES + "/b", soon())
    assert owner.names(FILES) == ["b", "c"]
    assert owner.read(FILES + "/b") == b"neighbour"
    owner.close(handle)
    drain(owner)
    assert rest.files(HELD) == {"b": b"neighbour", "c": b"half"}


def test_a_temporary_name_waits_for_a_person(
    patient, owner: Driver, connect, rest: Rest, tmp_path: Path
) -> None:
    """An editor's backup of a file that had not been sent, and the machine dies."""
    owner.write(FILES + "/a", b"before")
    owner.fs.rename(FILES + "/a", FILES + "/a~", soon())
    owner.write(FILES + "/a", b"after")
    drain(owner)
    assert spool(owner) == [(FILES + "/a~", "sealed")]
    owner.fs.close()
    later = Driver(connect("admin", write_back=True))
    later.fs.recover()
    drain(later)
    assert rest.files(HELD) == {"a": b"after"}
    assert kept(tmp_path) == [b"before"]


def test_what_a_dead_mount_left_and_what_is_made_meanwhile(
    patient, owner: Driver, connect, rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    expected_warnings: list[str],
) -> None:  # fmt: skip
    """The job runs again while its first results are still being looked for."""
    owner.write(FILES + "/a", b"left by the first")
    owner.write(FILES + "/b", b"left by the first")
    owner.fs.close()
    later = Driver(connect("admin", write_back=True))
    recovered = threading.Event()
    new, take = later.fs._parts.spool.new, later.fs._parts.spool.take

    def slowly(*args: Any) -> Upload:
        """Of "a" what was left is found while the new one is made …"""
        made = new(*args)
        if not recovered.is_set():
            recovered.set()
            later.fs.recover()
        return made

    def too_late(folder: Path) -> Upload | None:
        """… and of "b" the new one is made while what was left is found."""
        found = take(folder)
        if folder.name.endswith("-b"):
            later.write(FILES + "/b", b"anew")
        return found

    monkeypatch.setattr(later.fs._parts.spool, "new", slowly)
    monkeypatch.setattr(later.fs._parts.spool, "take", too_late)
    expected_warnings.append("b was made anew; what was left of it stays")
    handle = later.create(FILES + "/a", os.O_TRUNC)
    later.fs.write(handle, b"anew", 0, soon())
    later.close(handle)
    assert kept(tmp_path) == [b"anew", b"anew", b"left by the first"]
    drain(later)
    assert rest.files(HELD) == {"a": b"anew", "b": b"anew"}


def test_what_was_durable_stays_so(patient, owner: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    """A power loss may not take both, what was closed long ago and what has replaced it."""
    synced: list[str] = []
    monkeypatch.setattr(upload, "sync_file", lambda path: synced.append(path.name))
    for verb in ("write", "rename"):
        owner.write(FILES + "/a", b"long ago")
        for waiting in owner.fs._parts.spool.pending():
            waiting.fsync()
        synced.clear()
        if verb == "write":
            owner.write(FILES + "/a", b"anew")
        else:
            owner.write(FILES + "/b", b"beside")
            owner.fs.rename(FILES + "/b", FILES + "/a", soon())
        assert sorted(synced) == ["bytes", "record.json"]


@pytest.mark.parametrize("verb", ["GET", "PUT"])
def test_a_rename_that_fails_leaves_nothing_behind(
    connect, server, rest: Rest, tmp_path: Path, verb: str
) -> None:
    """What the server has under the old name does not wait to be sent under the new one."""
    drive = Driver(connect("admin", allow_delete=True))
    before = rest.files(NAMES_HELD)
    server.faults.add(Fault(kind="status", verb=verb, path="/files/", code=403))
    with pytest.raises(XnatfsError):
        drive.fs.rename(NAMES + "/plain.txt", NAMES + "/other.txt", soon())
    server.faults.clear()
    assert (spool(drive), kept(tmp_path)) == ([], [])
    assert rest.files(NAMES_HELD) == before
    drive.fs.rename(NAMES + "/plain.txt", NAMES + "/other.txt", soon())
    assert rest.files(NAMES_HELD) == {
        name.replace("plain", "other"): content for name, content in before.items()
    }


def send_without_an_answer(drive: Driver, server, *, looks: int = 0) -> None:
    """The server gets it, after so many looks, and nobody knows."""
    server.faults.add(Fault(kind="status_after", verb="PUT", code=503, count=1))
    listing = "resources/[0-9]+/files"
    server.faults.add(Fault(kind="status", verb="GET", path=listing, code=503, after=looks))
    with pytest.raises(XnatfsError):
        drive.fs.drain(Waiter(total_s=2))
    server.faults.clear()


@pytest.mark.parametrize("listed", [False, True])
@pytest.mark.parametrize("then", ["remove", "rename", "send"])
def test_an_answer_was_lost_and_it_was_written_over(
    patient, owner: Driver, server, rest: Rest, then: str, listed: bool
) -> None:
    """What the server has is an earlier version of ours, not nothing, and not somebody else's."""
    owner.write(FILES + "/a", b"the first")
    send_without_an_answer(owner, server)
    assert rest.files(HELD) == {"a": b"the first"}
    owner.write(FILES + "/a", b"the second one")
    if listed:
        owner.fs.refresh("/", soon())
    if then == "remove":
        owner.fs.unlink(FILES + "/a", soon())
    elif then == "rename":
        owner.fs.rename(FILES + "/a", FILES + "/b", soon())
    drain(owner)
    wanted = {"remove": {}, "rename": {"b": b"the second one"}, "send": {"a": b"the second one"}}
    assert rest.files(HELD) == wanted[then]
    assert spool(owner) == []


@pytest.mark.parametrize("then", ["remove", "replace"])
def test_an_answer_was_lost_and_it_is_removed_while_open(
    patient, owner: Driver, server, rest: Rest, then: str
) -> None:
    owner.write(FILES + "/a", b"before")
    drain(owner)
    owner.write(FILES + "/a", b"the first")
    send_without_an_answer(owner, server, looks=1)
    assert rest.files(HELD) == {"a": b"the first"}
    reader = owner.open(FILES + "/a")
    owner.fs.rename(FILES + "/a", HIDDEN, soon())
    if then == "replace":
        writer = half(owner)
        owner.fs.rename(BESIDE, FILES + "/a", soon())
        owner.close(writer)
    assert owner.fs.read(reader, 100, 0, soon()) == b"the first"
    owner.close(reader)
    owner.fs.unlink(HIDDEN, soon())
    drain(owner)
    assert rest.files(HELD) == ({} if then == "remove" else {"a": b"half"})
    assert spool(owner) == []
