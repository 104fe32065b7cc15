"""What readers wait for and what is on its way: the small parts of an Incoming."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from xnatfs.cache.claims import Claims
from xnatfs.cache.content import Content
from xnatfs.errors import XnatfsError


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


def blocks_of(gaps: list[tuple[int, int]], block: int) -> list[int]:
    """Numbers of the blocks in gaps.

    Args:
        gaps: (start, length) on block borders, bytes.
        block: bytes.
    """
    return [
        index
        for start, length in gaps
        for index in range(start // block, -(-(start + length) // block))
    ]


def runs_of(indexes: list[int]) -> list[tuple[int, int]]:
    """Ascending block numbers as runs of neighbours: (first, behind the last)."""
    runs: list[tuple[int, int]] = []
    for index in indexes:
        first = runs.pop()[0] if runs and runs[-1][1] == index else index
        runs.append((first, index + 1))
    return runs
