"""What readers wait for and what is on its way: the small parts of an Incoming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from xnatfs.cache.claims import Claims
from xnatfs.cache.content import Content, Verdict
from xnatfs.config import MIB
from xnatfs.errors import XnatfsError

# A block further ahead of a transfer than this gets a transfer of its own: somebody jumped into a
# window that may take long to get there.
_NEAR = 8 * MIB


@dataclass(frozen=True, slots=True)
class Rules:
    """What holds for all downloads of a mount."""

    # Seconds without progress after which a transfer fails.
    idle_s: float
    # Let contradictions of the right size through.
    lenient: bool
    # Who of the processes that share the store fetches what.
    claims: Claims


class Witness(Protocol):
    """A reader, as far as it is told that what it was given is not true."""

    def retract(self, blocks: set[int], error: XnatfsError) -> None:
        """The blocks turned out damaged: whoever was given one of them must hear of it."""


class Transfer:
    """One range on its way; its Incoming's lock guards the fields."""

    __slots__ = ("at", "end", "ended", "error", "start")

    def __init__(self, start: int, end: int) -> None:
        self.start = start
        self.end = end
        # Start of the next block that nobody has got yet.
        self.at = start
        self.ended = False
        self.error: XnatfsError | None = None

    def brings(self, start: int) -> bool:
        """Whether the block that starts there is still to come."""
        return self.at <= start < self.end


def on_their_way(lacking: list[int], transfers: list[Transfer], block: int) -> dict[int, Transfer]:
    """Which transfers will bring some of the blocks soon, by block."""
    return {
        index: carrier
        for index in lacking
        for carrier in transfers
        if carrier.brings(index * block) and index * block - carrier.at <= _NEAR
    }


class Demand:
    """What one waiting read needs, and what has come of it; its Incoming's lock guards it."""

    __slots__ = ("blocks", "pieces")

    def __init__(self, blocks: range) -> None:
        self.blocks = blocks
        # Whole blocks, straight from the transfer: a store without room may not keep them.
        self.pieces: dict[int, bytes] = {}

    def lacking(self, content: Content) -> list[int]:
        """Blocks that are neither in the content nor among the pieces."""
        block = content.block
        start, end = self.blocks[0] * block, (self.blocks[-1] + 1) * block
        missing = blocks_of(content.missing(start, end - start), block)
        return [index for index in missing if index not in self.pieces]

    def take(self, start: int, piece: bytes, block: int) -> None:
        """Blocks have come, the first of which begins at ``start``: keep what is wanted."""
        came = span(start, len(piece), block)
        for index in range(max(came.start, self.blocks.start), min(came.stop, self.blocks.stop)):
            at = index * block - start
            self.pieces[index] = piece[at : at + block]

    def assemble(self, content: Content, offset: int, size: int) -> bytes | None:
        """The bytes from pieces and content; None when a block is missing after all."""
        block = content.block
        parts = []
        for index in self.blocks:
            skip = max(offset - index * block, 0)
            stop = min(offset + size - index * block, block)
            whole = self.pieces.get(index)
            part = (
                content.read(index * block + skip, stop - skip)
                if whole is None
                else whole[skip:stop]
            )
            if part is None:
                return None
            parts.append(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


class Arrivals:
    """What has come of a content, and when to judge the whole; its Incoming's lock guards it.

    Once everything has come no read is answered until the whole was judged: so the last block is
    withheld.
    """

    __slots__ = ("_content", "_lacking", "_putting", "_taken", "judging")

    def __init__(self, content: Content) -> None:
        self._content = content
        # Pieces that came and are not in the store yet.
        self._putting = 0
        # 1 for each block that has not come.
        self._lacking = self._absent()
        # Read without the lock on the way of hits, where being late by one read does no harm.
        self.judging = self._all_came()
        # Whether somebody judges.
        self._taken = False

    def came(self, start: int, length: int) -> None:
        """Blocks have come; the store gets them now."""
        self._mark(start, length, 0)
        self._putting += 1
        self.judging = self.judging or self._all_came()

    def put(self, start: int, length: int, *, kept: bool) -> None:
        """The store has got them, or refused them as damaged."""
        self._putting -= 1
        if not kept:
            self._mark(start, length, 1)
            self.judging = self._taken

    def take_up(self) -> bool:
        """Whether it is time to judge the whole, and the caller is the one to do it."""
        due = self.judging and not self._taken and not self._putting
        self._taken = self._taken or due
        return due

    def settle(self) -> None:
        """The whole was judged; it may be that something is lacking again."""
        self._lacking = self._absent()
        self._taken = False
        self.judging = self._all_came()

    def _all_came(self) -> bool:
        return 1 not in self._lacking and self._content.verdict is Verdict.OPEN

    def _absent(self) -> bytearray:
        size, block = self._content.size, self._content.block
        lacking = bytearray(-(-size // block))
        for start, length in self._content.missing(0, size):
            gap = span(start, length, block)
            lacking[gap] = b"\1" * (gap.stop - gap.start)
        return lacking

    def _mark(self, start: int, length: int, lacks: int) -> None:
        blocks = span(start, length, self._content.block)
        self._lacking[blocks] = bytes([lacks]) * (blocks.stop - blocks.start)


def blocks_of(gaps: list[tuple[int, int]], block: int) -> list[int]:
    """Numbers of the blocks in gaps.

    Args:
        gaps: (start, length) on block borders, bytes.
        block: bytes.
    """
    spans = (span(start, length, block) for start, length in gaps)
    return [index for gap in spans for index in range(gap.start, gap.stop)]


def span(start: int, length: int, block: int) -> slice:
    """The numbers of the blocks in which bytes lie."""
    return slice(start // block, -(-(start + length) // block))


def runs_of(indexes: list[int]) -> list[tuple[int, int]]:
    """Ascending block numbers as runs of neighbours: (first, behind the last)."""
    runs: list[tuple[int, int]] = []
    for index in indexes:
        first = runs.pop()[0] if runs and runs[-1][1] == index else index
        runs.append((first, index + 1))
    return runs
