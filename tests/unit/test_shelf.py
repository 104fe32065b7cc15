"""Listings on disk: private, replaced as a whole, outdated by our own changes."""

from __future__ import annotations

import contextlib
import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from tests.unit.test_store import store_in
from xnatfs.cache.shelf import Record, Shelf
from xnatfs.cache.store import Store
from xnatfs.config import StoreSettings

SESSION = "/experiments/XNAT_E00001"
SCAN = f"{SESSION}/scans/4"


def record(kind: str = "files", address: str = SCAN, body: bytes = b"[1]") -> Record:
    return Record(kind, address, time.time(), body)


def test_a_record_comes_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "listings")
    # "resources" is a record of the session, and a folder of its resources.
    kept = [record(), record("resources", SESSION), record("files", f"{SESSION}/resources/7")]
    kept.append(record("project", ""))
    for one in kept:
        shelf.write(one)
    assert [shelf.read(one.kind, one.address) for one in kept] == kept
    assert shelf.read("scan", SESSION) is None
    found = sorted(one.address for one in shelf.below(SESSION))
    assert found == [SESSION, f"{SESSION}/resources/7", SCAN]
    assert len(list(shelf.below(""))) == 4
    shelf.remove(SCAN)
    assert shelf.read("files", SCAN) is None


def test_only_the_owner_reads_it(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        shelf = Shelf(tmp_path / "listings")
        shelf.write(record())
        shelf.void(SESSION)
    finally:
        os.umask(before)
    for path in (tmp_path / "listings").rglob("*"):
        # Whoever may not enter the first folder, reaches none below.
        wanted = 0o600 if path.is_file() else 0o700
        assert stat.S_IMODE(path.stat().st_mode) == wanted, path


def test_what_was_asked_before_a_change_is_void(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "listings")
    before = time.time()
    assert not shelf.is_void(SCAN, before)
    shelf.void(SCAN)
    assert shelf.is_void(SCAN, before)
    assert shelf.is_void(f"{SCAN}/resources/7", before)
    assert not shelf.is_void(SESSION, before)
    assert not shelf.is_void(SCAN, time.time() + 0.001)
    shelf.void("")
    assert shelf.is_void(SESSION, before)
    (tmp_path / "listings" / "void").write_text("")
    assert shelf.is_void(SESSION, time.time())


@pytest.mark.parametrize("raw", [b"", b"{}", b"[]\n[]", b'{"format": 2}\n[]', b"\xff\n", b"{\n[]"])
def test_a_damaged_record_is_none(tmp_path: Path, raw: bytes) -> None:
    shelf = Shelf(tmp_path / "listings")
    shelf.write(record())
    (path,) = (tmp_path / "listings").rglob("files.json")
    path.write_bytes(raw)
    assert shelf.read("files", SCAN) is None
    # A record that lies in another's place is not believed.
    shelf.write(record("scan", SESSION))
    (other,) = (tmp_path / "listings").rglob("scan.json")
    os.replace(other, path)
    assert shelf.read("files", SCAN) is None


def test_a_disk_that_takes_nothing_fails_nothing(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64k,nr_inodes=200", "tmpfs", str(full)]
    if subprocess.run(mounted, check=False).returncode:
        pytest.skip("no right to mount a small disk")
    try:
        shelf = Shelf(full / "listings")
        shelf.write(record())
        before = time.time()
        rest = os.open(full / "rest", os.O_CREAT | os.O_WRONLY)
        with contextlib.suppress(OSError):
            while os.write(rest, b"x" * 512):
                pass
        os.close(rest)
        shelf.write(record(body=b"x" * 100_000))
        kept = shelf.read("files", SCAN)
        assert kept is not None
        assert kept.body == b"[1]"
        # There may be no room for the word that it is outdated: then it goes.
        shelf.void(SCAN)
        assert shelf.is_void(SCAN, before) or shelf.read("files", SCAN) is None
    finally:
        subprocess.run(["umount", str(full)], check=True)


def test_listings_count_and_go_with_the_rest(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.shelf.write(record(body=b"x" * 100_000))
    store.sweep()
    assert store.shelf.read("files", SCAN) is not None
    small = Store(StoreSettings(folder=tmp_path, size=50_000, keep_free=0.0), "server")
    small.sweep()
    assert store.shelf.read("files", SCAN) is None
