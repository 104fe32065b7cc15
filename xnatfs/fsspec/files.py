"""One open file of the archive, as Python's io wants it: raw, to be put into a buffer."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from xnatfs.config import MIB
from xnatfs.fs.values import Caller
from xnatfs.fsspec.errors import translated
from xnatfs.waiting import Waiter

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer, WriteableBuffer

    from xnatfs.fs.filesystem import FileSystem

# One call of the buffer to the file system; listings, store and readahead lie behind it.
BUFFER = MIB

# ``read()`` of a whole file asks for so much at a time.
_PIECE = 8 * MIB

# mode of open() → flags of the operation
MODES = {
    "rb": os.O_RDONLY,
    "wb": os.O_WRONLY | os.O_CREAT | os.O_TRUNC,
    "xb": os.O_WRONLY | os.O_CREAT | os.O_EXCL,
    "ab": os.O_WRONLY | os.O_CREAT,
    "r+b": os.O_RDWR,
}


class RawFile(io.RawIOBase):
    """An open file.

    What was written is on the server when ``close`` returns; its error is raised there. In a
    forked child it is dead.

    Args:
        fs: where it lies.
        path: by names.
        mode: one of ``MODES``.
        waiting: makes the limits of each wait.

    Threading: as with Python's own raw files, the buffer around it is the lock.
    """

    def __init__(self, fs: FileSystem, path: str, mode: str, waiting: Callable[[], Waiter]) -> None:
        super().__init__()
        self.name = path
        self.mode = mode
        self._fs = fs
        self._waiting = waiting
        self._process = os.getpid()
        self._writes = mode != "rb"
        self._place = 0
        flags = MODES[mode]
        if flags & os.O_CREAT:
            opened = fs.create(path, flags, 0o644, Caller(), waiting())
        else:
            opened = fs.open(path, flags, Caller(), waiting())
        self._handle: int | None = opened.handle
        if mode in ("wb", "xb"):
            # So that a file which is closed without a word is sent too, and says how that went.
            fs.truncate(path, 0, opened.handle, waiting())
        elif mode == "ab":
            self._place = self.size

    @property
    def size(self) -> int:
        """Bytes."""
        return self._fs.search.size(self._living())

    def readable(self) -> bool:
        """As with any file."""
        return self.mode in ("rb", "r+b")

    def writable(self) -> bool:
        """As with any file."""
        return self._writes

    def seekable(self) -> bool:
        """Always."""
        return True

    @translated
    def seek(self, offset: int, whence: int = io.SEEK_SET, /) -> int:
        """As with any file."""
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._place}.get(whence)
        place = offset + (self.size if start is None else start)
        if place < 0:
            raise ValueError(f"cannot seek to {place}")
        self._place = place
        return place

    def tell(self) -> int:
        """As with any file."""
        return self._place

    @translated
    def readinto(self, buffer: WriteableBuffer, /) -> int:
        """Fill the buffer; fewer bytes only at the end of the file."""
        view = memoryview(buffer).cast("B")
        data = self._read(len(view))
        view[: len(data)] = data
        return len(data)

    @translated
    def readall(self) -> bytes:
        """The rest of the file."""
        pieces = []
        while piece := self._read(_PIECE):
            pieces.append(piece)
        return b"".join(pieces)

    def _read(self, size: int) -> bytes:
        if not self.readable():
            raise io.UnsupportedOperation("not open for reading")
        data = self._fs.read(self._living(), size, self._place, self._waiting())
        self._place += len(data)
        return data

    @translated
    def write(self, data: ReadableBuffer, /) -> int:
        """Write all of it, into the spool."""
        if not self._writes:
            raise io.UnsupportedOperation("not open for writing")
        view = bytes(data)
        self._fs.write(self._living(), view, self._place, self._waiting())
        self._place += len(view)
        return len(view)

    @translated
    def truncate(self, size: int | None = None, /) -> int:
        """Cut or lengthen the file."""
        length = self._place if size is None else size
        self._fs.truncate(self.name, length, self._living(), self._waiting())
        return length

    @translated
    def close(self) -> None:
        """Send what was written. Raises: what keeps it from the server; it stays in the spool."""
        handle, self._handle = self._handle, None
        super().close()
        if handle is None or os.getpid() != self._process:
            return
        try:
            if self._writes:
                self._fs.flush(handle, Caller(), self._waiting())
        finally:
            self._fs.release(handle, self._waiting())

    def _living(self) -> int:
        if self._handle is None or os.getpid() != self._process:
            raise ValueError(f"{self.name}: closed, or opened by the parent process")
        return self._handle


class Reader(io.BufferedReader):
    """A file that is read."""

    raw: RawFile

    @property
    def size(self) -> int:
        """Bytes; consumers of fsspec look for it."""
        return self.raw.size


def buffered(raw: RawFile, size: int) -> io.BufferedIOBase:
    """A buffer around a file.

    Args:
        raw: the file.
        size: of the buffer, bytes.
    """
    if raw.mode == "r+b":
        return io.BufferedRandom(raw, size)
    return Reader(raw, size) if raw.readable() else io.BufferedWriter(raw, size)
