"""Several mounts at one archive and on one spool folder, without locks to rely on."""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from tests.core.driver import ME, SCAN4, Driver, Rest, soon
from tests.core.slowlink import SlowLink
from xnatfs.config import Limits, SpoolSettings
from xnatfs.demo.faults import Fault
from xnatfs.errors import AlreadyExists, Protected, XnatfsError
from xnatfs.upload import owner
from xnatfs.upload.queue import Queue, Standing
from xnatfs.waiting import Waiter

OWNER = SCAN4 + "/resources"
HELD = "/experiments/XNAT_E00001/scans/4/resources"


def at_once(*works: Callable[[], object]) -> list[object]:
    """Do them at the same time; what each returned, or its error."""
    start = threading.Barrier(len(works))
    found: list[object] = [None] * len(works)

    def one(number: int) -> None:
        start.wait()
        try:
            found[number] = works[number]()
        except XnatfsError as error:
            found[number] = error

    threads = [threading.Thread(target=one, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def labels(rest: Rest) -> list[str]:
    return sorted(row["label"] for row in rest.rows(f"/data{HELD}?format=json"))


def test_a_folder_is_made_once(connect, server) -> None:
    """Who comes second is told so, and finds it: ``mkdir -p`` in both works."""
    rest = Rest(server)
    drives = [Driver(connect(user)) for user in ("admin", "member")]
    before = labels(rest)
    for number in range(5):
        folder = f"{OWNER}/NEW{number}"
        told = at_once(*(partial(drive.mkdir, folder) for drive in drives))
        assert [type(it) for it in told if it is not None] == [AlreadyExists]
        files = {"a": b"a", "b": b"b"}
        told = at_once(
            *(
                partial(drive.write, f"{folder}/files/{name}", content)
                for drive, (name, content) in zip(drives, files.items(), strict=True)
            )
        )
        assert told == [None, None]
        assert rest.files(f"{HELD}/NEW{number}") == files
    assert labels(rest) == sorted([*before, *(f"NEW{number}" for number in range(5))])


def test_what_two_offline_mounts_left_is_put_into_one_folder(
    connect, server, expected_warnings: list[str]
) -> None:
    expected_warnings.append("--offline")
    rest = Rest(server)
    online = Driver(connect("admin"))
    online.walk(SCAN4)
    online.fs.close()
    before = labels(rest)
    for name in ("a", "b"):
        drive = Driver(connect("admin", offline=True))
        if not drive.exists(f"{OWNER}/LATER"):
            drive.mkdir(f"{OWNER}/LATER")
        drive.write(f"{OWNER}/LATER/files/{name}", name.encode())
        drive.fs.close()
    both = [connect("admin"), connect("admin")]
    assert at_once(*(fs.recover for fs in both)) == [None, None]
    for fs in both:
        fs.drain(soon())
    assert rest.files(f"{HELD}/LATER") == {"a": b"a", "b": b"b"}
    assert labels(rest) == sorted([*before, "LATER"])
    assert [fs.pending() for fs in both] == [[], []]


def test_who_waits_behind_an_upload_that_moves_does_not_give_up(connect, server) -> None:
    contents = {name: os.urandom(12 << 20) for name in ("a", "b", "c")}
    with SlowLink(server.url, upward=8 << 20) as link:  # bytes per second: 1.5 s for each
        drive = Driver(connect("member", url=link.url, limits=Limits(io_timeout_s=2.5)))
        drive.mkdir(f"{OWNER}/SLOW")

        def put(name: str) -> None:
            handle = drive.create(f"{OWNER}/SLOW/files/{name}")
            drive.fs.write(handle, contents[name], 0, soon())
            drive.fs.flush(handle, ME, Waiter(idle_s=2.5))
            drive.fs.release(handle, soon())

        told = at_once(*(partial(put, name) for name in contents))
    assert told == [None] * 3
    assert Rest(server).files(f"{HELD}/SLOW") == contents


def test_two_machines_and_one_spool_folder_without_locks(
    connect, server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What belongs to another machine is shown and left alone until it is let go of."""

    def refused(*_: object) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refused)
    monkeypatch.setattr(fcntl, "lockf", refused)
    real = owner._text

    def on(machine: str) -> None:
        monkeypatch.setattr(socket, "gethostname", lambda: machine)
        monkeypatch.setattr(
            owner,
            "_text",
            lambda path: f"{machine}-{path.name}" if path.name in ("boot_id", "machine-id")
            else real(path),
        )  # fmt: skip

    rest = Rest(server)
    queue = Queue(SpoolSettings(folder=tmp_path / "state" / "spool"))
    on("node1")
    first = Driver(connect("member", write_back=True))
    first.mkdir(f"{OWNER}/SHARED")
    first.write(f"{OWNER}/SHARED/files/one", b"one")
    on("node2")
    second = Driver(connect("member", write_back=True))
    second.fs.recover()
    second.write(f"{OWNER}/SHARED/files/two", b"two")
    (theirs,) = [row for row in queue.rows() if row.standing is Standing.UNKNOWN]
    assert theirs.owner.startswith("node1")
    with pytest.raises(Protected, match="node1"):
        second.fs.take_left(theirs)
    second.fs.drain(soon())
    assert rest.files(f"{HELD}/SHARED") == {"two": b"two"}
    # Both go on at the same time, on one resource.
    for number in range(5):
        first.write(f"{OWNER}/SHARED/files/one{number}", b"one")
        second.write(f"{OWNER}/SHARED/files/two{number}", b"two")
    assert at_once(*(partial(it.fs.drain, soon()) for it in (first, second))) == [None, None]
    wanted = {f"{name}{number}": name.encode() for name in ("one", "two") for number in range(5)}
    assert rest.files(f"{HELD}/SHARED") == wanted | {"one": b"one", "two": b"two"}
    # It ends, and leaves something: anybody's.
    server.faults.add(Fault(kind="status", code=503, path="/files"))
    first.write(f"{OWNER}/SHARED/files/left", b"left")
    first.fs.close()
    server.faults.clear()
    second.fs.recover()
    second.fs.drain(soon())
    assert rest.files(f"{HELD}/SHARED")["left"] == b"left"
    assert queue.rows() == []
