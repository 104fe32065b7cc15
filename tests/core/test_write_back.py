"""Write-back: close is content with the spool, and the server gets everything all the same."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.core.driver import ME, SCAN4, Driver, Rest, requests, soon
from tests.mount.desk import within
from xnatfs.demo.faults import Fault
from xnatfs.errors import DiskFault, XnatfsError
from xnatfs.upload import outbox
from xnatfs.upload.receipts import Receipts
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

NIFTI = SCAN4 + "/resources/NIFTI"
FILES = NIFTI + "/files"
HELD = "/experiments/XNAT_E00001/scans/4/resources/NIFTI"


@pytest.fixture
def rest(server) -> Rest:
    return Rest(server)


@pytest.fixture
def owner(connect) -> Driver:
    drive = Driver(connect("admin", write_back=True))
    drive.mkdir(NIFTI)
    return drive


@pytest.fixture
def member(connect) -> Driver:
    drive = Driver(connect("member", write_back=True))
    drive.mkdir(NIFTI)
    return drive


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is sent before somebody waits for it."""
    monkeypatch.setattr(outbox, "LINGER_S", 3600.0)
    return


def changes(server) -> list[str]:
    return [line for line in requests(server) if line.startswith(("PUT", "POST", "DELETE"))]


def drain(drive: Driver, idle_s: float = 20.0) -> None:
    drive.fs.drain(Waiter(idle_s=idle_s))


def kept(folder: Path) -> list[bytes]:
    return sorted(path.read_bytes() for path in folder.glob("state/spool/*/*/bytes"))


def test_close_is_content_with_the_spool(patient, owner: Driver, server, rest: Rest) -> None:
    server.clear_log()
    owner.write(FILES + "/a.nii", b"content")
    assert changes(server) == []
    assert owner.names(FILES) == ["a.nii"]
    assert owner.stat(FILES + "/a.nii").size == 7
    assert owner.read(FILES + "/a.nii") == b"content"
    assert [(row["path"], row["state"]) for row in owner.fs.pending()] == [
        (FILES + "/a.nii", "sealed")
    ]
    drain(owner)
    assert rest.files(HELD) == {"a.nii": b"content"}
    assert owner.fs.pending() == []
    assert owner.names(FILES) == ["a.nii"]
    assert owner.read(FILES + "/a.nii") == b"content"


def test_it_is_sent_in_the_background(owner: Driver, rest: Rest) -> None:
    owner.write(FILES + "/a.nii", b"content")
    assert within(10, lambda: rest.files(HELD) == {"a.nii": b"content"})
    assert within(10, lambda: owner.fs.pending() == [])


def test_what_a_member_writes_waits_for_the_end(
    member: Driver, server, rest: Rest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(outbox, "LINGER_S", 0.0)
    server.clear_log()
    member.write(FILES + "/temporary", b"x")
    member.write(FILES + "/other", b"y")
    member.fs.rename(FILES + "/temporary", FILES + "/result", soon())
    member.fs.unlink(FILES + "/other", soon())
    threading.Event().wait(0.5)
    # PUT of the folder is the question whether this user may write.
    assert [line for line in changes(server) if "/files" in line] == []
    drain(member)
    assert rest.files(HELD) == {"result": b"x"}
    assert not any("temporary" in line or "other" in line for line in requests(server))


@pytest.mark.parametrize("user", ["admin", "member"])
def test_what_changes_before_it_is_sent_never_goes(
    patient, connect, user: str, server, rest: Rest
) -> None:
    drive = Driver(connect(user, write_back=True))
    drive.mkdir(NIFTI)
    server.clear_log()
    drive.write(FILES + "/renamed", b"renamed")
    drive.fs.rename(FILES + "/renamed", FILES + "/new", soon())
    drive.write(FILES + "/removed", b"removed")
    drive.fs.unlink(FILES + "/removed", soon())
    drive.write(FILES + "/rewritten", b"once")
    drive.write(FILES + "/rewritten", b"twice")
    drive.write(FILES + "/appended", b"one")
    handle = drive.open(FILES + "/appended", os.O_WRONLY)
    drive.fs.write(handle, b" two", 3, soon())
    drive.close(handle)
    drive.write(FILES + "/over", b"over")
    drive.write(FILES + "/source1", b"source")
    drive.fs.rename(FILES + "/source1", FILES + "/over", soon())
    assert drive.names(FILES) == ["appended", "new", "over", "rewritten"]
    drain(drive)
    wanted = {
        "appended": b"one two",
        "new": b"renamed",
        "over": b"source",
        "rewritten": b"twice",
    }
    assert rest.files(HELD) == wanted
    assert not any(line.startswith("DELETE") for line in changes(server))
    assert not any("removed" in line or "source1" in line for line in changes(server))


def test_temporary_names_stay_here(patient, member: Driver, rest: Rest) -> None:
    handle = member.create(FILES + "/.a.nii.Xy12Zq", os.O_EXCL, 0o600)
    member.fs.write(handle, b"rsync", 0, soon())
    member.close(handle)
    drain(member)
    assert rest.files(HELD) == {}
    member.fs.rename(FILES + "/.a.nii.Xy12Zq", FILES + "/a.nii", soon())
    drain(member)
    assert rest.files(HELD) == {"a.nii": b"rsync"}
    member.write(FILES + "/b", b"b")
    member.fs.rename(FILES + "/b", FILES + "/b~", soon())
    drain(member)
    assert rest.files(HELD) == {"a.nii": b"rsync"}
    member.fs.rename(FILES + "/b~", FILES + "/b", soon())
    drain(member)
    assert rest.files(HELD) == {"a.nii": b"rsync", "b": b"b"}


def test_overwriting_what_the_server_has(patient, owner: Driver, rest: Rest) -> None:
    owner.write(FILES + "/a", b"one")
    drain(owner)
    owner.write(FILES + "/a", b"two!")
    assert rest.files(HELD) == {"a": b"one"}
    assert owner.read(FILES + "/a") == b"two!"
    drain(owner)
    assert rest.files(HELD) == {"a": b"two!"}
    owner.write(FILES + "/a", b"three")
    owner.fs.unlink(FILES + "/a", soon())
    assert rest.files(HELD) == {}
    drain(owner)
    assert rest.files(HELD) == {}
    assert owner.names(FILES) == []


def test_renaming_over_what_waits_to_replace(patient, owner: Driver, rest: Rest) -> None:
    owner.write(FILES + "/a", b"one")
    drain(owner)
    owner.write(FILES + "/a", b"two")
    owner.write(FILES + "/b", b"three")
    owner.fs.rename(FILES + "/b", FILES + "/a", soon())
    assert owner.read(FILES + "/a") == b"three"
    drain(owner)
    assert rest.files(HELD) == {"a": b"three"}
    owner.write(FILES + "/a", b"four")
    owner.fs.rename(FILES + "/a", FILES + "/c", soon())
    drain(owner)
    assert rest.files(HELD) == {"c": b"four"}


def spool(drive: Driver) -> set[tuple[str, str]]:
    return {(row["path"], row["state"]) for row in drive.fs.pending()}


def test_renaming_over_it_what_is_not_complete(
    patient, owner: Driver, rest: Rest, tmp_path: Path
) -> None:
    owner.write(FILES + "/a", b"closed")
    handle = owner.create(FILES + "/.a.Xy12Zq", os.O_EXCL, 0o600)
    owner.fs.write(handle, b"half of", 0, soon())
    owner.fs.rename(FILES + "/.a.Xy12Zq", FILES + "/a", soon())
    # A crash at this moment: what was closed is what counts.
    assert spool(owner) == {(FILES + "/a", "sealed"), (FILES + "/a", "open")}
    assert kept(tmp_path) == [b"closed", b"half of"]
    owner.fs.write(handle, b" it", 7, soon())
    owner.close(handle)
    assert spool(owner) == {(FILES + "/a", "sealed")}
    drain(owner)
    assert rest.files(HELD) == {"a": b"half of it"}
    assert kept(tmp_path) == []


def test_renaming_over_it_what_cannot_be_sealed(
    patient, owner: Driver, connect, rest: Rest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner.write(FILES + "/a", b"closed")
    handle = owner.create(FILES + "/.a.Xy12Zq", os.O_EXCL, 0o600)
    owner.fs.write(handle, b"beside", 0, soon())
    owner.close(handle)
    with monkeypatch.context() as broken:
        broken.setattr(Upload, "seal", lambda self: (_ for _ in ()).throw(DiskFault("broken")))
        with pytest.raises(DiskFault):
            owner.fs.rename(FILES + "/.a.Xy12Zq", FILES + "/a", soon())
    assert spool(owner) == {(FILES + "/a", "sealed"), (FILES + "/a", "open")}
    owner.fs.close()
    later = Driver(connect("admin", write_back=True))
    later.fs.recover()
    drain(later)
    assert rest.files(HELD) == {"a": b"closed"}
    assert kept(tmp_path) == [b"beside"]


def test_an_open_file_is_read_on_while_it_arrives(patient, owner: Driver, rest: Rest) -> None:
    handle = owner.create(FILES + "/a")
    owner.fs.write(handle, b"abc", 0, soon())
    owner.fs.flush(handle, ME, soon())
    drain(owner)
    assert rest.files(HELD) == {"a": b"abc"}
    assert owner.fs.read(handle, 10, 0, soon()) == b"abc"
    owner.fs.write(handle, b"def", 3, soon())
    owner.close(handle)
    drain(owner)
    assert rest.files(HELD) == {"a": b"abcdef"}


def test_what_is_still_being_written_is_not_sent(patient, owner: Driver, rest: Rest) -> None:
    handle = owner.create(FILES + "/half")
    owner.fs.write(handle, b"half of", 0, soon())
    drain(owner)
    assert rest.files(HELD) == {}
    assert [row["state"] for row in owner.fs.pending()] == ["open"]
    owner.fs.write(handle, b" it", 7, soon())
    owner.close(handle)
    drain(owner)
    assert rest.files(HELD) == {"half": b"half of it"}


def test_a_file_without_a_byte(patient, owner: Driver, rest: Rest) -> None:
    owner.write(FILES + "/empty", b"")
    drain(owner)
    assert rest.files(HELD) == {"empty": b""}


def test_somebody_elses_name_is_left_alone(
    patient, owner: Driver, rest: Rest, tmp_path: Path, expected_warnings: list[str]
) -> None:
    expected_warnings.append("is not on the server")
    names = [f"f{number}" for number in range(4)]
    for name in names:
        owner.write(f"{FILES}/{name}", b"ours " + name.encode())
    rest.ask("PUT", f"/data{HELD}/files/f1?inbody=true", b"theirs")
    drain(owner)
    there = rest.files(HELD)
    assert there.pop("f1") == b"theirs"
    assert there == {name: b"ours " + name.encode() for name in names if name != "f1"}
    assert [(row["path"], row["state"]) for row in owner.fs.pending()] == [
        (FILES + "/f1", "conflict")
    ]
    assert kept(tmp_path) == [b"ours f1"]
    assert owner.read(FILES + "/f1") == b"theirs"


def test_a_refusal_is_heard_at_the_next_close(
    owner: Driver, server, expected_warnings: list[str]
) -> None:
    expected_warnings.append("is not on the server")
    server.faults.add(Fault(kind="status", code=413, verb="PUT", path="/files/"))
    handle = owner.create(FILES + "/a")
    owner.fs.write(handle, b"abc", 0, soon())
    owner.fs.flush(handle, ME, soon())
    assert within(10, lambda: owner.fs.pending()[0]["state"] == "failed")
    for _ in range(2):
        with pytest.raises(XnatfsError, match="413"):
            owner.fs.flush(handle, ME, soon())
    owner.fs.release(handle, soon())
    # What is not on the server and will not be is not shown; the data is kept.
    assert owner.names(FILES) == []
    assert [row["path"] for row in owner.fs.pending()] == [FILES + "/a"]


def test_permission_lost_in_mid_work(
    patient, connect, server, rest: Rest, expected_warnings: list[str]
) -> None:
    """A silent 200 (R§4.5) for everything that was closed with success."""
    expected_warnings.append("is not on the server")
    member = Driver(connect("member", write_back=True))
    member.mkdir(NIFTI)
    for number in range(5):
        member.write(f"{FILES}/f{number}", b"%d" % number)
    project = server.site.tables.objects.get("project:PVT000")
    roles = (("admin", "owner"), ("member", "collaborator"))
    server.site.tables.objects.put(replace(project, roles=roles))
    drain(member)
    assert rest.files(HELD) == {}
    assert {row["state"] for row in member.fs.pending()} == {"failed"}
    assert all("stored nothing" in row["error"] for row in member.fs.pending())


@pytest.mark.parametrize("number", [1, 5])
@pytest.mark.parametrize("deed", ["unlink", "truncate"])
def test_what_has_just_arrived_is_ours(
    owner: Driver, rest: Rest, monkeypatch: pytest.MonkeyPatch, number: int, deed: str
) -> None:
    """The listing shows it before its receipt is written: here that takes long."""
    write = Receipts.add

    def write_late(self: Receipts, *words: Any) -> None:
        time.sleep(0.2)
        write(self, *words)

    monkeypatch.setattr(Receipts, "add", write_late)
    names = [f"f{index}" for index in range(number)]
    for name in names:
        owner.write(f"{FILES}/{name}", name.encode())
    assert within(20, lambda: rest.files(HELD) != {})
    for name in names:
        if deed == "unlink":
            owner.fs.unlink(f"{FILES}/{name}", soon())
        else:
            owner.write(f"{FILES}/{name}", b"anew")
    drain(owner)
    assert rest.files(HELD) == ({} if deed == "unlink" else dict.fromkeys(names, b"anew"))
