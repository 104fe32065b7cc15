"""Without a network: what was seen before is there, the rest is an error at once."""

from __future__ import annotations

import os

import pytest

from tests.core.driver import NAMES, SCAN4, SESSION, Driver, Rest, requests, soon
from xnatfs.config import ServerSettings, Settings, SpoolSettings, StoreSettings
from xnatfs.errors import NotPermitted, Offline, UsageError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.upload.queue import Queue

QC = SESSION + "/resources/QC/files/qc.csv"
NIFTI = SCAN4 + "/resources/NIFTI"
HELD = "/experiments/XNAT_E00001"


@pytest.fixture
def offline(connect, server, expected_warnings):
    """Makes file systems without a network, after one with it has seen the session.

    The server is there all the time, and hears of nothing.
    """
    expected_warnings.append("--offline")

    def make(user: str = "admin", **policy: bool) -> Driver:
        online = Driver(connect(user))
        online.walk(SESSION)
        online.read(QC)
        online.read(NAMES + "/no-digest.txt")
        for file in online.fs.depth.files(NAMES + "/no-digest.txt", soon()):
            online.fs.depth.keep(file, soon())
        online.fs.close()
        server.clear_log()
        return Driver(connect(user, offline=True, **policy))

    yield make
    assert requests(server) == []


def test_what_was_read_is_read_and_the_rest_is_listed(offline, server) -> None:
    held = Rest(server).ask("GET", f"/data{HELD}/resources/QC/files/qc.csv")
    drive = offline()
    assert drive.read(QC) == held
    assert drive.read(NAMES + "/no-digest.txt")
    path = f"{SCAN4}/resources/DICOM/files/" + drive.names(SCAN4 + "/resources/DICOM/files")[0]
    assert drive.stat(path).size > 1000
    handle = drive.open(path)
    with pytest.raises(Offline):
        drive.fs.read(handle, 10, 0, soon())
    drive.close(handle)
    assert [failure.path for failure in drive.fs.read_failures()] == [path]
    assert drive.fs.readlink("/projects/PVT000/experiments/Haofei01_MR1", soon())


def test_what_was_never_listed_is_an_error_and_not_empty(offline) -> None:
    drive = offline()
    with pytest.raises(Offline):
        drive.names("/projects/SHARED00/subjects")
    with pytest.raises(Offline):
        drive.stat("/projects/SHARED00/subjects/Haofei_shared")
    assert not drive.exists(SESSION + "/scans/NOPE")


def test_nothing_of_the_server_is_removed_renamed_or_guessed(offline) -> None:
    drive = offline(allow_delete=True, allow_overwrite=True)
    with pytest.raises(Offline):
        drive.fs.unlink(QC, soon())
    with pytest.raises(Offline):
        drive.fs.rename(QC, QC + "2", soon())


def test_a_reader_is_told_before_the_work(offline) -> None:
    drive = offline("reader")
    with pytest.raises(NotPermitted):
        drive.mkdir(NIFTI)
    with pytest.raises(NotPermitted):
        drive.create(NAMES + "/new.txt")


def test_stage_in_compute_stage_out(offline, connect, server, tmp_path) -> None:
    drive = offline(allow_overwrite=True)
    drive.mkdir(NIFTI)
    drive.mkdir(NIFTI + "/files/sub")
    drive.write(NIFTI + "/files/4.nii", b"volume")
    drive.write(NIFTI + "/files/sub/4.json", b"{}")
    drive.mkdir(SESSION + "/resources/LOG")
    drive.write(SESSION + "/resources/LOG/files/4.nii", b"another of that name")
    drive.write(QC, b"replaced")
    assert "NIFTI" in drive.names(SCAN4 + "/resources")
    assert drive.names(NIFTI + "/files") == ["sub", "4.nii"]
    assert drive.read(NIFTI + "/files/4.nii") == b"volume"
    inodes = {drive.stat(f"{it}/files/4.nii").ino for it in (NIFTI, SESSION + "/resources/LOG")}
    assert len(inodes) == 2
    assert len(drive.fs.pending()) == 4
    drive.fs.drain(soon())
    drive.fs.close()
    # The next task on that node finds what the first one made, and may change it.
    second = Driver(connect(offline=True))
    second.fs.recover()
    assert second.read(NIFTI + "/files/4.nii") == b"volume"
    assert second.read(QC) == b"replaced"
    second.write(NIFTI + "/files/4.nii", b"a better volume")
    second.fs.close()
    assert requests(server) == []
    rows = Queue(SpoolSettings(folder=tmp_path / "state" / "spool")).rows()
    assert len(rows) == 4
    online = Driver(connect())
    online.fs.recover()
    online.fs.drain(soon())
    assert online.fs.pending() == []
    rest = Rest(server)
    nifti = {row["label"]: row for row in rest.rows(f"/data{HELD}/scans/4/resources?format=json")}
    address = f"{HELD}/scans/4/resources/{nifti['NIFTI']['xnat_abstractresource_id']}"
    assert rest.files(address) == {"4.nii": b"a better volume", "sub/4.json": b"{}"}
    assert rest.files(f"{HELD}/resources/LOG") == {"4.nii": b"another of that name"}
    assert rest.files(f"{HELD}/resources/QC")["qc.csv"] == b"replaced"
    labels = [row["label"] for row in rest.rows(f"/data{HELD}/resources?format=json")]
    assert labels.count("LOG") == 1
    assert online.read(NIFTI + "/files/4.nii") == b"a better volume"
    server.clear_log()


def test_an_empty_resource_of_ones_own_can_go(offline) -> None:
    drive = offline()
    drive.mkdir(NIFTI)
    drive.fs.rmdir(NIFTI, soon())
    assert "NIFTI" not in drive.names(SCAN4 + "/resources")


def test_an_open_for_writing_needs_the_old_bytes_or_none(offline) -> None:
    drive = offline(allow_overwrite=True)
    path = NAMES + "/plain.txt"
    handle = drive.open(path, os.O_RDWR)
    with pytest.raises(Offline):
        drive.fs.write(handle, b"x", 3, soon())
    drive.fs.release(handle, soon())
    drive.write(path, b"from nothing")
    assert drive.read(path) == b"from nothing"


def test_the_account_is_the_one_that_filled_the_store(connect, server, tmp_path) -> None:
    def settings(user: str = "", folder: str = "cache", url: str = "") -> Settings:
        return Settings(
            server=ServerSettings(url=url or server.url, user=user),
            store=StoreSettings(folder=tmp_path / folder),
            spool=SpoolSettings(folder=tmp_path / "spool"),
            offline=True,
            state_folder=tmp_path / "state",
        )

    connect("member")
    assert FileSystem.offline(settings()).status()["user"] == "member"
    assert FileSystem.offline(settings(), "an alias token").status()["user"] == "member"
    with pytest.raises(UsageError, match="xnatfs prefetch"):
        FileSystem.offline(settings("admin"))
    with pytest.raises(UsageError, match="xnatfs prefetch"):
        FileSystem.offline(settings(folder="empty"))
    with pytest.raises(UsageError, match="xnatfs prefetch"):
        FileSystem.offline(settings(url="https://other.example.edu"))
    connect("admin")
    with pytest.raises(UsageError, match="say which with -u"):
        FileSystem.offline(settings())
    assert FileSystem.offline(settings("member")).status()["user"] == "member"
    assert FileSystem.offline(settings(), "admin").status()["user"] == "admin"
