"""Changes meet exactly the version that they were judged by; refused ones leave nothing behind."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import Connect
from tests.core.driver import ME, SCAN4, Driver, Rest, requests, soon
from xnatfs.config import Limits
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.errors import NotPermitted, Protected, Stale
from xnatfs.fs.filesystem import FileSystem
from xnatfs.waiting import Waiter

OUT = SCAN4 + "/resources/OUT/files"


@pytest.fixture
def digestless(small_archive: Path, tmp_path: Path) -> Iterator[DemoServer]:
    """A site that computes no checksums (R§7)."""
    root = tmp_path / "digestless"
    shutil.copytree(small_archive, root)
    running = DemoServer(ServerOptions(root=root, sample="small", checksums=False))
    running.start()
    yield running
    running.stop()


def with_out(fs: FileSystem) -> Driver:
    driver = Driver(fs)
    driver.mkdir(SCAN4 + "/resources/OUT")
    return driver


def address_of(server: DemoServer, name: str) -> str:
    rows = Rest(server).rows("/data/projects/PVT000/experiments?format=json")
    session = next(row["ID"] for row in rows if row["label"] == "Haofei01_MR1")
    return f"/data/experiments/{session}/scans/4/resources/OUT/files/{name}"


def test_unlink_leaves_what_somebody_else_put_there_meanwhile(
    server: DemoServer, connect: Connect
) -> None:
    fs = connect()
    with_out(fs).write(OUT + "/a", b"1")
    address = address_of(server, "a")
    Rest(server).ask("PUT", address + "?inbody=true&overwrite=true", b"another's")
    with pytest.raises(Stale):
        fs.unlink(OUT + "/a", soon())
    with pytest.raises(Protected):
        fs.unlink(OUT + "/a", soon())
    assert Rest(server).ask("GET", address) == b"another's"
    assert not [line for line in requests(server) if line.startswith("DELETE")]


def test_a_file_that_was_renamed_over_another_reads_as_the_new_one(connect: Connect) -> None:
    fs = connect()
    driver = with_out(fs)
    driver.write(OUT + "/b", b"22222")
    driver.write(OUT + "/a", b"1")
    assert driver.read(OUT + "/b") == b"22222"
    fs.rename(OUT + "/a", OUT + "/b", soon())
    # The kernel opens without a new look: it has the attributes of the renamed inode.
    handle = driver.open(OUT + "/b")
    assert fs.read(handle, 10, 0, soon()) == b"1"
    driver.close(handle)


def test_removing_a_file_whose_md5_was_not_seen_yet_leaves_nothing_to_be_sent(
    connect: Connect,
) -> None:
    fs = connect()
    driver = with_out(fs)
    for name in ("a", "b"):
        driver.write(f"{OUT}/{name}", b"1")
    fs.unlink(OUT + "/b", soon())
    driver.write(OUT + "/c", b"1")
    fs.drain(soon())
    assert fs.pending() == []
    assert driver.names(OUT) == ["a", "c"]


def test_a_refused_open_pins_nothing(server: DemoServer, connect: Connect) -> None:
    fs = connect(limits=Limits(metadata_ttl_s=0, negative_ttl_s=0, io_timeout_s=20))
    driver = with_out(fs)
    address = address_of(server, "a")
    Rest(server).ask("PUT", address + "?inbody=true", b"theirs")
    with pytest.raises(Protected):
        driver.open(OUT + "/a", os.O_WRONLY)
    Rest(server).ask("PUT", address + "?inbody=true&overwrite=true", b"a newer one")
    assert driver.read(OUT + "/a") == b"a newer one"


def test_an_open_file_whose_removal_failed_is_seen_again(
    server: DemoServer, connect: Connect
) -> None:
    fs = connect()
    driver = with_out(fs)
    driver.write(OUT + "/a", b"1")
    handle = driver.open(OUT + "/a")
    fs.rename(OUT + "/a", OUT + "/.fuse_hidden0000000100000001", soon())
    driver.close(handle)
    server.faults.add(Fault(kind="status", verb="DELETE", code=403, count=1))
    with pytest.raises(NotPermitted):
        fs.unlink(OUT + "/.fuse_hidden0000000100000001", soon())
    assert driver.names(OUT) == ["a"]
    assert driver.read(OUT + "/a") == b"1"


def test_close_lasts_as_long_as_the_upload_moves(server: DemoServer, connect: Connect) -> None:
    fs = connect()
    driver = with_out(fs)
    server.faults.add(Fault(kind="delay", path="/files", seconds=0.8))
    handle = driver.create(OUT + "/a")
    fs.write(handle, b"1", 0, soon())
    # The PUT and its listing take longer together, each of them moves in time.
    fs.flush(handle, ME, Waiter(idle_s=1.4))
    fs.release(handle, soon())
    assert fs.pending() == []


class TestWithoutDigests:
    @pytest.fixture
    def server(self, digestless: DemoServer) -> DemoServer:
        return digestless

    def test_own_files_may_be_written_again(self, connect: Connect) -> None:
        fs = connect()
        driver = with_out(fs)
        for name in ("a", "b"):
            driver.write(f"{OUT}/{name}", b"1")
        driver.write(OUT + "/b", b"22")
        fs.refresh("/", soon())
        driver.write(OUT + "/b", b"333")
        fs.refresh("/", soon())
        assert driver.read(OUT + "/b") == b"333"
        fs.unlink(OUT + "/b", soon())
        assert driver.names(OUT) == ["a"]
