"""One file on its way: its bytes and its record, in a folder of the spool."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from xnatfs.config import MIB
from xnatfs.errors import Conflict, DiskFault, Protected, XnatfsError
from xnatfs.upload.body import Body
from xnatfs.upload.disk import local_disk, sync_file, sync_folder, write_all
from xnatfs.upload.record import RECORD_NAME, Base, Record, State, write_record

log = logging.getLogger(__name__)

BYTES_NAME = "bytes"

# Prefix of a folder that is being removed; a leading dot keeps it out of ``ls``.
LEAVING = ".gone-"


_READ = os.O_RDONLY | os.O_CLOEXEC


class Bound(Protocol):
    """What an upload asks of its spool: room for its bytes."""

    def reserve(self, size: int) -> None:
        """Count bytes before they are written. Raises NoSpace, DiskFault."""

    def give_back(self, size: int) -> None:
        """Count bytes less."""

    def forget(self, upload: Upload) -> None:
        """The upload is gone."""


class Upload:
    """One file on its way, from its first byte to the moment the server surely has it.

    While it may be written its file is held open; then it is opened for each use, so that
    thousands may wait. Once it is done its bytes can be read for as long as somebody has the
    object.

    Threading: ``_mu`` guards the descriptor, the size, the running MD5 and the record: reads and
    writes of one file exclude each other. The record is written to disk, and anything made
    durable, without the lock; ``_changing`` lets one transition pass at a time. ``size``,
    ``record`` and ``gone`` are read without the lock.
    """

    def __init__(self, bound: Bound, folder: Path, record: Record) -> None:
        """An upload that stands in ``folder``. Raises DiskFault."""
        self._bound = bound
        self._folder = folder
        self._record = record
        self._mu = threading.Condition()
        self._changing = False
        self._writable = record.state is State.OPEN
        self._gone = False
        self._fd = -1
        # Whether a record of it was made durable; all later ones must be then.
        self._durable = False
        # The version of it that the server holds already, when it is written on after a send.
        self._stored: Base | None = None
        # Whether the bytes are known to be those of the record's MD5.
        self._proven = False
        # MD5 of the first ``_hashed`` bytes: ready at the seal when they were written in order.
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashed = 0
        with local_disk(self._what):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(fd).st_size
        if self._writable:
            self._fd = fd
        else:
            os.close(fd)

    @property
    def folder(self) -> Path:
        """Its folder in the spool."""
        return self._folder

    @property
    def record(self) -> Record:
        """The record as it stands on disk."""
        return self._record

    @property
    def size(self) -> int:
        """Bytes, as written so far."""
        return self._size

    @property
    def gone(self) -> bool:
        """Whether it is done: nothing of it is left on disk."""
        return self._gone

    def read(self, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes; fewer only where the file ends.

        Raises: DiskFault.
        """
        pieces = []
        with self._mu, self._file() as fd:
            while size > 0 and (piece := os.pread(fd, size, offset)):
                pieces.append(piece)
                offset, size = offset + len(piece), size - len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def write(self, offset: int, data: bytes) -> int:
        """Write all of ``data``; the upload must be OPEN.

        Returns: its length in bytes.

        Raises: NoSpace, QuotaExceeded, DiskFault; a part of ``data`` may be written then.
        """
        with self._mu, self._changes_bytes() as fd:
            self._bound.reserve(offset + len(data) - self._size)
            self._size = max(self._size, offset + len(data))
            write_all(fd, data, offset)
            if offset < self._hashed:
                self._restart_md5()
            if offset == self._hashed:
                self._md5.update(data)
                self._hashed += len(data)
        return len(data)

    def truncate(self, length: int) -> None:
        """Cut, or lengthen with zeros; the upload must be OPEN.

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        with self._mu, self._changes_bytes() as fd:
            self._bound.reserve(length - self._size)
            self._size = max(self._size, length)
            os.ftruncate(fd, length)
            if length < self._size:
                self._measure(fd)
            if length < self._hashed:
                self._restart_md5()

    def fsync(self) -> None:
        """Make bytes and record survive a power loss; later records will, too.

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        with self._transition(), local_disk(self._what):
            self._durable = True
            sync_file(self._path)
            sync_file(self._folder / RECORD_NAME)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def seal(self) -> Record:
        """Nothing more is written for now: size and MD5 go into the record, state SEALED.

        Reads what was not hashed while it was written. A FAILED one is SEALED again.

        Raises: Conflict (it stays one), NoSpace, QuotaExceeded, DiskFault.
        """
        with self._transition():
            self._refuse_conflict()
            if self._record.md5:
                if self._record.state is State.FAILED:
                    self._write(state=State.SEALED)
            else:
                with self._mu:
                    self._writable = False
                try:
                    md5 = self._whole_md5()
                    self._write(state=State.SEALED, size=self._size, md5=md5)
                except BaseException:
                    with self._mu:
                        self._writable = self._record.state is State.OPEN
                    raise
                self._proven = True
                self.close()
            return self._record

    def resume(self) -> Record:
        """Make ready to be sent: it is what was sealed, and a FAILED one is SEALED again.

        Raises: Conflict (it stays one). Protected: it was never sealed, so it may be half a file.
            DiskFault: its bytes are not those that were sealed (a power loss, a failing disk).
        """
        with self._transition():
            self._refuse_conflict()
            record = self._record
            if not record.md5:
                raise Protected(
                    f"{record.target.labels} was not written to its end; "
                    f"xnatfs uploads export {record.id} saves what there is"
                )
            if not self._proven:
                if (self._size, self._whole_md5()) != (record.size, record.md5):
                    raise DiskFault(f"{self._what} {self._path} is not what was written there")
                self._proven = True
            if record.state is State.FAILED:
                self._write(state=State.SEALED)
            return self._record

    def reopen(self) -> None:
        """It is written again: SEALED or FAILED becomes OPEN.

        If the server has taken it meanwhile, that version is what the next one replaces. The
        caller sees to it that nobody is sending it.

        Raises: Conflict (it stays one), NoSpace, QuotaExceeded, DiskFault.
        """
        with self._transition():
            self._refuse_conflict()
            base = self._stored or self._record.base
            self._write(state=State.OPEN, size=0, md5="", base=base, last_error="")
            with self._mu, local_disk(self._what):
                if self._fd < 0:
                    self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
                self._writable = True
                self._proven = False

    def stored(self, version: Base) -> None:
        """The server has taken it as ``version``; its MD5 may still be owed."""
        self._stored = version

    def trouble(self, reason: str) -> None:
        """Sending it failed for now: count the attempt and remember why; the state stays.

        None of ``trouble``, ``fail`` and ``conflict`` raises: a record that cannot be written
        leaves the one before on disk, by which the next process looks before it sends.
        """
        self._note(self._record.state, reason)

    def fail(self, reason: str) -> None:
        """Give up: state FAILED, with the reason."""
        self._end(State.FAILED, reason)

    def conflict(self, reason: str) -> None:
        """Somebody else's version is there: state CONFLICT, with the reason."""
        self._end(State.CONFLICT, reason)

    def done(self) -> None:
        """Remove it from the spool: the server surely has it, or nobody wants it.

        Never raises: what cannot be removed is found to be on the server by the next process.
        """
        with self._transition():
            if self._gone:
                return
            self._gone = True
            with self._mu:
                self._writable = False
                # Held open from here to the last reference: whoever has the file open reads on.
                with suppress(OSError):
                    self._fd = self._fd if self._fd >= 0 else os.open(self._path, _READ)
            leaving = self._folder.with_name(LEAVING + self._folder.name)
            try:
                # In one step: a folder that lost its record but not its bytes would be a riddle.
                os.rename(self._folder, leaving)
                shutil.rmtree(leaving)
            except OSError as error:
                log.warning("cannot remove %s from the spool: %s", self._folder, error)
        self._bound.forget(self)

    def open_body(self, on_read: Callable[[], None] | None = None) -> BinaryIO:
        """The bytes for a transfer, from the start; the caller closes it.

        Args:
            on_read: called after each piece that was read.

        Raises: DiskFault.
        """
        with local_disk(self._what):
            return Body(self._path, on_read)

    def settle_in(self, place: Path) -> None:
        """Rename its folder to ``place``. Raises OSError."""
        os.rename(self._folder, place)
        self._folder = place

    def close(self) -> None:
        """Let go of the descriptor; the next use opens it again."""
        with self._mu:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

    @property
    def _path(self) -> Path:
        return self._folder / BYTES_NAME

    @property
    def _what(self) -> str:
        return f"the spool copy of {self._record.target.labels}"

    @contextmanager
    def _file(self) -> Iterator[int]:
        """The descriptor, or one for this use. ``_mu`` is held."""
        with local_disk(self._what):
            if self._fd >= 0:
                yield self._fd
                return
            fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            try:
                yield fd
            finally:
                os.close(fd)

    @contextmanager
    def _changes_bytes(self) -> Iterator[int]:
        """The descriptor, for a change of the bytes. ``_mu`` is held."""
        if not self._writable:
            raise RuntimeError(f"{self._what} is changed while it is {self._record.state.value}")
        with self._file() as fd:
            try:
                yield fd
            except BaseException:
                # Part of it may be there: ask the file, and trust no running sum.
                self._restart_md5()
                self._measure(fd)
                raise

    def _measure(self, fd: int) -> None:
        counted, self._size = self._size, os.fstat(fd).st_size
        self._bound.give_back(counted - self._size)

    def _restart_md5(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashed = 0

    def _whole_md5(self) -> str:
        with self._mu, self._file() as fd:
            while self._hashed < self._size and (piece := os.pread(fd, MIB, self._hashed)):
                self._md5.update(piece)
                self._hashed += len(piece)
            return self._md5.hexdigest()

    @contextmanager
    def _transition(self) -> Iterator[None]:
        """One change of the record at a time; waits only as long as the local disk takes."""
        with self._mu:
            self._mu.wait_for(lambda: not self._changing)
            self._changing = True
        try:
            yield
        finally:
            with self._mu:
                self._changing = False
                self._mu.notify_all()

    def _write(self, **changes: Any) -> None:
        record = self._record.replaced(**changes)
        write_record(self._folder, record, durable=self._durable)
        self._record = record

    def _note(self, state: State, reason: str) -> None:
        with self._transition():
            if self._gone:
                return
            changes = {
                "state": state,
                "attempts": self._record.attempts + 1,
                "last_error": reason,
            }
            try:
                self._write(**changes)
            except XnatfsError as error:
                log.warning("%s: cannot note %r: %s", self._what, reason, error)
                self._record = self._record.replaced(**changes)

    def _end(self, state: State, reason: str) -> None:
        with self._mu:
            self._writable = False
        self._note(state, reason)
        self.close()

    def _refuse_conflict(self) -> None:
        if self._record.state is State.CONFLICT:
            raise Conflict(f"{self._record.target.labels}: {self._record.last_error}")
