"""Where the bytes of a transfer go: into blocks, or into one whole body.

Each belongs to one transfer, on one worker.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from xnatfs.errors import BadReply, ContentProblem, TransferBroken

# Fetches of one block that differ from what it was before; then the content is given up.
_DAMAGED = 3


class BlockSink:
    """Cuts a range on block borders and hands on whole blocks as they become complete.

    Args:
        start, end: of the range, bytes; ``start`` is on a block border, ``end`` on one or at the
            end of the file.
        block: bytes.
        hand_on: gets the start and the bytes of one or several blocks; False: they are damaged,
            bring them again.
        label: the path, for texts.
    """

    def __init__(
        self,
        start: int,
        end: int,
        block: int,
        hand_on: Callable[[int, bytes], bool],
        label: str,
    ) -> None:
        self.at = start
        self._end = end
        self._block = block
        self._hand_on = hand_on
        self._label = label
        self._rest = bytearray()
        self._damaged = 0

    def take(self, piece: bytes) -> None:
        """Take the next bytes.

        Raises:
            BadReply: more bytes than were asked for.
            TransferBroken: blocks were damaged; ``at`` is back at their start.
            ContentProblem: they were damaged again and again.
        """
        if self.at + len(piece) > self._end:
            raise BadReply(f"{self._label}: the reply has more bytes than were asked for")
        self._rest += piece
        self.at += len(piece)
        start = self.at - len(self._rest)
        length = len(self._rest)
        if self.at < self._end:
            length -= length % self._block
        if not length:
            return
        blocks = bytes(memoryview(self._rest)[:length])
        del self._rest[:length]
        if not self._hand_on(start, blocks):
            self._take_back(start)

    def _take_back(self, start: int) -> None:
        self._rest.clear()
        self.at = start
        self._damaged += 1
        if self._damaged >= _DAMAGED:
            raise ContentProblem(f"{self._label}: bytes from {start} arrive differently every time")
        raise TransferBroken(f"{self._label}: bytes from {start} were damaged on the way")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What two downloads are compared by."""

    # Bytes; -1 for a body that was cut off because it is longer than the file should be.
    length: int
    # MD5 in lower-case hex; "" when cut off.
    digest: str


class TooLong(ContentProblem):
    """The body is longer than the file should be; it was not read to its end."""


class WholeSink:
    """Keeps one whole body in memory.

    Args:
        size: bytes that the file should have; nothing beyond is kept.
        label: the path, for texts.
    """

    def __init__(self, size: int, label: str) -> None:
        self.at = 0
        self._size = size
        self._label = label
        self._pieces: list[bytes] = []
        self._md5 = hashlib.md5(usedforsecurity=False)

    def take(self, piece: bytes) -> None:
        """Take the next bytes. Raises TooLong."""
        self.at += len(piece)
        if self.at > self._size:
            raise TooLong(f"{self._label}: more than the {self._size} bytes of the listing")
        self._pieces.append(bytes(piece))
        self._md5.update(piece)

    def fingerprint(self) -> Fingerprint:
        """Of what has arrived."""
        if self.at > self._size:
            return Fingerprint(-1, "")
        return Fingerprint(self.at, self._md5.hexdigest())

    def body(self) -> bytes:
        """What has arrived."""
        return b"".join(self._pieces)
