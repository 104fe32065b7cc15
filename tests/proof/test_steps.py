"""A fault of the server at every step of a change: before, in the middle of, and after its work.

What passes is not seen, and leaves exactly what was written; what stays is an error, and nothing
half. The neighbours are looked at after each.
"""

from __future__ import annotations

import os

import pytest

from tests.core.driver import SCAN4, Driver, Rest, soon
from xnatfs.config import Limits
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer
from xnatfs.errors import XnatfsError
from xnatfs.upload.queue import Queue
from xnatfs.waiting import Waiter

LABEL = "STEPS"
FILES = f"{SCAN4}/resources/{LABEL}/files"
HELD = f"/experiments/XNAT_E00001/scans/4/resources/{LABEL}"
NEIGHBOURS = {"a.nii.gz": b"1", "a.niix": b"2", "b/a.nii": b"4", "a": b"5"}
CONTENT = bytes(range(256)) * 600

# Where in the work of a change: which of its requests.
STEPS = {
    "listing": {"verb": "GET", "path": rf"/{LABEL}/files|/resources/\d+/files"},
    "head": {"verb": "HEAD", "path": "/files"},
    "put": {"verb": "PUT", "path": "/files"},
}
# How it goes wrong there.
FAULTS = {
    "nothing done": {"kind": "reset"},
    "refused for now": {"kind": "status", "code": 503},
    "failed": {"kind": "status", "code": 500},
    "broken in the middle": {"kind": "reset_after", "bytes": 50_000},
    "answer lost": {"kind": "status_after", "code": 502},
    "answer cut": {"kind": "truncate"},
    "a web page": {"kind": "html"},
    "catalog conflict": {"kind": "conflict"},
    "session expired": {"kind": "expire"},
}


@pytest.fixture
def rest(server: DemoServer) -> Rest:
    found = Rest(server)
    found.ask("PUT", f"/data{HELD}")
    for name, content in NEIGHBOURS.items():
        found.ask("PUT", f"/data{HELD}/files/{name}?inbody=true", content)
    return found


def close_while(drive: Driver, server: DemoServer, name: str, content: bytes, fault: Fault) -> None:
    """Write a file; the fault is there from its close on."""
    path = f"{FILES}/{name}"
    if drive.exists(path):
        handle = drive.open(path, os.O_WRONLY | os.O_TRUNC)
    else:
        handle = drive.create(path)
    drive.fs.write(handle, content, 0, soon())
    server.faults.add(fault)
    drive.close(handle)


@pytest.mark.parametrize("how", FAULTS)
@pytest.mark.parametrize("write_back", [False, True], ids=["through", "back"])
def test_a_fault_that_passes_is_not_seen(
    connect, server: DemoServer, rest: Rest, expected_warnings, how: str, write_back: bool
) -> None:
    expected_warnings.append("")
    drive = Driver(connect("admin", limits=Limits(io_timeout_s=10), write_back=write_back))
    # The listing before an upload, and that after it.
    steps = [("listing", 0), ("listing", 1), ("head", 0), ("put", 0)]
    for number, (step, after) in enumerate(steps):
        name = f"new{number}.nii"
        for content in (CONTENT, CONTENT[number + 1 :]):
            fault = Fault(**FAULTS[how], **STEPS[step], count=1, after=after)
            close_while(drive, server, name, content, fault)
            drive.fs.drain(Waiter(idle_s=20))
            server.faults.clear()
            assert rest.files(HELD) == NEIGHBOURS | {name: content}, (step, after)
        drive.fs.unlink(f"{FILES}/{name}", soon())
    assert drive.fs.pending() == []
    assert rest.files(HELD) == NEIGHBOURS


@pytest.mark.parametrize(
    ("step", "how"),
    [
        *(("put", how) for how in ("nothing done", "failed", "broken in the middle", "a web page")),
        ("listing", "nothing done"),
    ],
)
def test_a_fault_that_stays_is_an_error_and_nothing_is_lost(
    connect, server: DemoServer, rest: Rest, expected_warnings, step: str, how: str
) -> None:
    """Then the server is well again, and what was kept is sent."""
    expected_warnings.append("")
    first = connect("admin", limits=Limits(io_timeout_s=0.5))
    fault = Fault(**FAULTS[how], **STEPS[step])
    with pytest.raises(XnatfsError):
        close_while(Driver(first), server, "kept.nii", CONTENT, fault)
    server.faults.clear()
    # Whole or not at all, and still here.
    assert rest.files(HELD).get("kept.nii") in (None, CONTENT)
    assert [row["size"] for row in first.pending()] == [len(CONTENT)]
    first.close()
    second = connect("admin")
    (row,) = Queue(second._settings.spool).rows()
    assert second.take_left(row)
    second.drain(Waiter(idle_s=20))
    assert second.pending() == []
    assert rest.files(HELD) == NEIGHBOURS | {"kept.nii": CONTENT}


@pytest.mark.parametrize("how", FAULTS)
def test_a_resource_is_made_once(connect, server: DemoServer, how: str) -> None:
    """Whatever becomes of the answer: an error may be one too many, a second resource never."""
    drive = Driver(connect("admin", limits=Limits(io_timeout_s=5)))
    server.faults.add(Fault(**FAULTS[how], verb="PUT", path=f"/resources/{LABEL}", count=1))
    for _ in range(2):
        if not drive.exists(FILES.rpartition("/")[0]):
            try:
                drive.mkdir(FILES.rpartition("/")[0])
            except XnatfsError:
                drive.fs.refresh("/", soon())
    rows = Rest(server).rows("/data/experiments/XNAT_E00001/scans/4/resources?format=json")
    assert [row["label"] for row in rows].count(LABEL) == 1
    drive.write(f"{FILES}/a", b"into the one")
    assert Rest(server).files(HELD) == {"a": b"into the one"}


@pytest.mark.parametrize("how", FAULTS)
def test_a_removal_takes_that_file_or_none(
    connect, server: DemoServer, rest: Rest, expected_warnings, how: str
) -> None:
    expected_warnings.append("")
    drive = Driver(connect("admin", limits=Limits(io_timeout_s=5)))
    for step in ("DELETE", "GET"):
        drive.write(f"{FILES}/a.nii", CONTENT)
        server.faults.add(Fault(**FAULTS[how], verb=step, path="/files", count=1))
        try:
            drive.fs.unlink(f"{FILES}/a.nii", soon())
        except XnatfsError:
            server.faults.clear()
            assert rest.files(HELD) in (NEIGHBOURS, NEIGHBOURS | {"a.nii": CONTENT})
            drive.fs.refresh("/", soon())
            if drive.exists(f"{FILES}/a.nii"):
                drive.fs.unlink(f"{FILES}/a.nii", soon())
        server.faults.clear()
        assert rest.files(HELD) == NEIGHBOURS
