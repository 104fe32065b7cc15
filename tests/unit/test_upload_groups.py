"""Group commit: what was closed is durable soon, and held no longer than it waits."""

from __future__ import annotations

import gc
import os
import weakref
from pathlib import Path

import pytest

from tests.mount.desk import within
from xnatfs.config import SpoolSettings
from xnatfs.upload import groups
from xnatfs.upload.groups import MOST_SINGLE, GroupCommit
from xnatfs.upload.record import Target
from xnatfs.upload.spool import Spool
from xnatfs.upload.upload import Upload


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    spool = Spool(SpoolSettings(folder=tmp_path / "spool"), "https://x", "ada")
    spool.adopt()
    return spool


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files and folders, or the whole file system, that were synced."""
    monkeypatch.setattr(groups, "GROUP_S", 0.1)
    names: list[str] = []
    fsync, whole = os.fsync, groups.sync_file_system

    def one(fd: int) -> None:
        names.append(os.readlink(f"/proc/self/fd/{fd}"))
        fsync(fd)

    def all_(folder: Path) -> None:
        whole(folder)
        names.append("all")

    monkeypatch.setattr(os, "fsync", one)
    monkeypatch.setattr(groups, "sync_file_system", all_)
    return names


def sealed(spool: Spool, name: str) -> Upload:
    target = Target("https://x", "ada", "/l/" + name, "/r/7", "7", name)
    upload = spool.new(target, None, [name.encode()])
    upload.seal()
    return upload


def test_bytes_record_and_names_are_synced(spool: Spool, synced: list[str]) -> None:
    commit = GroupCommit(spool.folder)
    upload = sealed(spool, "a")
    assert synced == []
    commit.add(upload)
    folder = str(upload.folder)
    wanted = [f"{folder}/bytes", f"{folder}/record.json", folder, str(spool.folder)]
    assert within(10, lambda: synced == wanted)
    # From now on each record is durable before it counts.
    upload.trouble("away")
    assert len(synced) > len(wanted)


def test_many_are_synced_at_once(spool: Spool, synced: list[str]) -> None:
    commit = GroupCommit(spool.folder)
    uploads = [sealed(spool, f"f{number}") for number in range(MOST_SINGLE + 1)]
    for upload in uploads:
        commit.add(upload)
    assert within(10, lambda: synced == ["all"])


def test_the_end_of_a_mount_syncs_what_is_left(spool: Spool, synced: list[str]) -> None:
    commit = GroupCommit(spool.folder)
    upload = sealed(spool, "a")
    commit.add(upload)
    commit.end()
    assert f"{upload.folder}/bytes" in synced


def test_what_has_arrived_is_neither_synced_nor_held(spool: Spool, synced: list[str]) -> None:
    commit = GroupCommit(spool.folder)
    upload = sealed(spool, "a")
    commit.add(upload)
    upload.done()
    gone = weakref.ref(upload)
    del upload
    gc.collect()
    assert gone() is None
    commit.end()
    assert synced == []
