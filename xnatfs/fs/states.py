"""The states of an open file, what it is read from, and what it needs of its mount."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

from xnatfs.config import MIB
from xnatfs.errors import XnatfsError
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.versions import Version
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

if TYPE_CHECKING:
    from xnatfs.fs.openfile import OpenFile

T = TypeVar("T")


class Source(Protocol):
    """Where a file that is not being written is read from."""

    def read(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """Exactly the bytes asked for, up to the end of the file, or an error."""

    def close(self) -> None:
        """No more reads."""


class Ways(Protocol):
    """What an open file needs of its mount."""

    @property
    def write_back(self) -> bool:
        """Whether a close is content with the spool."""

    def open_source(self, resource: Item, version: Version, label: str) -> Source:
        """A way to read a version."""

    def new_upload(
        self,
        resource: Item,
        path: str,
        label: str,
        base: Version | None,
        old: Iterator[bytes] | None,
        before: Upload | None = None,
    ) -> Upload:
        """An upload in the spool, with ``old`` as its first content, instead of ``before``."""

    def readdress(
        self,
        upload: Upload,
        resource: Item,
        path: str,
        label: str,
        base: Version | None,
        *,
        surely: bool = True,
    ) -> None:
        """What is in the spool goes to another name."""

    def seal(self, upload: Upload) -> None:
        """The content is complete."""

    def post(self, file: OpenFile) -> None:
        """Send a sealed file in the background."""

    def decided(self, file: OpenFile) -> None:
        """A file that was sent in the background is on the server, or never will be."""

    def look(self, resource: Item, upload: Upload, waiter: Waiter) -> RemoteFile | None:
        """Whether the server has an upload whose answer was lost."""

    def find_room(self, change: Callable[[], T], waiter: Waiter) -> T:
        """Make a change in the spool, as often as what leaves it makes room."""

    def patient(self) -> Waiter:
        """The waiter of work on a worker: as long as it moves."""

    def send(self, resource: Item, upload: Upload, waiter: Waiter) -> RemoteFile:
        """Send an upload and see that the server holds it. On a worker."""

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run on a worker."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Nobody has changed it: the pinned version, from wherever it is read."""

    version: Version
    source: Source


@dataclass(frozen=True, slots=True)
class Writing:
    """Its content is in the spool and may still change."""

    upload: Upload
    # What was closed and is being written over: it counts until the new content is closed.
    before: Upload | None = None


@dataclass(frozen=True, slots=True)
class Sealed:
    """Its content is complete in the spool; it is sent in the background."""

    upload: Upload


@dataclass(frozen=True, slots=True)
class Failed:
    """The server did not take it. The data is kept; every close repeats the error."""

    upload: Upload
    error: XnatfsError
    before: Upload | None = None


State = Reading | Writing | Sealed | Failed


@dataclass(frozen=True, slots=True)
class Handle:
    """One descriptor of the kernel."""

    flags: int
    # Thread group of the process that opened it; 0 when unknown.
    opener: int
    # Its opener has closed it and nothing was written since: its release is on the way.
    closed: bool = False

    @property
    def writes(self) -> bool:
        """Whether it may write."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY

    def is_inherited_by(self, pid: int) -> bool:
        """Whether a process closes only a copy of it: the opener, another one, still lives."""
        return bool(pid) and self.opener not in (0, pid) and _lives(self.opener)


@dataclass(frozen=True, slots=True)
class SpoolSource:
    """Reads what was just sent from the spool's copy, which outlives its folder."""

    upload: Upload

    def read(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """Bytes of the spool's copy; local, so nothing is waited for."""
        del waiter
        return self.upload.read(offset, size)

    def close(self) -> None:
        """The upload closes itself with its last reference."""


def pieces(source: Source, size: int, waiter: Waiter) -> Iterator[bytes]:
    """The first ``size`` bytes of a source, 1 MiB at a time."""
    for offset in range(0, size, MIB):
        yield source.read(offset, min(MIB, size - offset), waiter)
        waiter.progress()


def _lives(pid: int) -> bool:
    """Whether a process exists (a zombie, which has closed its files, does not count)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False
