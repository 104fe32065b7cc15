"""Listings: shared by the processes of an account, never older than they may be."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import pytest

from tests.core.driver import NAMES, SESSION, Driver, Rest, requests, soon
from xnatfs.config import Limits
from xnatfs.demo.server import DemoServer
from xnatfs.tree import asking

QC = "/data/experiments/XNAT_E00001/resources/QC/files/qc.csv?inbody=true&overwrite=true"
# A time to live that no test outlives, and one that it does.
LONG = Limits(metadata_ttl_s=600, io_timeout_s=20)
SHORT = Limits(metadata_ttl_s=0.6, io_timeout_s=20, negative_ttl_s=0.1)


def listed(server: DemoServer) -> list[str]:
    return [line for line in requests(server) if "format=json" in line]


def contents(folder: Path) -> set[str]:
    """Names of the contents in the store."""
    return {path.name for path in folder.glob("cache/*/content/*/*")}


def test_a_second_process_asks_for_no_listing(connect, server) -> None:
    first = Driver(connect(limits=LONG)).walk(SESSION)
    server.clear_log()
    assert Driver(connect(limits=LONG)).walk(SESSION) == first
    assert listed(server) == []


def test_another_account_is_told_nothing(connect, server) -> None:
    Driver(connect("admin", limits=LONG)).names("/projects")
    server.clear_log()
    assert "PVT000" not in Driver(connect("nobody", limits=LONG)).names("/projects")
    assert listed(server) != []


def test_nothing_is_served_past_its_time(connect, server) -> None:
    """Neither from memory nor from disk, nor longer because it went from one to the other."""
    limits = Limits(metadata_ttl_s=3, io_timeout_s=20, negative_ttl_s=0.1)
    drive = Driver(connect(limits=limits))
    old = drive.names(NAMES)
    time.sleep(0.8)
    other = Driver(connect(limits=limits))
    server.clear_log()
    assert other.names(NAMES) == old
    assert listed(server) == []
    Rest(server).ask("PUT", QC.replace("QC/files/qc.csv", "NAMES/files/new.txt"), b"new")
    time.sleep(0.8)
    assert "new.txt" in other.names(NAMES)
    assert "new.txt" in Driver(connect(limits=limits)).names(NAMES)


def test_a_record_from_the_future_is_not_believed(connect, server, tmp_path) -> None:
    Driver(connect(limits=LONG)).names(NAMES)
    for path in (tmp_path / "cache").rglob("listings/**/*.json"):
        head, _, body = path.read_bytes().partition(b"\n")
        about = json.loads(head) | {"asked": time.time() + 1000}
        path.write_bytes(json.dumps(about).encode() + b"\n" + body)
    server.clear_log()
    Driver(connect(limits=LONG)).names(NAMES)
    assert listed(server) != []


def test_a_missing_name_is_asked_again_although_it_is_on_disk(connect, server) -> None:
    limits = Limits(metadata_ttl_s=600, io_timeout_s=20, negative_ttl_s=0.1)
    assert not Driver(connect(limits=limits)).exists(NAMES + "/late.txt")
    Rest(server).ask("PUT", QC.replace("QC/files/qc.csv", "NAMES/files/late.txt"), b"late")
    time.sleep(0.2)
    assert Driver(connect(limits=limits)).exists(NAMES + "/late.txt")


def test_own_changes_are_seen_by_the_next_process_at_once(connect, server) -> None:
    first = Driver(connect(limits=LONG, allow_overwrite=True, allow_delete=True))
    first.walk(SESSION)
    first.write(NAMES + "/own.txt", b"own")
    first.write(NAMES + "/plain.txt", b"longer than before")
    first.fs.unlink(NAMES + "/amp&amp.txt", soon())
    first.mkdir(SESSION + "/resources/OWN")
    first.fs.close()
    second = Driver(connect(limits=LONG))
    assert second.read(NAMES + "/own.txt") == b"own"
    assert second.read(NAMES + "/plain.txt") == b"longer than before"
    assert "amp&amp.txt" not in second.names(NAMES)
    assert second.names(SESSION + "/resources/OWN/files") == []


def test_a_refresh_is_for_all_processes(connect, server) -> None:
    first = connect(limits=LONG)
    Driver(first).walk(SESSION)
    Rest(server).ask("PUT", QC, b"x,y,z\n")
    first.refresh("/", soon())
    assert Driver(connect(limits=LONG)).stat(SESSION + "/resources/QC/files/qc.csv").size == 6


def test_what_the_server_does_not_show_any_more_is_dropped(connect, server, tmp_path) -> None:
    drive = Driver(connect())
    drive.read(SESSION + "/resources/QC/files/qc.csv")
    (old,) = contents(tmp_path)
    Rest(server).ask("PUT", QC, b"x,y,z\n")
    drive.fs.refresh("/", soon())
    drive.read(SESSION + "/resources/QC/files/qc.csv")
    assert old not in contents(tmp_path)
    assert len(contents(tmp_path)) == 1


@pytest.mark.parametrize("again", [False, True], ids=["same process", "next process"])
def test_a_project_that_is_hidden_leaves_nothing_behind(connect, server, tmp_path, again) -> None:
    fs = connect("member", limits=SHORT)
    drive = Driver(fs)
    drive.walk(SESSION)
    drive.read(SESSION + "/resources/QC/files/qc.csv")
    drive.read(NAMES + "/no-digest.txt")
    drive.read("/projects/PVT000/resources/PROTOCOL/files/protocol.txt")
    assert len(contents(tmp_path)) == 3
    project = server.site.tables.objects.get("project:PVT000")
    roles = tuple(role for role in project.roles if role[0] != "member")
    server.site.tables.objects.put(replace(project, roles=roles))
    if again:
        drive = Driver(connect("member", limits=SHORT))
    time.sleep(0.4)
    assert "PVT000" not in drive.names("/projects")
    assert contents(tmp_path) == set()
    assert not any("XNAT_E00001" in str(path) for path in (tmp_path / "cache").rglob("*"))


def test_what_is_open_reads_on_though_it_is_not_shown(connect, server) -> None:
    drive = Driver(connect(limits=SHORT))
    path = SESSION + "/resources/QC/files/qc.csv"
    content = drive.read(path)
    handle = drive.open(path)
    Rest(server).ask("PUT", QC, b"x,y,z\n")
    drive.fs.refresh("/", soon())
    drive.names(SESSION + "/resources/QC/files")
    assert drive.fs.read(handle, 100, 0, soon()) == content
    drive.close(handle)


def test_a_large_listing_in_use_is_renewed_before_its_time_is_over(
    connect, server, monkeypatch
) -> None:
    """Nobody waits for it, and it is asked for once."""
    monkeypatch.setattr(asking, "LARGE", 3)
    drive = Driver(connect(limits=Limits(metadata_ttl_s=3, io_timeout_s=20)))
    first = drive.names(NAMES)
    server.clear_log()
    until = time.monotonic() + 1.3
    while time.monotonic() < until:
        drive.stat(f"{NAMES}/{first[0]}")
        time.sleep(0.05)
    assert len([line for line in listed(server) if "/resources/" in line]) == 1
