"""A machine with libfuse 3 alone: chosen by itself, and the same files in it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import DCM2NIIX, HELD, SESSION, Desk, asked, md5, process, within
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer

# Stands before ctypes.util: a machine without libfuse 2; with more of it, without mfusepy as well.
_NO_LIBFUSE_2 = """
import ctypes, ctypes.util
real = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if name == "fuse" else real(name)
"""
_NO_MFUSEPY = """
import sys
from importlib.abc import MetaPathFinder
sys.modules["mfusepy"] = None
"""


def customized(desk: Desk, text: str) -> Desk:
    place = desk.folder / "site"
    place.mkdir()
    (place / "sitecustomize.py").write_text(text)
    desk.variables["PYTHONPATH"] = str(place)
    desk.variables.pop("FUSE_LIBRARY_PATH", None)
    return desk


@pytest.fixture
def newer(desk: Desk) -> Desk:
    return customized(desk, _NO_LIBFUSE_2)


def test_a_day_on_libfuse_3(newer: Desk, server: DemoServer, tmp_path: Path) -> None:
    rest, out = Rest(server), tmp_path / "out"
    out.mkdir()
    newer.mount()
    maps = Path(f"/proc/{newer.pid()}/maps").read_text()
    assert "libfuse3.so" in maps
    assert "libfuse.so.2" not in maps
    listed = newer.works("ls; ls -l scans/4/resources; cat resources/NAMES/files/plain.txt")
    assert listed.split()[:4] == ["assessors", "reconstructions", "resources", "scans"]
    assert listed.endswith("plain\n")
    # The main job.
    newer.works("mkdir scans/4/resources/NIFTI")
    newer.works(f'{DCM2NIIX} -f %s_%p -o "$1" scans/4/resources/DICOM/files', out)
    newer.works('cp "$1"/* scans/4/resources/NIFTI/files/', out)
    made = {path.name: path.read_bytes() for path in out.iterdir()}
    assert len(made) == 2
    assert rest.files(f"{HELD}/scans/4/resources/NIFTI") == made
    assert newer.works("md5sum scans/4/resources/NIFTI/files/*.nii").split()[0] == md5(
        next(out.glob("*.nii"))
    )
    # What differs below: truncating an open file, renaming, times, removing what is open.
    newer.works("mkdir resources/DAY")
    server.clear_log()
    inside = "cd resources/DAY/files;"
    assert newer.works(f"{inside} echo one > a; echo two >> a; cat a; mv a b; echo x > c; ls") == (
        "one\ntwo\nb\nc\n"
    )
    newer.works(f"{inside} mv -n c b")
    assert newer.works(f"{inside} cat b c; cp -p b d; touch -d '2001-02-03 UTC' b") == (
        "one\ntwo\nx\n"
    )
    assert newer.works(f"{inside} TZ=UTC stat -c %y b").startswith("2001-02-03 00:00:00")
    assert newer.works(f"{inside} truncate -s 3 b; cat b") == "one"
    server.clear_log()
    cut = (
        "import os; f = open('e', 'wb'); f.write(b'0123456789'); f.flush()\n"
        "os.ftruncate(f.fileno(), 4); f.seek(0, 2); f.write(b'!'); f.close()\n"
        "g = open('gone', 'w+b'); g.write(b'still here'); g.flush(); os.unlink('gone')\n"
        "g.seek(0); print(g.read().decode())"
    )
    done = newer.works(f'{inside} "$1" -c "$2"; rm c; ls', sys.executable, cut)
    assert done == "still here\nb\nd\ne\n"
    assert len(asked(server, "PUT", "/files/e")) == 1
    assert rest.files(f"{HELD}/resources/DAY") == {
        "b": b"one", "d": b"one\ntwo\n", "e": b"0123!",
    }  # fmt: skip
    end = newer.umount()
    assert (end.returncode, end.stderr) == (0, "")
    assert "files arrived" in end.stdout


def test_no_replacing_rename_is_not_taken_for_a_plain_one(newer: Desk) -> None:
    """renameat2(2) with RENAME_NOREPLACE must not replace, whoever asks how."""
    with newer.mounted() as point:
        newer.works("mkdir resources/R; cd resources/R/files; echo 1 > one; echo 2 > two")
        folder = point / SESSION / "resources" / "R" / "files"
        libc = ctypes.CDLL(None, use_errno=True)
        at, names = -100, [os.fsencode(folder / name) for name in ("one", "two")]
        for flags in (1, 2):  # RENAME_NOREPLACE, RENAME_EXCHANGE
            assert libc.renameat2(at, names[0], at, names[1], flags) == -1
        assert (folder / "two").read_text() == "2\n"
        assert (folder / "one").read_text() == "1\n"


def test_who_waits_can_be_ended(newer: Desk, server: DemoServer) -> None:
    with newer.mounted() as point:
        newer.works("ls")
        server.faults.add(Fault(kind="stall", path="/projects/PUB000", seconds=60.0))
        path = point / "projects/PUB000/subjects/Public01"
        script = "import os, sys; print('go', flush=True); os.stat(sys.argv[1])"
        with process(sys.executable, "-S", "-c", script, path) as waiting:
            assert waiting.stdout is not None
            assert waiting.stdout.readline() == "go\n"
            with pytest.raises(subprocess.TimeoutExpired):
                waiting.wait(1.0)
            waiting.send_signal(signal.SIGINT)
            assert within(5, lambda: waiting.poll() is not None)
        server.faults.clear()


def test_many_writers_at_once(newer: Desk, server: DemoServer) -> None:
    """More than the ten threads that libfuse 3 would serve with."""
    rest = Rest(server)
    with newer.mounted():
        newer.works("mkdir resources/MANY")
        newer.works("cd resources/MANY/files; for i in $(seq 24); do (echo $i > $i) & done; wait")
    assert rest.files(f"{HELD}/resources/MANY") == {
        str(number): f"{number}\n".encode() for number in range(1, 25)
    }


def test_libfuse_3_without_its_python_package(desk: Desk, server: DemoServer) -> None:
    customized(desk, _NO_LIBFUSE_2 + _NO_MFUSEPY)
    done = desk.xnatfs("mount", server.url, desk.point)
    assert (done.returncode, done.stdout) == (6, "")
    assert done.stderr.startswith("xnatfs: only libfuse 3 is installed, which takes")
    assert "pip install mfusepy" in done.stderr
    assert done.stderr.count("\n") == 1
    assert server.log == []
