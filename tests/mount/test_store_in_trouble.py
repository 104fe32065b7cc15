"""The store under bad conditions, under real mounts: a read is true all the same."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import HELD, SESSION, Desk, gone, md5
from xnatfs.demo.order import PROJECT, Order
from xnatfs.demo.server import DemoServer, ServerOptions

DICOM = f"{SESSION}/scans/4/resources/DICOM/files"
LARGE = f"projects/{PROJECT}/subjects/S00001/experiments/S00001_MR/scans/1/resources/DICOM/files/"
LARGE += "IM000001.dcm"
LARGE_SIZE = 96 << 20

# A file system without locks: every process that Python starts with it is told so.
_NO_LOCKS = """
import errno, fcntl
def refuse(*words):
    raise OSError(errno.ENOLCK, "No locks available")
fcntl.lockf = fcntl.flock = refuse
"""


def truth(server: DemoServer) -> dict[str, str]:
    files = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    return {name: hashlib.md5(body).hexdigest() for name, body in files.items()}


def series(desk: Desk) -> dict[str, str]:
    return {path.name: md5(path) for path in (desk.point / DICOM).iterdir()}


def contents(cache: Path) -> list[Path]:
    return [path for path in cache.rglob("*") if path.is_file() and "content" in path.parts]


def ends_well(desk: Desk) -> None:
    done = desk.umount()
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def large(tmp_path: Path) -> Iterator[DemoServer]:
    order = Order(sessions=1, scans=1, files=1, file_size=LARGE_SIZE)
    server = DemoServer(ServerOptions(root=tmp_path / "large", sample="none", order=order))
    server.start()
    yield server
    server.stop()


def test_mounts_without_locks_read_the_truth(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path
) -> None:
    (tmp_path / "python").mkdir()
    (tmp_path / "python/sitecustomize.py").write_text(_NO_LOCKS)
    desks = [open_a_desk(server.url) for _ in range(3)]
    for desk in desks:
        desk.variables["PYTHONPATH"] = str(tmp_path / "python")
        desk.mount("--cache-dir", str(tmp_path / "shared"))
    with ThreadPoolExecutor(3) as pool:
        assert list(pool.map(series, desks)) == [truth(server)] * 3
    for desk in desks:
        ends_well(desk)
    done = desk.xnatfs("cache", "verify", "--json", "--cache-dir", str(tmp_path / "shared"))
    (row,) = json.loads(done.stdout)
    assert (row["checked"] >= len(truth(server)), row["damaged"]) == (True, 0)


def test_what_was_damaged_between_two_mounts_is_fetched_again(
    desk: Desk, server: DemoServer
) -> None:
    cache = desk.folder / "cache"
    with desk.mounted():
        assert series(desk) == truth(server)
    damaged = contents(cache)
    assert damaged
    for path in damaged:
        body = bytearray(path.read_bytes())
        body[len(body) // 2] ^= 0xFF
        path.write_bytes(body)
    desk.expected.append("damaged")
    with desk.mounted():
        assert series(desk) == truth(server)
    assert desk.xnatfs("cache", "verify").returncode == 0


def test_half_of_a_file_outlives_a_killed_mount(open_a_desk: OpenDesk, large: DemoServer) -> None:
    desk = open_a_desk(large.url)
    desk.mount()
    read = f"dd if={desk.point / LARGE} bs=1M count=4 status=none | md5sum"
    first = subprocess.run(["sh", "-c", read], capture_output=True, text=True, check=True).stdout
    desk.umount()
    desk.mount()
    second = subprocess.run(["sh", "-c", read], capture_output=True, text=True, check=True).stdout
    assert second == first
    pid = desk.pid()
    os.kill(pid, signal.SIGKILL)
    assert gone(pid, 10)
    large.clear_log()
    done = desk.xnatfs("mount", large.url, desk.point)
    # It says that it has cleaned up.
    assert done.returncode == 0, done.stderr
    (whole,) = Rest(large).files("/experiments/XNAT_E1000001/scans/1/resources/DICOM").values()
    sent = sum(entry.bytes for entry in large.log)
    assert md5(desk.point / LARGE) == hashlib.md5(whole).hexdigest()
    sent = sum(entry.bytes for entry in large.log) - sent
    assert 0 < sent <= LARGE_SIZE - (3 << 20)
    ends_well(desk)


def test_a_full_disk_under_the_store_fails_no_read(
    desk: Desk, server: DemoServer, tmp_path: Path
) -> None:
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", tiny], check=True)
    try:
        desk.expected.append("reads go on without it")
        desk.mount("--cache-dir", str(tiny / "store"))
        assert series(desk) == truth(server)
        assert series(desk) == truth(server)
        ends_well(desk)
    finally:
        subprocess.run(["umount", tiny], check=True)


def test_two_mounts_keep_a_bound(open_a_desk: OpenDesk, tmp_path: Path) -> None:
    order = Order(sessions=1, scans=1, files=60, file_size=100_000)
    server = DemoServer(ServerOptions(root=tmp_path / "many", sample="none", order=order))
    server.start()
    try:
        options = ("--cache-dir", str(tmp_path / "shared"), "--cache-size", "2M")
        desks = [open_a_desk(server.url) for _ in range(2)]
        for desk in desks:
            desk.mount(*options)

        def read(desk: Desk) -> list[str]:
            folder = (desk.point / LARGE).parent
            return [md5(folder / name) for name in sorted(os.listdir(folder))]

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(read, desks)
        assert first == second
        assert len(set(first)) == 60
        for desk in desks:
            ends_well(desk)
        size = sum(path.stat().st_size for path in contents(tmp_path / "shared"))
        assert 100_000 <= size <= 2 << 20
    finally:
        server.stop()


def test_what_is_removed_on_the_server_leaves_the_store_of_all(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path
) -> None:
    options = ("--cache-dir", str(tmp_path / "shared"))
    desks = [open_a_desk(server.url) for _ in range(2)]
    secret = Path(SESSION, "resources/QC/files/qc.csv")
    for desk in desks:
        desk.mount(*options)
        assert (desk.point / secret).read_bytes()
    body = (desks[0].point / secret).read_bytes()
    assert any(body in path.read_bytes() for path in contents(tmp_path / "shared"))
    Rest(server).ask("DELETE", f"/data{HELD}/resources/QC/files/qc.csv")
    desks[0].xnatfs("refresh", desks[0].point)
    assert not (desks[0].point / secret).exists()
    assert not any(body in path.read_bytes() for path in contents(tmp_path / "shared"))
    desks[1].xnatfs("refresh", desks[1].point)
    assert not (desks[1].point / secret).exists()
    for desk in desks:
        ends_well(desk)
