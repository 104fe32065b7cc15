"""The bytes of an upload as a transfer reads them."""

from __future__ import annotations

import io
from collections.abc import Callable


class Body(io.FileIO):
    """A file, unbuffered, that tells when it is read.

    Args:
        path: the file.
        on_read: called after each piece, so that whoever waits behind it sees that it moves.
    """

    def __init__(self, path: str, on_read: Callable[[], None] | None) -> None:
        super().__init__(path, "rb")
        self._on_read = on_read

    def read(self, size: int | None = -1, /) -> bytes:
        """The next ``size`` bytes at most; b"" at the end."""
        piece = super().read(-1 if size is None else size) or b""
        if self._on_read is not None:
            self._on_read()
        return piece
