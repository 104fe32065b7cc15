"""Faults in the middle of what comes in, over a real mount: true bytes or an error, never others.

Each fault meets a session of its own, so that one mount does for all of them.
"""

from __future__ import annotations

import hashlib
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from random import Random

import pytest

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import Desk, gone, process, within
from xnatfs.config import KIB, MIB
from xnatfs.demo.faults import Fault
from xnatfs.demo.order import PROJECT, Order
from xnatfs.demo.server import DemoServer, ServerOptions

SESSIONS, FILES, SIZE = 20, 12, 100 * KIB
BIG = 12 * MIB + 4321
# In the middle of a tar of a session's one resource, and of a large file.
MIDDLE = {"stream": 5 * SIZE, "range": 5 * MIB, "listing": 300}

# Whatever goes wrong on the way to the bytes, by name.
FAULTS: dict[str, dict[str, object]] = {
    "reset": {"kind": "reset"},
    "reset_after": {"kind": "reset_after"},
    "truncate": {"kind": "truncate"},
    "stall": {"kind": "stall", "seconds": 60.0},
    "corrupt": {"kind": "corrupt"},
    "html": {"kind": "html"},
    "expire": {"kind": "expire"},
    "busy": {"kind": "status", "code": 503, "retry_after": "1"},
}
# Those that are over when the request is asked again, even if it always happens.
PASSING = {"expire"}


def big(number: int) -> bytes:
    return Random(number).randbytes(MIB) * (BIG // MIB) + bytes([number]) * (BIG % MIB)


class Place:
    """A user's desk at a server that has a session for each fault."""

    def __init__(self, desk: Desk, server: DemoServer) -> None:
        self.desk = desk
        self.server = server
        self.rest = Rest(server)
        self._number = SESSIONS + 1

    def session(self) -> str:
        """Another session, its id; from the last to the first, which nothing asks ahead of."""
        self._number -= 1
        return f"XNAT_E{1_000_000 + self._number}"

    def folder(self, session: str) -> Path:
        number = int(session[-5:])
        subject = f"{PROJECT}/subjects/S{number:05}/experiments/S{number:05}_MR"
        return self.desk.point / "projects" / subject

    def files(self, session: str) -> Path:
        return self.folder(session) / "scans/1/resources/DICOM/files"

    def whole(self, session: str) -> dict[str, bytes]:
        return self.rest.files(f"/experiments/{session}/scans/1/resources/DICOM")

    def add_big(self, session: str) -> bytes:
        body = big(int(session[-2:]))
        self.put_big(session, body)
        return body

    def put_big(self, session: str, body: bytes) -> None:
        address = f"/data/experiments/{session}/resources/BIG/files/big.bin"
        self.rest.ask("PUT", f"{address}?inbody=true&overwrite=true", body)


@pytest.fixture
def place(open_a_desk: OpenDesk, tmp_path: Path) -> Iterator[Place]:
    order = Order(sessions=SESSIONS, scans=1, files=FILES, file_size=SIZE)
    server = DemoServer(ServerOptions(root=tmp_path / "served", sample="none", order=order))
    server.start()
    desk = open_a_desk(server.url)
    # What a mount has to say of such a line is not the matter here.
    desk.expected.append("")
    yield Place(desk, server)
    server.faults.clear()
    server.stop()


def faults_of(where: str, session: str, *, always: bool) -> Iterator[tuple[str, Fault]]:
    """Each fault in the middle of a tar, of a range or of a listing of a session."""
    paths = {
        "stream": f"{session}/.*format=tar",
        "range": f"{session}/.*big.bin",
        "listing": f"{session}/.*format=json",
    }
    for name, rule in FAULTS.items():
        given = {"path": paths[where], "verb": "GET", "count": None if always else 1}
        if rule["kind"] not in ("html", "expire", "status", "reset"):
            given["bytes"] = MIDDLE[where]
        yield name, Fault(**given, **rule)


def read(file: Path) -> bytes | OSError:
    try:
        return file.read_bytes()
    except OSError as error:
        return error


def comes_right(look: Callable[[], object], wanted: object) -> bool:
    """Whether something is right after a while, and until then an error and nothing else."""

    def right() -> bool:
        with suppress(OSError):
            found = look()
            assert found == wanted, "something else was given out"
            return True
        return False

    return within(30, right)


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_in_a_stream(place: Place, always: bool) -> None:
    """The line of the stream is bad; those of single files are good, so nothing is missing."""
    place.desk.mount("--io-timeout", "4")
    for name, _ in faults_of("stream", "", always=always):
        session = place.session()
        whole = place.whole(session)
        place.server.faults.add(dict(faults_of("stream", session, always=always))[name])
        files = place.files(session)
        found = {file: read(files / file) for file in os.listdir(files)}
        assert found == whole, name
        place.server.faults.clear()
    assert place.desk.umount().returncode == 0


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_in_a_large_file(place: Place, always: bool) -> None:
    place.desk.mount("--io-timeout", "4")
    failed = False
    for name, _ in faults_of("range", "", always=always):
        session = place.session()
        body = place.add_big(session)
        place.server.faults.add(dict(faults_of("range", session, always=always))[name])
        file = place.folder(session) / "resources/BIG/files/big.bin"
        found = read(file)
        # Where the bytes themselves are wrong the first who sees them hears of it at the end.
        if name == "corrupt" or (always and name not in PASSING):
            assert isinstance(found, OSError) or found == body, name
            failed = failed or isinstance(found, OSError)
        else:
            assert found == body, name
        place.server.faults.clear()
        assert comes_right(file.read_bytes, body), name
    assert place.desk.umount().returncode == (74 if failed else 0)
    assert failed or not always


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
def test_in_a_listing(place: Place, always: bool) -> None:
    """A folder has its entries or is an error; it is never empty, nor a part of itself."""
    place.desk.mount("--io-timeout", "4")
    for name, _ in faults_of("listing", "", always=always):
        session = place.session()
        whole = place.whole(session)
        place.server.faults.add(dict(faults_of("listing", session, always=always))[name])
        files = place.files(session)
        with suppress(OSError):
            assert sorted(os.listdir(files)) == sorted(whole), name
            assert not always or name in PASSING, name
        place.server.faults.clear()
        assert comes_right(lambda files=files: sorted(os.listdir(files)), sorted(whole)), name
        assert {file: read(files / file) for file in whole} == whole, name
    place.desk.umount()


def test_a_large_file_that_is_replaced_while_it_is_read(place: Place) -> None:
    place.desk.mount("--metadata-ttl", "600")
    session = place.session()
    old = place.add_big(session)
    file = place.folder(session) / "resources/BIG/files/big.bin"
    descriptor = os.open(file, os.O_RDONLY)
    try:
        assert os.pread(descriptor, 100, 0) == old[:100]
        # Dates have seconds: what is replaced sooner is told by its MD5 only.
        within(1.1, lambda: False)
        new = bytes(reversed(old))
        place.put_big(session, new)
        for at in range(0, BIG, MIB):
            with suppress(OSError):
                assert os.pread(descriptor, 1000, at) == old[at : at + 1000]
        with pytest.raises(OSError):
            os.pread(descriptor, 1000, BIG - 1000)
    finally:
        os.close(descriptor)
    place.desk.xnatfs("refresh", file)
    assert comes_right(file.read_bytes, new)
    place.desk.umount()


def test_a_file_that_is_replaced_while_its_series_streams(place: Place) -> None:
    place.desk.mount("--metadata-ttl", "600")
    session = place.session()
    whole = place.whole(session)
    files = place.files(session)
    names = os.listdir(files)
    victim = names[6]
    new = b"N" * SIZE
    address = f"/data/experiments/{session}/scans/1/resources/DICOM/files/{victim}"
    place.rest.ask("PUT", f"{address}?inbody=true&overwrite=true", new)
    found = {name: read(files / name) for name in names}
    assert isinstance(found.pop(victim), OSError)
    assert found == {name: body for name, body in whole.items() if name != victim}
    place.desk.xnatfs("refresh", files)
    assert comes_right((files / victim).read_bytes, new)
    assert place.desk.umount().returncode == 74


def test_kill_9_in_the_middle_leaves_a_store_to_trust(place: Place, tmp_path: Path) -> None:
    """Whatever had come by then: the next mount has true bytes."""
    dice = Random(11)
    session = place.session()
    whole = place.whole(session)
    body = place.add_big(session)
    line = Fault(kind="slow", path=f"{session}/.*(tar|big.bin)", verb="GET", rate=6e6)
    for _ in range(4):
        place.server.faults.add(line)
        place.desk.mount("--cache-dir", str(tmp_path / "store"))
        pid = place.desk.pid()
        files = place.files(session)
        wanted = [*sorted(files.iterdir()), place.folder(session) / "resources/BIG/files/big.bin"]
        with process("sh", "-c", 'cat "$@" > /dev/null', "sh", *wanted) as reader:
            within(dice.uniform(0.1, 1.2), lambda: False)
            os.kill(pid, signal.SIGKILL)
            assert gone(pid, 10)
            reader.communicate(timeout=30)
        place.server.faults.clear()
        place.desk.umount()
    with place.desk.mounted("--cache-dir", str(tmp_path / "store")):
        files = place.files(session)
        assert {name: read(files / name) for name in os.listdir(files)} == whole
        found = (place.folder(session) / "resources/BIG/files/big.bin").read_bytes()
        assert hashlib.md5(found).digest() == hashlib.md5(body).digest()
    sound = place.desk.xnatfs("cache", "verify", "--cache-dir", tmp_path / "store")
    assert sound.returncode == 0, sound.stdout + sound.stderr
