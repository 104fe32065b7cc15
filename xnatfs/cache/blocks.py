"""Where each block of a big content is, what it should be, and whether this process may trust it.

A byte or a word for each block, so that a file of 100 GB costs megabytes and not gigabytes.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator

from xnatfs.cache import layout
from xnatfs.cache.content import BLOCK, Verdict
from xnatfs.cache.layout import PartMap, block_count

# Places. Others are numbers of parts: their descriptors lie in ``fds`` from here on.
NOWHERE = 0
MEMORY = 1
_FIRST_PART = 2
_MOST_PARTS = 250
_ABSENT_RUN = re.compile(rb"\0+")


class Blocks:
    """The blocks of one content between two drops; its content's lock guards everything.

    Args:
        size: of the content, bytes.
    """

    def __init__(self, size: int) -> None:
        self.count = block_count(size)
        self.place = bytearray(self.count)
        self.crc = array("I", bytes(4 * self.count))
        # 1: compared with its CRC, or written, by this process.
        self.trusted = bytearray(self.count)
        # 1: its CRC must not change: the whole has a verdict, or the block was lost.
        self.known = bytearray(self.count)
        # Bytes of blocks, while a network disk may still refuse what was written.
        self.held: dict[int, memoryview] = {}
        self.verdict = Verdict.OPEN
        self.modified = ""
        self.on_disk = True
        # Number of our own part; NOWHERE until the first block is put.
        self.own = NOWHERE
        self._fds: list[int] = []
        # The maps of the parts, for what is in several.
        self._maps: list[PartMap | None] = []

    def fd(self, place: int) -> int:
        """The descriptor of a part."""
        return self._fds[place - _FIRST_PART]

    def number(self, fd: int) -> int:
        """The place that a descriptor stands for; NOWHERE when there are too many."""
        if fd not in self._fds:
            if len(self._fds) == _MOST_PARTS:
                return NOWHERE
            self._fds.append(fd)
            self._maps.append(None)
        return self._fds.index(fd) + _FIRST_PART

    def adopt(self, part: PartMap, fd: int) -> int:
        """Learn what a part has; returns its number. What contradicts what is here is left."""
        number = self.number(fd)
        if number == NOWHERE or not self._fits(part):
            return number
        self._maps[number - _FIRST_PART] = part
        if part.verdict > self.verdict:
            self.verdict = part.verdict
            self.crc = array("I", part.crcs)
            self.known = bytearray(b"\1") * self.count
        for index in _places(part.states, layout.HERE):
            self._take(index, part.crcs[index], number)
        self.modified = self.modified or part.modified
        return number

    def _fits(self, part: PartMap) -> bool:
        if part.verdict > self.verdict:
            return self._agrees(part)
        if self.verdict is not Verdict.OPEN:
            # Each block is compared with what the verdict was made on.
            return True
        return not self.modified or not part.modified or self.modified == part.modified

    def _agrees(self, part: PartMap) -> bool:
        here = (index for index, place in enumerate(self.place) if place != NOWHERE)
        return all(part.crcs[index] == self.crc[index] for index in here)

    def _take(self, index: int, crc: int, number: int) -> None:
        # With a verdict only the very bytes count that it was made on.
        if self.place[index] == NOWHERE and not (self.known[index] and self.crc[index] != crc):
            self.place[index], self.crc[index], self.trusted[index] = number, crc, 0

    def differs(self, index: int, crc: int) -> bool:
        """Whether a block that comes is not what it has to be."""
        return bool(self.known[index]) and self.crc[index] != crc

    def put(self, index: int, crc: int, place: int) -> None:
        """A block has come."""
        self.place[index], self.crc[index], self.trusted[index] = place, crc, 1

    def lose(self, index: int, place: int) -> None:
        """A block is damaged where it is; another part may have it."""
        if self.place[index] != place:
            return
        self.place[index] = NOWHERE
        self.held.pop(index, None)
        # It may have gone into a digest already: what replaces it must be the same.
        self.known[index] = 1
        for at, part in enumerate(self._maps):
            number = at + _FIRST_PART
            if number != place and part is not None and part.states[index] == layout.HERE:
                self._take(index, part.crcs[index], number)
        if place >= _FIRST_PART and (part := self._maps[place - _FIRST_PART]) is not None:
            states = bytearray(part.states)
            states[index] = layout.ABSENT
            self._maps[place - _FIRST_PART] = PartMap(
                part.verdict, bytes(states), part.crcs, part.modified
            )

    def mark(self, verdict: Verdict) -> None:
        """The whole is here and was compared with the catalog."""
        self.verdict = verdict
        self.known = bytearray(b"\1") * self.count

    def absent(self, first: int, stop: int) -> list[tuple[int, int]]:
        """Runs of blocks from ``first`` up to ``stop`` that are nowhere: (first, behind)."""
        return [found.span() for found in _ABSENT_RUN.finditer(self.place, first, stop)]

    def in_memory(self, first: int, stop: int) -> list[int]:
        """Blocks from ``first`` up to ``stop`` that went to memory."""
        found = []
        at = first - 1
        while (at := self.place.find(MEMORY, at + 1, stop)) >= 0:
            found.append(at)
        return found

    def checksums(self) -> dict[int, int]:
        """CRC32 of the blocks that are or were here."""
        return {
            index: self.crc[index]
            for index in range(self.count)
            if self.place[index] != NOWHERE or self.known[index]
        }

    def own_map(self) -> PartMap:
        """What the map of our own part tells."""
        states = self.place.translate(_only(self.own, layout.HERE))
        verdict = self.verdict
        if verdict is not Verdict.OPEN:
            # Every CRC is known then, wherever the block is.
            states = states.translate(_KNOWN_REST)
        return PartMap(verdict, bytes(states), array("I", self.crc), self.modified)


def _only(old: int, new: int) -> bytes:
    """A table for ``translate``: one value becomes another, the rest 0."""
    return bytes(new if value == old else 0 for value in range(256))


_KNOWN_REST = bytes([layout.KNOWN, *range(1, 256)])


def _places(states: bytes, state: int) -> Iterator[int]:
    at = -1
    while (at := states.find(state, at + 1)) >= 0:
        yield at


def runs(size: int, start: int, end: int) -> tuple[int, int]:
    """The blocks that bytes ``start`` up to ``end`` lie in: (first, behind the last)."""
    return start // BLOCK, min(-(-end // BLOCK), block_count(size))
