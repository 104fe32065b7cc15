"""Bodies of uploads: multipart, in constant memory.

requests' own multipart takes twice the file in memory; an object with a length that hands out
large pieces takes none and a tenth of the CPU (measured).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator
from itertools import chain
from typing import BinaryIO

from xnatfs.errors import Conflict, DiskFault
from xnatfs.waiting import Waiter

# One read of the file, one write to the socket. Bytes.
PIECE = 1 << 20


def multipart_boundary() -> str:
    """A separator that no content contains."""
    return secrets.token_hex(16)


class Multipart:
    """A multipart/form-data body with one file in it.

    Args:
        boundary: from ``multipart_boundary``.
        filename: of the part; the server keeps it only where the address has no path (R§4.2).
        content: the file's bytes, in pieces.
        size: their number.
        waiter: told of progress with every piece.

    Threading: belongs to the thread that sends it.
    """

    def __init__(
        self, boundary: str, filename: str, content: Iterable[bytes], size: int, waiter: Waiter
    ) -> None:
        head = (
            f"--{boundary}\r\n"
            f'Content-Disposition: form-data; name="file"; filename="{filename}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        ).encode()
        tail = f"\r\n--{boundary}--\r\n".encode()
        self._length = len(head) + size + len(tail)
        self._waiter = waiter
        self._pieces = chain((head,), content, (tail,))

    def __len__(self) -> int:
        return self._length

    def read(self, size: int = -1, /) -> bytes:  # noqa: ARG002 -- pieces are as large as ours
        """The next piece, whatever size was asked for; b"" at the end.

        Raises: Conflict when the file is shorter than announced, DiskFault, and what the
            waiter raises.
        """
        self._waiter.progress()
        self._waiter.check("an upload")
        # An empty piece would be the end of the body.
        return next(filter(None, self._pieces), b"")


def pieces(file: BinaryIO, size: int) -> Iterator[bytes]:
    """Exactly ``size`` bytes of a file, in pieces.

    Raises: Conflict when it has fewer, DiskFault.
    """
    left = size
    while left:
        try:
            piece = file.read(min(PIECE, left))
        except OSError as error:
            raise DiskFault(f"cannot read what is to be uploaded: {error.strerror}") from error
        if not piece:
            raise Conflict(f"what is to be uploaded became shorter by {left} bytes meanwhile")
        left -= len(piece)
        yield piece
