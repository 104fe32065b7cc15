"""A process that waits for a stalled server can be ended at once; the mount goes on."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import AT_ONCE_S, DCM2NIIX, HELD, PLAIN, SESSION, Desk, asked, within
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer

STALL_S = 60.0

# What waits where: which requests stall, and what the program does.
WAITS = {
    "stat": (
        Fault(kind="stall", path="experiments|subjects", verb="GET", seconds=STALL_S),
        "os.stat(path)",
        f"{SESSION}/scans/4",
    ),
    "readdir": (
        Fault(kind="stall", path="experiments|subjects", verb="GET", seconds=STALL_S),
        "os.listdir(path)",
        "projects/PVT000/subjects",
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
    if verb in ("read", "close"):
        desk.works("ls resources/*/files > /dev/null")
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
            state = Path(f"/proc/{running.pid}/wchan")
            # In a request to the mount; no other file of this program lives there.
            assert within(10, lambda: "fuse" in state.read_text() or "request_wait" in state.read_text())
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(0.5)
            yield running
        finally:
            running.kill()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL], ids=lambda it: it.name)
@pytest.mark.parametrize("verb", list(WAITS))
def test_a_signal_ends_a_process_that_waits(
    desk: Desk, server: DemoServer, verb: str, number: signal.Signals
) -> None:
    desk.expected += ["new.bin"]
    desk.mount()
    with waiting(server, desk, verb) as running:
        running.send_signal(number)
        assert running.wait(timeout=AT_ONCE_S) != 0
    # The mount is as good as before, also where the process waited.
    server.faults.clear()
    assert desk.works("cat resources/NAMES/files/plain.txt") == "plain\n"
    assert desk.works("ls scans").split() == sorted(desk.works("ls scans").split())
    if verb == "close":
        # Whose close was broken off has its data kept, and sent at the end.
        done = desk.umount()
        assert done.returncode == 0
        assert Rest(server).files(f"{HELD}/resources/QC")["new.bin"] == b"x" * 100_000
    else:
        done = desk.umount()
        assert (done.returncode, done.stderr) == (0, "")


def test_others_go_on_while_one_waits(desk: Desk, server: DemoServer) -> None:
    desk.mount()
    with waiting(server, desk, "read"):
        assert desk.works("cat resources/QC/files/qc.csv") != ""
        assert desk.works("mkdir resources/MEANWHILE; echo x > resources/MEANWHILE/files/x") == ""
        server.faults.clear()
    assert desk.umount().returncode == 0


def test_a_converter_that_is_interrupted(desk: Desk, server: DemoServer, tmp_path: Path) -> None:
    """As Ctrl-C does it: the signal goes to dcm2niix in the middle of its reading."""
    desk.mount()
    desk.works("ls scans/4/resources/DICOM/files > /dev/null")
    server.faults.add(Fault(kind="stall", path=r"\.dcm", verb="GET", seconds=STALL_S, after=3))
    with subprocess.Popen(
        [DCM2NIIX, "-o", tmp_path, desk.session / "scans/4/resources/DICOM/files"],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    ) as running:  # fmt: skip
        try:
            assert within(20, lambda: len(asked(server, "GET", ".dcm")) >= 3)
            with pytest.raises(subprocess.TimeoutExpired):
                running.wait(1)
            running.send_signal(signal.SIGINT)
            assert running.wait(timeout=AT_ONCE_S) != 0
        finally:
            running.kill()
    server.faults.clear()
    desk.works("cat scans/4/resources/DICOM/files/*.dcm > /dev/null")
    assert desk.umount().returncode == 0


def test_ctrl_c_of_a_mount_that_waits_for_its_login(desk: Desk, server: DemoServer) -> None:
    server.faults.add(Fault(kind="stall", path="/data/auth|JSESSION", seconds=STALL_S))
    from tests.mount.desk import XNATFS, process
    from xnatfs.fuse import mounts

    with process(XNATFS, "mount", server.url, desk.point, env=desk.variables) as mounting:
        with pytest.raises(subprocess.TimeoutExpired):
            mounting.wait(2)
        mounting.send_signal(signal.SIGINT)
        assert mounting.wait(timeout=AT_ONCE_S) == 130
    assert mounts.mounted_at(desk.point) is None
    server.faults.clear()
    with desk.mounted():
        assert desk.works("cat resources/NAMES/files/plain.txt") == "plain\n"
