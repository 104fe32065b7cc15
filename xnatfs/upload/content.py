"""The bytes of one upload, in a file of the spool."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Protocol

from xnatfs.config import MIB
from xnatfs.upload.body import Body
from xnatfs.upload.disk import local_disk, write_all

BYTES_NAME = "bytes"


class Bound(Protocol):
    """What bytes ask of their spool: room."""

    def reserve(self, size: int) -> None:
        """Count bytes before they are written. Raises NoSpace, DiskFault."""

    def give_back(self, size: int) -> None:
        """Count bytes less."""


class Content:
    """The bytes of one upload and their MD5.

    While it may be written its file is held open; then it is opened for each use, so that
    thousands may wait. After ``keep_readable`` the bytes can be read for as long as somebody has
    the object, whatever becomes of the file's name.

    Args:
        bound: where room is asked for.
        folder: of the upload.
        what: for error texts.
        writable: whether it may be written now.

    Raises: DiskFault.

    Threading: ``_mu`` guards the descriptor, the size and the running MD5: reads and writes of
    one file exclude each other. ``size`` is read without the lock.
    """

    def __init__(self, bound: Bound, folder: Path, what: str, *, writable: bool) -> None:
        self._bound = bound
        self._path = f"{folder}/{BYTES_NAME}"
        self._what = what
        self._mu = threading.Lock()
        self._writable = writable
        self._fd = -1
        # MD5 of the first ``_hashed`` bytes: ready at the seal when they were written in order.
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._hashed = 0
        with local_disk(what):
            fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            self._size = os.fstat(fd).st_size
        if writable:
            self._fd = fd
        else:
            os.close(fd)

    @property
    def path(self) -> Path:
        """The file."""
        return Path(self._path)

    @property
    def size(self) -> int:
        """Bytes, as written so far."""
        return self._size

    def moved(self, folder: Path) -> None:
        """The upload's folder was renamed."""
        self._path = f"{folder}/{BYTES_NAME}"

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
        """Write all of ``data``; it must be writable.

        Returns: its length in bytes.

        Raises: NoSpace, QuotaExceeded, DiskFault; a part of ``data`` may be written then.
        """
        with self._mu, self._changes() as fd:
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
        """Cut, or lengthen with zeros; it must be writable.

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        with self._mu, self._changes() as fd:
            self._bound.reserve(length - self._size)
            self._size = max(self._size, length)
            os.ftruncate(fd, length)
            if length < self._size:
                self._measure(fd)
            if length < self._hashed:
                self._restart_md5()

    def md5(self) -> str:
        """MD5 of all bytes; reads what was not hashed while it was written.

        Raises: DiskFault.
        """
        with self._mu, self._file() as fd:
            while self._hashed < self._size and (piece := os.pread(fd, MIB, self._hashed)):
                self._md5.update(piece)
                self._hashed += len(piece)
            return self._md5.hexdigest()

    def let_write(self) -> None:
        """It may be written from now on. Raises DiskFault."""
        with self._mu, local_disk(self._what):
            if self._fd < 0:
                self._fd = os.open(self._path, os.O_RDWR | os.O_CLOEXEC)
            self._writable = True

    def end_writing(self) -> None:
        """It may not be written from now on."""
        with self._mu:
            self._writable = False

    def keep_readable(self) -> None:
        """Hold the file open: its name is about to go."""
        with self._mu:
            self._writable = False
            with suppress(OSError):
                if self._fd < 0:
                    self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)

    def open_body(self, on_read: Callable[[], None] | None) -> BinaryIO:
        """The bytes for a transfer, from the start; the caller closes it.

        Raises: DiskFault.
        """
        with self._mu, local_disk(self._what):
            # Through the descriptor where there is one: the name may be gone.
            place = f"/proc/self/fd/{self._fd}" if self._fd >= 0 else self._path
            return Body(place, on_read)

    def close(self) -> None:
        """Let go of the descriptor; the next use opens it again."""
        with self._mu:
            if self._fd >= 0:
                os.close(self._fd)
                self._fd = -1

    def __del__(self) -> None:
        if getattr(self, "_fd", -1) >= 0:
            os.close(self._fd)

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
    def _changes(self) -> Iterator[int]:
        """The descriptor, for a change of the bytes. ``_mu`` is held."""
        if not self._writable:
            raise RuntimeError(f"{self._what} is changed while it may not be")
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
