"""Any sequence of operations, against a plain model of what a file system is.

Several files and descriptors, folders, faults of the server, an end of the mount in good order
and by kill −9; with write-back and without; over the core and over the real kernel. After a
crash the ledger tells what may be there; else there is exactly what was written.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.model.worlds import Core, Mounted, Trouble, World
from tests.proof.ledger import Ledger
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer
from xnatfs.upload.record import State

NAMES = ("a.nii", "a.nii.gz", "b", "sub/c d", "größe", "sub/deep/x")
FOLDERS = ("sub", "sub/deep", "other")
names = st.sampled_from(NAMES)
folders = st.sampled_from(FOLDERS)

# What a server does to one request or two; the client gets over it, or says that it did not.
FAULTS = (
    Fault(kind="reset", verb="PUT", path="/files", count=1),
    Fault(kind="reset_after", verb="PUT", path="/files", bytes=100, count=1),
    Fault(kind="status", verb="PUT", path="/files", code=500, count=1),
    Fault(kind="status", verb="PUT", path="/files", code=503, count=2),
    Fault(kind="status_after", verb="PUT", path="/files", code=500, count=1),
    Fault(kind="html", verb="PUT", path="/files", count=1),
    Fault(kind="conflict", verb="PUT", path="/files", count=1),
    Fault(kind="status", verb="GET", path="/files", code=502, count=1),
    Fault(kind="truncate", verb="GET", path="/files", count=1),
    Fault(kind="corrupt", verb="GET", path="/files/", count=1),
    Fault(kind="html", verb="GET", path="/files", count=1),
    Fault(kind="expire", count=1),
    Fault(kind="status", verb="DELETE", code=500, count=1),
    Fault(kind="status_after", verb="DELETE", code=500, count=1),
    Fault(kind="reset", verb="DELETE", count=1),
    Fault(kind="reset", verb="HEAD", count=1),
)  # fmt: skip


@dataclass
class File:
    """One file of the model: its bytes, whatever it is called; "" once it was removed."""

    name: str
    content: bytearray = field(default_factory=bytearray)
    # Changed through a descriptor since it was last sent or sealed.
    changed: bool = False
    # Not even made on the server.
    new: bool = True
    # Where it lay when it was removed while open.
    removed_from: str = ""


@dataclass
class Descriptor:
    number: int
    file: File


class Machine(RuleBasedStateMachine):
    server: ClassVar[DemoServer]
    # One session at the server for all looks.
    rest: ClassVar[Rest]
    make_world: ClassVar[Callable[[str, bool], World]]
    counter: ClassVar[Iterator[int]] = itertools.count()

    @initialize(write_back=st.booleans())
    def start(self, write_back: bool) -> None:
        self.label = f"R{next(self.counter)}"
        self.files: dict[str, File] = {}
        self.folders: set[str] = set()
        self.descriptors: list[Descriptor] = []
        self.ledger: Ledger[bytes] = Ledger()
        self.faulty = False
        self.world = type(self).make_world(self.label, write_back)

    # -- rules

    @rule(name=names, content=st.binary(min_size=1, max_size=3000))
    def store(self, name: str, content: bytes) -> None:
        """What most programs do: open, write, close; some come back at once."""
        self.make_or_open(name)
        if self.descriptors and self.descriptors[-1].file is self.files.get(name):
            self.write_to(self.descriptors[-1], 0, content)
        if self.descriptors and self.descriptors[-1].file is self.files.get(name):
            self.close_one(self.descriptors[-1])

    @rule(name=names)
    def make_or_open(self, name: str) -> None:
        if not self.has_folder_of(name):
            return
        with self.may_fail():
            number = self.world.open(name, new=name not in self.files)
            file = self.files.setdefault(name, File(name))
            self.descriptors.append(Descriptor(number, file))

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data(), offset=st.integers(0, 5000), content=st.binary(min_size=1, max_size=3000))
    def write(self, data: st.DataObject, offset: int, content: bytes) -> None:
        self.write_to(data.draw(st.sampled_from(self.descriptors)), offset, content)

    def write_to(self, descriptor: Descriptor, offset: int, content: bytes) -> None:
        with self.may_fail():
            self.world.write(descriptor.number, offset, content)
            old = descriptor.file.content
            old.extend(bytes(max(0, offset - len(old))))
            old[offset : offset + len(content)] = content
            descriptor.file.changed = True

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data(), length=st.integers(0, 6000))
    def truncate(self, data: st.DataObject, length: int) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        with self.may_fail():
            self.world.truncate(descriptor.number, length)
            self.cut(descriptor.file, length)
            descriptor.file.changed = True

    @precondition(lambda self: self.files)
    @rule(data=st.data(), length=st.integers(0, 6000))
    def truncate_by_path(self, data: st.DataObject, length: int) -> None:
        file = self.files[data.draw(st.sampled_from(sorted(self.files)))]
        after = File(file.name, bytearray(file.content))
        self.cut(after, length)
        with self.may_fail({file.name: bytes(after.content)}):
            self.world.truncate_path(file.name, length)
            file.content = after.content
            self.arrived(file)

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        with self.may_fail():
            assert self.world.read(descriptor.number) == bytes(descriptor.file.content)

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        file = descriptor.file
        with self.may_fail({file.name: bytes(file.content)}):
            self.world.flush(descriptor.number)
            if file.changed:
                self.arrived(file)

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        self.close_one(data.draw(st.sampled_from(self.descriptors)))

    def close_one(self, descriptor: Descriptor) -> None:
        file = descriptor.file
        self.descriptors.remove(descriptor)
        last = not self.is_open(file)
        with self.may_fail({file.name: bytes(file.content)}):
            self.world.close(descriptor.number)
            # What was not written goes with the last release, which tells nobody how it went.
            if file.changed or (last and file.new and self.world.prompt and not self.faulty):
                self.arrived(file)
            gone = file.removed_from if last else ""
            if gone and gone not in self.files and self.world.prompt and not self.faulty:
                self.ledger.done({gone: None})

    @rule(name=names)
    def unlink(self, name: str) -> None:
        file = self.files.get(name)
        if file is None:
            with pytest.raises(Trouble, match=r"NotFound|FileNotFound|NotADirectory"):
                self.untroubled(lambda: self.world.unlink(name))
            return
        with self.may_fail({name: None}):
            self.world.unlink(name)
            del self.files[name]
            file.name, file.removed_from = "", name
            if not self.is_open(file):
                self.settled({name: None})

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        if old == new or old not in self.files or not self.has_folder_of(new):
            return
        file = self.files[old]
        content = bytes(file.content)
        with self.may_fail({old: None, new: content}):
            self.world.rename(old, new)
            if (replaced := self.files.get(new)) is not None:
                replaced.name, replaced.removed_from = "", new
            self.files[new] = self.files.pop(old)
            file.name = new
            if not (file.changed or file.new):
                self.settled({old: None, new: content})
            elif not self.is_open(file) and self.world.prompt:
                self.arrived(file)

    @rule(name=folders)
    def mkdir(self, name: str) -> None:
        if name in self.folders or not self.has_folder_of(name):
            return
        with self.may_fail():
            self.world.mkdir(name)
            self.folders.add(name)

    @rule(name=folders)
    def rmdir(self, name: str) -> None:
        inside = [it for it in (*self.files, *self.folders) if it.startswith(name + "/")]
        hidden = any(it.file.removed_from.startswith(name + "/") for it in self.descriptors)
        if name not in self.folders or hidden:
            return
        if inside:
            with pytest.raises(Trouble, match=r"NotEmpty|not empty"):
                self.untroubled(lambda: self.world.rmdir(name))
            return
        with self.may_fail():
            self.world.rmdir(name)
            self.folders.remove(name)

    @rule()
    def forget(self) -> None:
        self.world.forget()

    @rule(fault=st.sampled_from(FAULTS))
    def break_the_server(self, fault: Fault) -> None:
        self.server.faults.add(fault)
        self.faulty = True

    @rule()
    def remount(self) -> None:
        self.mend_the_server()
        self.close_all()
        self.world.remount()
        self.folders = self.real_folders(self.files)
        self.compare()

    @rule(data=st.data(), name=names, content=st.binary(min_size=1, max_size=3000))
    def crash_while_writing(self, data: st.DataObject, name: str, content: bytes) -> None:
        if data.draw(st.booleans()):
            self.store(name, content)
        if name in self.files:
            self.make_or_open(name)
        if self.descriptors:
            self.write_to(self.descriptors[-1], 1, content)
        self.crash()

    @rule()
    def crash(self) -> None:
        """kill −9; then what is there is what was promised, and the work goes on from there."""
        self.mend_the_server()
        self.world.crash()
        self.descriptors.clear()
        held = self.held()
        problems = self.ledger.judge(held)
        states = [row.record.state for row in self.world.left() if row.record]
        assert problems == [], states
        assert State.SEALED not in states
        self.ledger.adopt(held)
        self.files = {
            name: File(name, bytearray(content), new=False) for name, content in held.items()
        }
        self.folders = self.real_folders(held)
        for name, content in held.items():
            assert self.world.content(name) == content

    # -- what must hold

    @invariant()
    def names_and_sizes_are_right(self) -> None:
        if not hasattr(self, "files"):
            return
        with self.may_fail():
            sizes = {name: self.world.size(name) for name in NAMES}
            assert sizes == {
                name: len(self.files[name].content) if name in self.files else None
                for name in NAMES
            }

    def compare(self) -> None:
        """The server, and a fresh mount, hold exactly what the model holds."""
        wanted = {name: bytes(file.content) for name, file in self.files.items()}
        assert self.held() == wanted
        assert {name: self.world.content(name) for name in wanted} == wanted
        self.ledger.adopt(wanted)
        for file in self.files.values():
            file.changed = file.new = False

    def teardown(self) -> None:
        if not hasattr(self, "world"):
            return
        try:
            self.mend_the_server()
            self.close_all()
            self.world.remount()
            self.compare()
        finally:
            self.world.end()

    # -- the model

    @contextmanager
    def may_fail(self, outcome: dict[str, bytes | None] | None = None) -> Iterator[None]:
        """An operation that may fail while the server does; then a crash shows what is there."""
        self.ledger.begun({name: it for name, it in (outcome or {}).items() if name})
        try:
            yield
        except Trouble:
            if not self.faulty:
                raise
            self.crash()

    def untroubled(self, work: Callable[[], None]) -> None:
        """An operation that has to fail for its own reason."""
        self.mend_the_server()
        work()

    def mend_the_server(self) -> None:
        self.server.faults.clear()
        self.faulty = False

    def arrived(self, file: File) -> None:
        """Its content was acknowledged."""
        file.changed = file.new = False
        if file.name:
            self.ledger.done({file.name: bytes(file.content)})

    def settled(self, outcome: dict[str, bytes | None]) -> None:
        """Names changed, which was acknowledged."""
        self.ledger.done(outcome)

    def held(self) -> dict[str, bytes]:
        return self.rest.files(f"/experiments/XNAT_E00001/resources/{self.label}")

    def is_open(self, file: File) -> bool:
        return any(descriptor.file is file for descriptor in self.descriptors)

    def has_folder_of(self, name: str) -> bool:
        folder = name.rpartition("/")[0]
        return not folder or folder in self.folders

    @staticmethod
    def real_folders(there: dict[str, object] | dict[str, bytes] | dict[str, File]) -> set[str]:
        """A folder without files is local: it does not outlive the mount."""
        return {name[:at] for name in there for at, letter in enumerate(name) if letter == "/"}

    @staticmethod
    def cut(file: File, length: int) -> None:
        file.content.extend(bytes(max(0, length - len(file.content))))
        del file.content[length:]

    def close_all(self) -> None:
        while self.descriptors:
            self.close_one(self.descriptors[-1])


def run(examples: int, steps: int) -> None:
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )


LONG = [pytest.mark.long, pytest.mark.timeout(3600)]


@pytest.mark.parametrize(("examples", "steps"), [(12, 25), pytest.param(100, 60, marks=LONG)])
def test_any_sequence_over_the_core(
    server: DemoServer, tmp_path: Path, examples: int, steps: int
) -> None:
    def make(label: str, write_back: bool) -> World:
        folder = Path(tempfile.mkdtemp(dir=tmp_path))
        # One state folder: one session at the server for all.
        return Core(server.url, folder, tmp_path / "state", label, write_back=write_back)

    Machine.server, Machine.rest, Machine.make_world = server, Rest(server), staticmethod(make)
    run(examples, steps)


@pytest.mark.parametrize(("examples", "steps"), [(2, 20), pytest.param(30, 40, marks=LONG)])
def test_any_sequence_over_the_kernel(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path, examples: int, steps: int
) -> None:
    def make(label: str, write_back: bool) -> World:
        desk = open_a_desk(server.url)
        desk.expected.append("")
        return Mounted(desk, label, write_back=write_back)

    Machine.server, Machine.rest, Machine.make_world = server, Rest(server), staticmethod(make)
    run(examples, steps)
