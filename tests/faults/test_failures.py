"""What cannot be read or sent: an error and never other data; what was written is kept."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import threading
import time
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import AT_ONCE_S, HELD, SESSION, Desk, asked, gone, within
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.fuse import mounts

QC = f"{HELD}/resources/QC"
DICOM = f"{SESSION}/scans/4/resources/DICOM/files"


def test_a_put_that_stored_nothing_is_an_error_of_close(
    open_a_desk: OpenDesk, server: DemoServer
) -> None:
    """A reader's PUT is answered with 200 and stores nothing: the right is lost while we write."""
    desk = open_a_desk(server.url, "member")
    desk.expected += ["kept.txt", "member"]
    desk.mount()
    assert desk.works("mkdir resources/KEPT; echo first > resources/KEPT/files/first.txt") == ""
    # As the server answers who may not edit: 200, and nothing is stored.
    server.faults.add(Fault(kind="html", path="/files/kept.txt", verb="PUT"))
    descriptor = os.open(desk.session / "resources/KEPT/files/kept.txt", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"precious\n")
    with pytest.raises(OSError) as caught:
        os.close(descriptor)
    assert caught.value.errno in (errno.EACCES, errno.EIO)
    assert set(Rest(server).files(f"{HELD}/resources/KEPT")) == {"first.txt"}
    listed = json.loads(desk.xnatfs("uploads", "list", "--format", "json").stdout)
    assert [row["path"].rpartition("/")[2] for row in listed] == ["kept.txt"]
    assert listed[0]["size"] == "9"
    assert listed[0]["problem"]
    assert "kept.txt" in desk.xnatfs("status").stdout
    done = desk.umount()
    assert done.returncode == 75
    assert "1 file did not arrive" in done.stderr
    assert "kept.txt" in done.stderr
    # It is kept for whoever asks again: copied out, or sent when the server takes it.
    assert desk.xnatfs("uploads", "export", desk.folder / "out").returncode == 0
    (copy,) = [path for path in (desk.folder / "out").rglob("*") if path.is_file()]
    assert copy.read_bytes() == b"precious\n"
    server.faults.clear()
    done = desk.xnatfs("uploads", "send")
    assert (done.returncode, done.stdout) == (0, "1 file arrived\n")
    assert Rest(server).files(f"{HELD}/resources/KEPT")["kept.txt"] == b"precious\n"
    assert desk.xnatfs("uploads").stdout == "nothing waits: everything has arrived\n"


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", path="/files/f.bin", verb="PUT", code=500),
        Fault(kind="status", path="/files/f.bin", verb="PUT", code=403),
        Fault(kind="reset", path="/files/f.bin", verb="PUT"),
        Fault(kind="reset_after", path="/files/f.bin", verb="PUT", bytes=50_000),
    ],
    ids=["500", "403", "reset", "reset_after"],
)
def test_what_was_not_sent_is_kept_and_sent_later(
    desk: Desk, server: DemoServer, fault: Fault
) -> None:
    desk.expected += ["f.bin"]
    content = os.urandom(200_000)
    desk.mount("--io-timeout", "3")
    desk.works("mkdir resources/LATER")
    server.faults.add(fault)
    with pytest.raises(OSError):
        (desk.session / "resources/LATER/files/f.bin").write_bytes(content)
    assert Rest(server).files(f"{HELD}/resources/LATER") == {}
    assert desk.umount("--wait", "1").returncode == 75
    server.faults.clear()
    assert desk.xnatfs("uploads", "send").returncode == 0
    assert Rest(server).files(f"{HELD}/resources/LATER") == {"f.bin": content}


@pytest.mark.parametrize("kind", ["reset", "truncate", "corrupt", "html", "stall"])
def test_what_cannot_be_read_is_an_error_and_told_by_umount(
    desk: Desk, server: DemoServer, tmp_path: Path, kind: str
) -> None:
    whole = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    names = sorted(whole)
    desk.expected += names
    desk.mount("--io-timeout", "2")
    desk.works("ls scans/4/resources/DICOM/files > /dev/null")
    bad = names[2]
    # Neither alone nor with its neighbours.
    path = f"{bad}|format=tar"
    server.faults.add(Fault(kind=kind, path=path, verb="GET", bytes=0, seconds=60))
    done = desk.shell('cp scans/4/resources/DICOM/files/* "$1"', tmp_path)
    assert done.returncode == 1
    assert bad in done.stderr
    for name in names:
        copied = (tmp_path / name).read_bytes() if (tmp_path / name).exists() else b""
        if name == bad:
            assert copied in (b"", whole[name][: len(copied)])
            assert copied != whole[name]
        else:
            assert copied == whole[name]
    done = desk.umount()
    assert done.returncode == 74
    assert "1 file could not be read" in done.stderr
    assert bad in done.stderr


def restarted(server: DemoServer, root: Path) -> DemoServer:
    again = DemoServer(ServerOptions(root=root, sample="small", port=server.port))
    again.start()
    return again


def test_a_server_that_stops_and_comes_back(desk: Desk, server: DemoServer, tmp_path: Path) -> None:
    desk.expected.append("")
    whole = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    first, second = sorted(whole)[:2]
    desk.mount("--io-timeout", "4", "--metadata-ttl", "600")
    desk.works("ls -lR . > /dev/null")
    assert (desk.point / DICOM / first).read_bytes() == whole[first]
    # The second is being read, a part of it has come, when the server goes.
    path = f"{second}|format=tar"
    server.faults.add(Fault(kind="stall", path=path, verb="GET", bytes=40_000, seconds=60))
    descriptor = os.open(desk.point / DICOM / second, os.O_RDONLY)
    try:
        stopping = threading.Timer(1.0, server.stop)
        stopping.start()
        before = time.monotonic()
        with pytest.raises(OSError):
            os.read(descriptor, 1 << 20)
        assert time.monotonic() - before < 30
        stopping.join()
    finally:
        os.close(descriptor)
    # What is here is still served.
    assert (desk.point / DICOM / first).read_bytes() == whole[first]
    with pytest.raises(OSError):
        (desk.session / "resources/QC/files/new.txt").write_bytes(b"new\n")
    again = restarted(server, tmp_path / "server")
    try:
        assert (desk.point / DICOM / second).read_bytes() == whole[second]
        (desk.session / "resources/QC/files/after.txt").write_bytes(b"after\n")
        assert Rest(again).files(QC)["after.txt"] == b"after\n"
        done = desk.umount()
        assert done.returncode in (74, 75)
        assert second in done.stderr
    finally:
        again.stop()


@pytest.mark.parametrize("open_site", [False, True], ids=["closed", "open"])
def test_a_session_that_expires_while_mounted_is_renewed(
    open_a_desk: OpenDesk, small_archive: Path, tmp_path: Path, open_site: bool
) -> None:
    """On an open site an expired session silently becomes a guest's: nothing may vanish."""
    shutil.copytree(small_archive, tmp_path / "site")
    server = DemoServer(ServerOptions(root=tmp_path / "site", sample="small", open_site=open_site))
    server.start()
    try:
        desk = open_a_desk(server.url, "member")
        with desk.mounted("--metadata-ttl", "1"):
            before = desk.works("ls -R scans resources")
            server.expire_sessions()
            time.sleep(1.2)
            assert desk.works("ls -R scans resources") == before
            server.expire_sessions()
            assert desk.works("cat resources/NAMES/files/plain.txt") == "plain\n"
            server.expire_sessions()
            desk.works("mkdir resources/EXPIRED")
            server.expire_sessions()
            desk.works("echo x > resources/EXPIRED/files/x")
            server.faults.add(Fault(kind="expire", path="/files/y", verb="PUT", count=1))
            desk.works("echo y > resources/EXPIRED/files/y")
        assert Rest(server).files(f"{HELD}/resources/EXPIRED") == {"x": b"x\n", "y": b"y\n"}
        changes = [entry for entry in server.log if entry.verb in ("PUT", "POST", "DELETE")]
        assert {entry.user for entry in changes} <= {"member", "guest", ""}
        assert len(asked(server, "GET", "/data/auth")) < 30
    finally:
        server.stop()


def test_a_killed_mount_keeps_its_data(desk: Desk, server: DemoServer) -> None:
    desk.expected.append("")
    desk.mount()
    desk.works("mkdir resources/CRASH")
    server.faults.add(Fault(kind="stall", path="/files/", verb="PUT", seconds=60))
    files = desk.session / "resources/CRASH/files"
    # One is fsynced and still open, one is sealed by a close that waits for the server.
    synced = os.open(files / "synced.bin", os.O_WRONLY | os.O_CREAT)
    os.write(synced, b"synced" * 10_000)
    os.fsync(synced)
    closing = os.fork()
    if closing == 0:
        try:
            (files / "sealed.bin").write_bytes(b"sealed" * 10_000)
        finally:
            os._exit(0)
    assert within(20, lambda: is_sealed(desk, "sealed.bin"))
    pid = desk.pid()
    os.kill(pid, signal.SIGKILL)
    assert gone(pid, AT_ONCE_S)
    with pytest.raises(OSError):
        os.close(synced)
    os.waitpid(closing, 0)
    with pytest.raises(OSError) as caught:
        os.listdir(desk.point)
    assert caught.value.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    assert "dead" in desk.xnatfs("status").stdout
    server.faults.clear()
    listed = json.loads(desk.xnatfs("uploads", "list", "--format", "json").stdout)
    assert {row["path"].rpartition("/")[2] for row in listed} == {"synced.bin", "sealed.bin"}
    # What was closed is sent; what nobody closed may be half of a file: a person decides.
    done = desk.xnatfs("uploads", "send")
    assert (done.returncode, done.stdout) == (75, "1 file arrived\n")
    assert "synced.bin was not written to its end" in done.stderr
    assert Rest(server).files(f"{HELD}/resources/CRASH") == {"sealed.bin": b"sealed" * 10_000}
    assert desk.xnatfs("uploads", "export", desk.folder / "out").returncode == 0
    (copy,) = (desk.folder / "out").rglob("synced.bin")
    assert copy.read_bytes() == b"synced" * 10_000
    # The next mount cleans the dead one away.
    done = desk.xnatfs("mount", server.url, desk.point)
    assert done.returncode == 0
    assert "its process is gone; cleaned up" in done.stderr
    assert desk.works("cat resources/CRASH/files/sealed.bin | wc -c") == "60000\n"
    assert desk.umount().returncode == 0


def is_sealed(desk: Desk, name: str) -> bool:
    """Whether the spool holds an upload of that name that is sealed."""
    rows = json.loads(desk.xnatfs("uploads", "list", "--format", "json").stdout)
    return any(row["path"].endswith(name) and row["state"] == "sealed" for row in rows)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=lambda it: it.name)
def test_a_signal_to_the_mount_unmounts_within_the_drain_time(
    desk: Desk, server: DemoServer, number: signal.Signals
) -> None:
    desk.expected += ["slow.bin", "not everything was sent"]
    desk.mount("--drain", "3")
    desk.works("mkdir resources/DRAIN; echo arrived > resources/DRAIN/files/arrived")
    pid = desk.pid()
    os.kill(pid, number)
    assert gone(pid, AT_ONCE_S)
    assert mounts.mounted_at(desk.point) is None
    assert os.listdir(desk.point) == []
    # And with an upload that does not move: it is over all the same, and the data is kept.
    desk.mount("--drain", "3")
    server.faults.add(Fault(kind="stall", path="/files/slow.bin", verb="PUT", seconds=60))
    closing = os.fork()
    if closing == 0:
        try:
            (desk.session / "resources/DRAIN/files/slow.bin").write_bytes(b"s" * 1000)
        finally:
            os._exit(0)
    assert within(20, lambda: is_sealed(desk, "slow.bin"))
    pid = desk.pid()
    os.kill(pid, number)
    assert gone(pid, 3 + 5 + AT_ONCE_S)
    os.waitpid(closing, 0)
    assert mounts.mounted_at(desk.point) is None
    server.faults.clear()
    assert desk.xnatfs("uploads", "send").returncode == 0
    assert Rest(server).files(f"{HELD}/resources/DRAIN")["slow.bin"] == b"s" * 1000
