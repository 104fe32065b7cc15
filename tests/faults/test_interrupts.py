"""A process that waits for a stalled server can be ended at once; the mount goes on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import (
    AT_ONCE_S,
    DCM2NIIX,
    HELD,
    PLAIN,
    SESSION,
    XNATFS,
    Desk,
    gone,
    process,
    within,
)
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer
from xnatfs.fuse import mounts

STALL_S = 60.0

# What waits where: which requests stall, and what the program does.
WAITS = {
    "stat": (
        Fault(kind="stall", path="/projects/PUB000", verb="GET", seconds=STALL_S),
        "os.stat(path)",
        "projects/PUB000/subjects/Public01",
    ),
    "readdir": (
        Fault(kind="stall", path="/projects/PUB000", verb="GET", seconds=STALL_S),
        "os.listdir(path)",
        "projects/PUB000/subjects",
    ),
    "read": (
        Fault(kind="stall", path="/files/plain", verb="GET", seconds=STALL_S),
        "open(path, 'rb').read()",
        PLAIN,
    ),
    "close": (
        Fault(kind="stall", path="/files/new.bin", verb="PUT", seconds=STALL_S),
        "fd = os.open(path, os.O_WRONLY | os.O_CREAT); os.write(fd, b'x' * 100000); os.close(fd)",
        f"{SESSION}/resources/QC/files/new.bin",
    ),
}


@contextmanager
def waiting(server: DemoServer, desk: Desk, verb: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process that has sent a request on its way and waits for the answer."""
    fault, action, path = WAITS[verb]
    desk.works("ls -l resources/*/files > /dev/null; cat resources/QC/files/qc.csv > /dev/null")
    server.faults.add(fault)
    script = f"import os, sys\npath = sys.argv[1]\nprint('go', flush=True)\n{action}\n"
    with subprocess.Popen(
        [sys.executable, "-S", "-c", script, desk.point / path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    ) as running:
        try:
            assert running.stdout is not None
            assert running.stdout.readline() == b"go\n"
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1.0)
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda it: it.name)
@pytest.mark.parametrize("verb", list(WAITS))
def test_a_signal_ends_a_process_that_waits(
    desk: Desk, server: DemoServer, verb: str, number: signal.Signals
) -> None:
    desk.expected += ["new.bin", "not everything was sent"]
    desk.mount("--drain", "2")
    with waiting(server, desk, verb) as running:
        running.send_signal(number)
        assert running.wait(timeout=AT_ONCE_S) != 0
    # The mount is as good as before.
    server.faults.clear()
    assert desk.works("cat resources/QC/files/qc.csv") != ""
    assert desk.works("mkdir resources/AFTER; echo x > resources/AFTER/files/x") == ""
    if verb != "close":
        done = desk.umount()
        assert (done.returncode, done.stderr) == (0, "")
        return
    # Of a close that was broken off the data is kept.
    pid = desk.pid()
    os.kill(pid, signal.SIGTERM)
    assert gone(pid, 2 + 5 + AT_ONCE_S)
    assert desk.xnatfs("uploads", "send").returncode == 0
    assert Rest(server).files(f"{HELD}/resources/QC")["new.bin"] == b"x" * 100_000


def test_others_go_on_while_one_waits(desk: Desk, server: DemoServer) -> None:
    desk.mount()
    with waiting(server, desk, "read"):
        assert desk.works("cat resources/QC/files/qc.csv resources/NAMES/files/no-digest.txt") != ""
        assert desk.works("mkdir resources/MEANWHILE; echo x > resources/MEANWHILE/files/x") == ""
        server.faults.clear()
    assert desk.umount().returncode == 0


def test_a_converter_that_is_interrupted(desk: Desk, server: DemoServer, tmp_path: Path) -> None:
    """As Ctrl-C does it: the signal goes to dcm2niix in the middle of its reading."""
    desk.mount()
    desk.works("ls scans/4/resources/DICOM/files > /dev/null")
    path = r"\.dcm|format=tar"
    stall = Fault(kind="stall", path=path, verb="GET", seconds=STALL_S, bytes=300_000)
    server.faults.add(stall)
    with subprocess.Popen(
        [DCM2NIIX, "-o", tmp_path, desk.session / "scans/4/resources/DICOM/files"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        try:
            assert within(20, lambda: fetched(desk) > 200_000)
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1)
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=AT_ONCE_S) != 0
        finally:
            running.kill()
    server.faults.clear()
    assert desk.works("cat resources/NAMES/files/plain.txt") == "plain\n"
    assert desk.umount().returncode == 0


def fetched(desk: Desk) -> int:
    """Bytes of files that the mount has got."""
    status = desk.status()["status"]
    assert isinstance(status, dict)
    return int(status["downloads"]["fetched"])


def test_ctrl_c_of_a_mount_that_waits_for_its_login(desk: Desk, server: DemoServer) -> None:
    server.faults.add(Fault(kind="stall", path="/data/auth|JSESSION", seconds=STALL_S))
    with process(XNATFS, "mount", server.url, desk.point, env=desk.variables) as mounting:
        with pytest.raises(subprocess.TimeoutExpired):
            mounting.wait(2)
        mounting.send_signal(signal.SIGINT)
        assert mounting.wait(timeout=AT_ONCE_S) == 130
    assert mounts.mounted_at(desk.point) is None
    server.faults.clear()
    with desk.mounted():
        assert desk.works("cat resources/NAMES/files/plain.txt") == "plain\n"
