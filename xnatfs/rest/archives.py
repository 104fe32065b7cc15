"""A stored zip that is made while it is sent: the body of an ``extract=true`` upload (R§4.3).

Java's stream reader needs size and CRC ahead of stored content, so every file is read twice: for
its CRC, and to be sent. Nothing but the table of entries is held in memory.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from xnatfs.rest.bodies import pieces

_FOUR_GIB = 0xFFFFFFFF
_ENTRY = "<4sHHHHHHLLLHHHHHLL"
_END = "<4sHHHHLLH"
_END_64 = "<4sQHHLLQQQQ"
_LOCATOR_64 = "<4sLQL"
# Fixed parts of a local header and of its zip64 field, bytes.
_LOCAL_SIZE, _EXTRA_SIZE = 30, 20
# Small files are sent together in pieces of about this size. Bytes.
_PIECE = 1 << 18
# 45: zip64; 20: plain. Bit 11 of the flags: the name is UTF-8. 33: 1 January 1980.
_PLAIN, _ZIP64, _UTF8, _DATE = 20, 45, 0x800, 33


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive."""

    # Path below the resource's ``files``.
    path: str
    # Bytes.
    size: int
    # Opens the content at its start.
    open: Callable[[], BinaryIO]

    @property
    def _large(self) -> bool:
        return self.size >= _FOUR_GIB

    def local_size(self) -> int:
        """Length of the header before the content."""
        return _LOCAL_SIZE + len(self.path.encode()) + (_EXTRA_SIZE if self._large else 0)

    def local(self, crc: int) -> bytes:
        """The header before the content."""
        entry = zipfile.ZipInfo(self.path)
        entry.CRC, entry.file_size, entry.compress_size = crc, self.size, self.size
        return entry.FileHeader(zip64=self._large)

    def central_size(self, start: int) -> int:
        """Length of the row in the table at the end."""
        return struct.calcsize(_ENTRY) + len(self.path.encode()) + len(self._extra(start))

    def central(self, crc: int, start: int) -> bytes:
        """The row in the table at the end, for content whose header begins at ``start``."""
        name, extra = self.path.encode(), self._extra(start)
        version = _ZIP64 if extra else _PLAIN
        shown = _FOUR_GIB if self._large else self.size
        fixed = struct.pack(
            _ENTRY,
            b"PK\x01\x02",
            version | 3 << 8,
            version,
            0 if self.path.isascii() else _UTF8,
            zipfile.ZIP_STORED,
            0,
            _DATE,
            crc,
            shown,
            shown,
            len(name),
            len(extra),
            0,
            0,
            0,
            0o600 << 16,
            min(start, _FOUR_GIB),
        )
        return fixed + name + extra

    def _extra(self, start: int) -> bytes:
        sizes = (self.size, self.size) if self._large else ()
        far = (start,) if start >= _FOUR_GIB else ()
        numbers = (*sizes, *far)
        return struct.pack(f"<HH{len(numbers)}Q", 1, 8 * len(numbers), *numbers) if numbers else b""


def length(entries: Sequence[Entry]) -> int:
    """The length of an archive of these files, bytes."""
    start = table = 0
    for entry in entries:
        table += entry.central_size(start)
        start += entry.local_size() + entry.size
    return start + table + len(_end(len(entries), start, table))


def content(entries: Sequence[Entry]) -> Generator[bytes, None, None]:
    """The archive, in pieces.

    Raises: Conflict: a file is shorter than announced. DiskFault.
    """
    held = bytearray()
    start = 0
    table = bytearray()
    for entry in entries:
        with entry.open() as file:
            crc = 0
            for piece in pieces(file, entry.size):
                crc = zlib.crc32(piece, crc)
            file.seek(0)
            table += entry.central(crc, start)
            held += entry.local(crc)
            for piece in pieces(file, entry.size):
                held += piece
                if len(held) >= _PIECE:
                    yield bytes(held)
                    held.clear()
        start += entry.local_size() + entry.size
    yield bytes(held + table + _end(len(entries), start, len(table)))


def _end(count: int, start: int, table: int) -> bytes:
    """What stands behind the table of ``count`` rows, which begins at ``start``."""
    end = b""
    if start + table >= _FOUR_GIB:
        end += struct.pack(
            _END_64, b"PK\x06\x06", 44, _ZIP64, _ZIP64, 0, 0, count, count, table, start
        )
        end += struct.pack(_LOCATOR_64, b"PK\x06\x07", 0, start + table, 1)
    return end + struct.pack(
        _END, b"PK\x05\x06", 0, 0, count, count, table, min(start, _FOUR_GIB), 0
    )
