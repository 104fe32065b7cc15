"""The states of an open file, what it is read from, and what it needs of its mount."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

from xnatfs.config import MIB
from xnatfs.errors import XnatfsError
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.versions import Version
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter


class Source(Protocol):
    """Where a file that is not being written is read from."""

    def read(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """Exactly the bytes asked for, up to the end of the file, or an error."""

    def close(self) -> None:
        """No more reads."""


class Ways(Protocol):
    """What an open file needs of its mount."""

    def open_source(self, resource: Item, version: Version, label: str) -> Source:
        """A way to read a version."""

    def new_upload(
        self,
        resource: Item,
        path: str,
        label: str,
        base: Version | None,
        old: Iterator[bytes] | None,
    ) -> Upload:
        """An upload in the spool, with ``old`` as its first content."""

    def patient(self) -> Waiter:
        """The waiter of work on a worker: as long as it moves."""

    def send(self, resource: Item, upload: Upload, waiter: Waiter) -> RemoteFile:
        """Send a sealed upload and see that the server holds it. On a worker."""

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run on a worker."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Nobody has changed it: the pinned version, from wherever it is read."""

    version: Version
    source: Source


@dataclass(frozen=True, slots=True)
class Writing:
    """Its content is in the spool; ``dirty``: the server has not got it yet."""

    upload: Upload
    dirty: bool = True


@dataclass(frozen=True, slots=True)
class Failed:
    """The server did not take it. The data is kept; every close repeats the error."""

    upload: Upload
    error: XnatfsError


State = Reading | Writing | Failed


@dataclass(frozen=True, slots=True)
class Handle:
    """One descriptor of the kernel."""

    flags: int
    # Thread group of the process that opened it; 0 when unknown.
    opener: int

    @property
    def writes(self) -> bool:
        """Whether it may write."""
        return self.flags & os.O_ACCMODE != os.O_RDONLY


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
