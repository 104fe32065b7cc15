"""Any sequence of operations, against a plain model of what a file system is.

The file system is driven as the kernel's library drives it: a file that is removed or replaced
while it is open is renamed to a hidden name first, and unlinked with its last descriptor.
"""

from __future__ import annotations

import itertools
import shutil
import tempfile
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

from tests.core.driver import ME, SESSION, Driver, Rest, soon
from xnatfs.config import Limits, Policy, ServerSettings, Settings, SpoolSettings, StoreSettings
from xnatfs.demo.server import DemoServer
from xnatfs.errors import NotFound
from xnatfs.fs.filesystem import FileSystem
from xnatfs.rest.login import Credentials

NAMES = ("a.nii", "a.nii.gz", "b", "sub/c d", "größe")
names = st.sampled_from(NAMES)


@dataclass
class File:
    """One file of the model: its bytes, whatever it is called."""

    content: bytearray = field(default_factory=bytearray)
    # Path it was hidden under when it was removed while open.
    hidden: str = ""


@dataclass
class Descriptor:
    number: int
    file: File


class Machine(RuleBasedStateMachine):
    server: ClassVar[DemoServer]
    scratch: ClassVar[Path]
    counter: ClassVar[itertools.count[int]] = itertools.count()

    def connect(self) -> None:
        settings_ = Settings(
            server=ServerSettings(url=self.server.url),
            limits=Limits(io_timeout_s=20),
            policy=Policy(),
            store=StoreSettings(folder=self.scratch / "cache"),
            spool=SpoolSettings(folder=self.scratch / "spool"),
            state_folder=type(self).scratch / "state",  # one session at the server for all
        )
        fs = FileSystem.connect(settings_, Credentials("admin", "admin", "the test"), soon())
        fs.adopt(soon())
        self.drive = Driver(fs)

    @initialize()
    def start(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(dir=type(self).scratch))
        self.label = f"R{next(self.counter)}"
        self.files: dict[str, File] = {}
        self.descriptors: list[Descriptor] = []
        self.hidden = itertools.count()
        self.rest = Rest(self.server)
        self.connect()
        self.root = f"{SESSION}/resources/{self.label}/files"
        self.drive.mkdir(self.root.rpartition("/")[0])
        self.make_folder()

    def make_folder(self) -> None:
        """A folder without files is local: it does not outlive the mount."""
        if not self.drive.exists(self.root + "/sub"):
            self.drive.mkdir(self.root + "/sub")

    def at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def is_open(self, file: File) -> bool:
        return any(descriptor.file is file for descriptor in self.descriptors)

    def hide(self, name: str) -> None:
        file = self.files.pop(name)
        folder = self.at(name).rpartition("/")[0]
        file.hidden = f"{folder}/.fuse_hidden{next(self.hidden):08x}00000001"
        self.drive.fs.rename(self.at(name), file.hidden, soon())

    # -- rules

    @rule(name=names)
    def make_or_open(self, name: str) -> None:
        if name in self.files:
            number = self.drive.open(self.at(name), 2)
        else:
            self.files[name] = File()
            number = self.drive.create(self.at(name))
        self.descriptors.append(Descriptor(number, self.files[name]))

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data(), offset=st.integers(0, 5000), content=st.binary(min_size=1, max_size=3000))
    def write(self, data: st.DataObject, offset: int, content: bytes) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        old = descriptor.file.content
        old.extend(bytes(max(0, offset - len(old))))
        old[offset : offset + len(content)] = content
        self.drive.fs.write(descriptor.number, content, offset, soon())

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data(), length=st.integers(0, 6000))
    def truncate(self, data: st.DataObject, length: int) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        old = descriptor.file.content
        old.extend(bytes(max(0, length - len(old))))
        del old[length:]
        self.drive.fs.truncate("/unused", length, descriptor.number, soon())

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data())
    def read(self, data: st.DataObject) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        got = self.drive.fs.read(descriptor.number, 100_000, 0, soon())
        assert got == bytes(descriptor.file.content)

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data())
    def flush(self, data: st.DataObject) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        self.drive.fs.flush(descriptor.number, ME, soon())

    @precondition(lambda self: self.descriptors)
    @rule(data=st.data())
    def close(self, data: st.DataObject) -> None:
        descriptor = data.draw(st.sampled_from(self.descriptors))
        self.descriptors.remove(descriptor)
        self.drive.close(descriptor.number)
        file = descriptor.file
        if file.hidden and not self.is_open(file):
            self.drive.fs.unlink(file.hidden, soon())

    @rule(name=names)
    def unlink(self, name: str) -> None:
        file = self.files.get(name)
        if file is None:
            with pytest.raises(NotFound):
                self.drive.fs.unlink(self.at(name), soon())
        elif self.is_open(file):
            self.hide(name)
        else:
            del self.files[name]
            self.drive.fs.unlink(self.at(name), soon())

    @rule(old=names, new=names)
    def rename(self, old: str, new: str) -> None:
        if old == new or old not in self.files:
            return
        if new in self.files and self.is_open(self.files[new]):
            self.hide(new)
        self.files[new] = self.files.pop(old)
        self.drive.fs.rename(self.at(old), self.at(new), soon())

    @rule()
    def forget(self) -> None:
        self.drive.fs.refresh("/", soon())

    @rule()
    def remount(self) -> None:
        self.close_all()
        self.drive.fs.drain(soon())
        assert self.drive.fs.pending() == []
        self.drive.fs.close()
        self.connect()
        self.make_folder()
        self.compare_bytes()

    # -- what must hold

    @invariant()
    def names_and_sizes_are_right(self) -> None:
        if not hasattr(self, "files"):
            return
        for name in NAMES:
            if name in self.files:
                assert self.drive.stat(self.at(name)).size == len(self.files[name].content)
            else:
                assert not self.drive.exists(self.at(name))

    def compare_bytes(self) -> None:
        held = self.rest.files(f"/experiments/XNAT_E00001/resources/{self.label}")
        assert held == {name: bytes(file.content) for name, file in self.files.items()}
        for name, file in self.files.items():
            assert self.drive.read(self.at(name)) == bytes(file.content)

    def close_all(self) -> None:
        while self.descriptors:
            descriptor = self.descriptors.pop()
            self.drive.close(descriptor.number)
            if descriptor.file.hidden and not self.is_open(descriptor.file):
                self.drive.fs.unlink(descriptor.file.hidden, soon())

    def teardown(self) -> None:
        if not hasattr(self, "files"):
            return
        try:
            self.close_all()
            self.drive.fs.drain(soon())
            self.compare_bytes()
        finally:
            self.drive.fs.close()
            shutil.rmtree(self.scratch, ignore_errors=True)


def test_any_sequence_of_operations(server: DemoServer, tmp_path: Path) -> None:
    Machine.server, Machine.scratch = server, tmp_path
    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=15,
            stateful_step_count=25,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
