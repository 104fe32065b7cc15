"""The queue: what waits in the spool of this user, and who may touch it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest

from xnatfs.config import SpoolSettings
from xnatfs.errors import DiskFault, NotFound, Protected, UsageError
from xnatfs.upload.queue import Queue, Standing
from xnatfs.upload.record import State, Target
from xnatfs.upload.spool import Spool
from xnatfs.upload.upload import Upload

# A process that spools a sealed, a failed and an open file and then does what it is told.
CHILD = """
import os, sys
from pathlib import Path
from xnatfs.config import SpoolSettings
from xnatfs.upload.record import Target
from xnatfs.upload.spool import Spool
spool = Spool(SpoolSettings(folder=Path(sys.argv[1])), "https://x", "ada", "/mnt/x")
spool.adopt()
for path in ("sealed", "failed", "open"):
    upload = spool.new(Target("https://x", "ada", f"/p/{path}", "/r/7", "7", path), None, [b"abc"])
    if path != "open": upload.seal()
    if path == "failed": upload.fail("413")
print("ready", flush=True)
if sys.stdin.readline() == "release\\n": spool.release()
os.kill(os.getpid(), 9)
"""


class Mount:
    """Another process with a folder in the spool."""

    def __init__(self, root: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", CHILD, str(root)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == "ready\n"

    def end(self, how: str) -> None:
        self.process.communicate(how + "\n")


@pytest.fixture
def mount(tmp_path: Path):
    mount = Mount(tmp_path)
    yield mount
    if mount.process.poll() is None:
        mount.end("die")


@pytest.fixture
def queue(tmp_path: Path) -> Queue:
    return Queue(SpoolSettings(folder=tmp_path))


@pytest.fixture
def ours(tmp_path: Path) -> Spool:
    spool = Spool(SpoolSettings(folder=tmp_path), "https://x", "ada")
    spool.adopt()
    return spool


def rewrite_owner(root: Path, **changes: object) -> None:
    for owner in root.glob("*/owner"):
        cells = json.loads(owner.read_text())
        if cells["mount"] == "/mnt/x":
            owner.write_text(json.dumps(cells | changes))


def by_path(queue: Queue) -> dict[str, object]:
    return {row.record.target.path: row for row in queue.rows() if row.record}


def test_an_empty_spool(tmp_path: Path) -> None:
    assert Queue(SpoolSettings(folder=tmp_path / "none")).rows() == []


def test_what_lives_is_shown_and_not_touched(mount: Mount, queue: Queue, ours: Spool) -> None:
    rows = queue.rows()
    assert [row.record.state for row in rows] == [State.SEALED, State.FAILED, State.OPEN]
    assert {row.standing for row in rows} == {Standing.LIVE}
    assert {row.mount for row in rows} == {"/mnt/x"}
    assert [row.size for row in rows] == [3, 3, 3]
    assert rows[1].record.last_error == "413"
    for row in rows:
        with pytest.raises(Protected, match="unmount /mnt/x"):
            queue.take(row, ours, force=True)
        with pytest.raises(Protected):
            queue.drop(row, force=True)
    assert len(queue.rows()) == 3


@pytest.mark.parametrize("how", ["die", "release"])
def test_what_is_dead_is_taken_over(
    mount: Mount, queue: Queue, ours: Spool, tmp_path: Path, how: str
) -> None:
    mount.end(how)
    rows = queue.rows()
    assert {row.standing for row in rows} == {Standing.FREE}
    taken = {row.record.target.path: queue.take(row, ours) for row in rows}
    assert all(queue.take(row, ours) is None for row in rows[:0])
    assert {upload.folder.parent for upload in taken.values()} == {ours.folder}
    assert taken["sealed"].resume().state is State.SEALED
    assert taken["failed"].resume().state is State.SEALED
    with pytest.raises(Protected, match="not written to its end"):
        taken["open"].resume()
    assert [row.standing for row in queue.rows()] == [Standing.LIVE] * 3
    for upload in taken.values():
        upload.done()
    ours.release()
    assert list(tmp_path.iterdir()) == []


def test_of_two_only_one_takes(mount: Mount, queue: Queue, ours: Spool, tmp_path: Path) -> None:
    mount.end("die")
    row = queue.rows()[0]
    other = Mount(tmp_path)
    try:
        assert queue.take(row, ours) is not None
        assert queue.take(row, ours) is None
    finally:
        other.end("die")


def test_bytes_that_changed_after_the_seal_are_not_sent(
    mount: Mount, queue: Queue, ours: Spool
) -> None:
    mount.end("die")
    row = queue.rows()[0]
    (row.folder / "bytes").write_bytes(b"abX")
    upload = queue.take(row, ours)
    assert upload is not None
    with pytest.raises(DiskFault, match="not what was written"):
        upload.resume()


@pytest.mark.parametrize(
    ("changes", "standing"),
    [
        ({"host": "elsewhere", "boot": "other-boot"}, Standing.UNKNOWN),
        ({"boot": "other-boot", "machine": ""}, Standing.UNKNOWN),
        ({"host": "elsewhere"}, Standing.LIVE),
        ({"pid_space": "pid:[1]"}, Standing.UNKNOWN),
        ({"start": 1}, Standing.FREE),
    ],
)
def test_who_is_surely_dead(
    mount: Mount, queue: Queue, tmp_path: Path, changes: dict[str, object], standing: Standing
) -> None:
    rewrite_owner(tmp_path, **changes)
    assert {row.standing for row in queue.rows()} == {standing}


def test_after_a_restart_of_the_machine(mount: Mount, queue: Queue, tmp_path: Path) -> None:
    machine = json.loads(next(tmp_path.glob("*/owner")).read_text())["machine"]
    rewrite_owner(tmp_path, boot="other-boot")
    standing = Standing.FREE if machine else Standing.UNKNOWN
    assert {row.standing for row in queue.rows()} == {standing}


def test_another_machines_only_by_force(
    mount: Mount, queue: Queue, ours: Spool, tmp_path: Path
) -> None:
    mount.end("die")
    rewrite_owner(tmp_path, host="elsewhere", boot="other-boot")
    row = queue.rows()[0]
    with pytest.raises(Protected, match="--take"):
        queue.take(row, ours)
    assert queue.take(row, ours, force=True) is not None
    # Released there: anyone may.
    (row.folder.parent / "released").touch()
    assert queue.take(queue.rows([by_path(queue)["failed"].id])[0], ours) is not None


def test_of_another_account_is_not_sent(mount: Mount, queue: Queue, tmp_path: Path) -> None:
    mount.end("die")
    eve = Spool(SpoolSettings(folder=tmp_path), "https://x", "eve")
    eve.adopt()
    with pytest.raises(UsageError, match="as ada"):
        queue.take(queue.rows()[0], eve)


def test_export_and_drop(mount: Mount, queue: Queue, tmp_path: Path) -> None:
    out = tmp_path.parent / (tmp_path.name + "-out")
    for row in queue.rows():
        queue.export(row, out)
    assert sorted(path.name for path in (out / "p").iterdir()) == ["failed", "open", "sealed"]
    assert (out / "p" / "open").read_bytes() == b"abc"
    again = queue.export(queue.rows()[0], out)
    assert again.name.startswith("sealed~")
    mount.end("die")
    for row in queue.rows():
        queue.drop(row)
    assert queue.rows() == []
    assert list(tmp_path.iterdir()) == []


def test_a_broken_record_is_shown_and_exported(
    mount: Mount, queue: Queue, ours: Spool, tmp_path: Path
) -> None:
    mount.end("die")
    broken = queue.rows()[0]
    (broken.folder / "record.json").write_text("")
    (row,) = queue.rows([broken.id])
    assert row.record is None
    assert "record.json" in row.problem
    with pytest.raises(DiskFault):
        queue.take(row, ours)
    place = queue.export(row, tmp_path / "out")
    assert place.read_bytes() == b"abc"
    with pytest.raises(NotFound, match="nonsense"):
        queue.rows(["nonsense"])


def target(path: str) -> Target:
    return Target("https://x", "ada", "/l/" + path, "/r/7", "7", path)


def sealed(spool: Spool, path: str, content: bytes) -> Upload:
    upload = spool.new(target(path), None, [content])
    upload.seal()
    return upload


def what_counts(queue: Queue, tmp_path: Path) -> dict[str, bytes]:
    """By path, once the process that spools is dead."""
    for owner in tmp_path.glob("*/owner"):
        owner.write_text(json.dumps(json.loads(owner.read_text()) | {"start": 1}))
    return {
        row.record.target.path: (row.folder / "bytes").read_bytes()
        for row in queue.latest(queue.rows())
        if row.record
    }


@pytest.mark.parametrize("step", [-7200.0, 7200.0])
def test_the_later_counts_whatever_the_clock_says(
    queue: Queue, ours: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: float
) -> None:
    now = time.time()
    sealed(ours, "f", b"first")
    monkeypatch.setattr(time, "time", lambda: now + step)
    sealed(ours, "f", b"second")
    monkeypatch.undo()
    assert what_counts(queue, tmp_path) == {"f": b"second"}


def test_the_later_counts_after_a_change_of_hands(
    queue: Queue, ours: Spool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = Spool(SpoolSettings(folder=tmp_path), "https://x", "ada")
    before.adopt()
    sealed(before, "f", b"first")
    before.release()
    monkeypatch.setattr(time, "time", lambda: 1000.0)
    (row,) = queue.rows()
    assert queue.take(row, ours)
    sealed(ours, "f", b"second")
    monkeypatch.undo()
    assert what_counts(queue, tmp_path) == {"f": b"second"}


def test_what_was_renamed_onto_a_name_counts_there(
    queue: Queue, ours: Spool, tmp_path: Path
) -> None:
    """A crash in the middle of a rename: what it replaces was not removed yet."""
    moved = sealed(ours, "a", b"moved")
    sealed(ours, "b", b"replaced")
    moved.readdress(target("b"), None)
    assert what_counts(queue, tmp_path) == {"b": b"moved"}
