"""What a mount asks the server for, and how often; which versions of a file programs see."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.core.driver import Rest, requests
from tests.mount.desk import HELD, PLAIN, SESSION, Desk, asked
from xnatfs.demo.server import DemoServer

QC = f"{HELD}/resources/QC/files/qc.csv"
QC_SHOWN = f"{SESSION}/resources/QC/files/qc.csv"


def replace_on_the_server(server: DemoServer, address: str, content: bytes) -> None:
    Rest(server).ask("PUT", f"/data{address}?inbody=true&overwrite=true", content)


def resident(path: Path) -> int:
    """Pages of a file that the kernel has now; asking reads nothing."""
    done = subprocess.run(
        ["fincore", "--noheadings", "--output", "PAGES", path],
        capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    return int(done.stdout)


def test_find_over_a_session_needs_five_requests_and_ls_after_it_none(
    desk: Desk, server: DemoServer
) -> None:
    with desk.mounted():
        desk.works("ls ..")
        server.clear_log()
        found = desk.works("find .").splitlines()
        assert len(found) > 60
        assert "./scans/4/resources/DICOM/files" in found
        assert len(requests(server)) <= 5, requests(server)
        server.clear_log()
        desk.works("ls -lR . > /dev/null; find . -type f -size +0 > /dev/null")
        assert requests(server) == []


def test_concurrent_readers_share_one_transfer_of_each_file(desk: Desk, server: DemoServer) -> None:
    whole = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    with desk.mounted():
        desk.works("ls scans/4/resources/DICOM/files")
        server.clear_log()
        sums = "cd scans/4/resources/DICOM/files && cat * | md5sum"
        with ThreadPoolExecutor(6) as pool:
            outputs = set(pool.map(lambda _: desk.works(sums), range(6)))
        assert len(outputs) == 1
        got = [path for path in asked(server, "GET", "/files/") if path.endswith(".dcm")]
        assert sorted(got) == sorted(set(got))
        assert len(got) <= len(whole)
        joined = b"".join(whole[name] for name in sorted(whole))
        assert outputs == {f"{hashlib.md5(joined).hexdigest()}  -\n"}


def test_a_file_replaced_while_it_is_open_is_an_error_and_never_a_mix(
    desk: Desk, server: DemoServer
) -> None:
    desk.expected += ["qc.csv", "ESTALE"]
    old = Rest(server).ask("GET", f"/data{QC}")
    new = b"n" * (len(old) + 100)
    desk.mount("--metadata-ttl", "1")
    path = desk.point / QC_SHOWN
    descriptor = os.open(path, os.O_RDONLY)
    try:
        replace_on_the_server(server, QC, new)
        with pytest.raises(OSError) as caught:
            os.read(descriptor, 4096)
        assert caught.value.errno in (errno.ESTALE, errno.EIO)
        with pytest.raises(OSError):
            os.pread(descriptor, 1, 0)
    finally:
        os.close(descriptor)
    time.sleep(1.2)
    assert path.read_bytes() == new
    done = desk.umount()
    assert done.returncode == 74
    assert "qc.csv" in done.stderr


def test_an_open_file_that_was_read_keeps_its_version(desk: Desk, server: DemoServer) -> None:
    old = Rest(server).ask("GET", f"/data{QC}")
    with desk.mounted("--metadata-ttl", "1"):
        path = desk.point / QC_SHOWN
        with open(path, "rb") as reader:
            assert reader.read() == old
            replace_on_the_server(server, QC, old.upper() + b"more")
            time.sleep(1.2)
            reader.seek(0)
            assert reader.read() == old
        time.sleep(1.2)
        assert path.read_bytes() == old.upper() + b"more"


def test_pages_are_kept_for_the_same_version_only(desk: Desk, server: DemoServer) -> None:
    old = Rest(server).ask("GET", f"/data{QC}")
    with desk.mounted("--metadata-ttl", "0.5"):
        path = desk.point / QC_SHOWN
        assert path.read_bytes() == old
        assert path.read_bytes() == old
        assert resident(path) > 0
        # Same size, so that no other rule of the kernel makes it forget them.
        new = bytes(reversed(old))
        replace_on_the_server(server, QC, new)
        time.sleep(0.7)
        assert path.stat().st_size == len(new)
        assert resident(path) == 0
        assert path.read_bytes() == new


def test_others_changes_are_seen_after_the_time_to_live(desk: Desk, server: DemoServer) -> None:
    with desk.mounted("--metadata-ttl", "1"):
        names = desk.point / SESSION / "resources/NAMES/files"
        before = set(os.listdir(names))
        replace_on_the_server(server, f"{HELD}/resources/NAMES/files/later.txt", b"later\n")
        time.sleep(1.2)
        assert set(os.listdir(names)) == before | {"later.txt"}
        assert (names / "later.txt").read_bytes() == b"later\n"


def test_a_second_mount_reads_from_the_store(desk: Desk, server: DemoServer) -> None:
    with desk.mounted() as point:
        first = (point / PLAIN).read_bytes()
    server.clear_log()
    with desk.mounted() as point:
        assert (point / PLAIN).read_bytes() == first
    assert asked(server, "GET", "plain.txt") == []
