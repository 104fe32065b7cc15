"""Which windows of a large file to have on their way, from the reads that were made.

Pure: no clock, no threads, no I/O. A reader that walks gets windows that double from 1 to 64 MiB,
two of them ahead, so that it never waits for a second round trip; one that jumps gets nothing
beyond the blocks that it asked for, not even where two of its reads happen to meet; one that
stops is no longer followed, because windows are only asked for by reads.
"""

from __future__ import annotations

from collections import deque

from xnatfs.config import KIB, MIB

FIRST_WINDOW = MIB
LAST_WINDOW = 64 * MIB
# Windows ahead of the reader: the one that it will enter next, and one more in flight.
AHEAD = 2

# The kernel sends the pieces of its own readahead (128 KiB each, by several threads) out of
# order, and programs skip small gaps: a read this near to where a walk stands continues it.
_BACK = MIB
_FORWARD = 512 * KIB

# Reads that follow one another before that is a walk; one that begins at the start is one at once.
_STEPS = 2

# Several descriptors share one reader; each walks for itself. One more than this replaces the
# walk that was longest without a read.
_WALKS = 8


class _Walk:
    """One reader going through the file."""

    __slots__ = ("borders", "planned", "position", "steps", "window")

    def __init__(self, offset: int, position: int) -> None:
        # End of the furthest read.
        self.position = position
        # End of what was planned.
        self.planned = position
        # Size of the next window.
        self.window = FIRST_WINDOW
        # Starts of planned windows that the reader has not entered.
        self.borders: deque[int] = deque()
        self.steps = 0 if offset else _STEPS


class Readahead:
    """The policy for one file.

    Args:
        size: of the file, bytes.
        block: windows start and end on multiples of this, bytes.

    Threading: none of its own; the owner calls ``advance`` from one thread at a time.
    """

    def __init__(self, size: int, block: int) -> None:
        self._size = size
        self._block = block
        self._walks: deque[_Walk] = deque(maxlen=_WALKS)

    def advance(self, offset: int, size: int, most: int = LAST_WINDOW) -> list[tuple[int, int]]:
        """Note a read; say which windows to fetch beyond what the read itself needs.

        Args:
            offset: of the read, bytes.
            size: of the read, bytes.
            most: the largest window, bytes.

        Returns:
            New windows as (start, length), on block borders, clamped to the end of the file.
        """
        end = min(self._size, offset + size)
        if end <= offset:
            return []
        walk = self._find(offset)
        if walk is None:
            walk = _Walk(offset, end)
            self._walks.append(walk)
            return []
        self._walks.remove(walk)
        self._walks.append(walk)
        if end <= walk.position:
            # A late piece, or a second look at the same place: not a step forward.
            return []
        walk.position = end
        walk.steps += 1
        return self._plan(walk, most) if walk.steps >= _STEPS else []

    def _find(self, offset: int) -> _Walk | None:
        for walk in reversed(self._walks):
            if walk.position - _BACK <= offset <= walk.position + _FORWARD:
                return walk
        return None

    def _plan(self, walk: _Walk, most: int) -> list[tuple[int, int]]:
        while walk.borders and walk.borders[0] < walk.position:
            walk.borders.popleft()
        # What the read covers is fetched for the read itself.
        walk.planned = max(walk.planned, _up(walk.position, self._block))
        windows = []
        while len(walk.borders) < AHEAD and walk.planned < self._size:
            length = min(walk.window, most)
            stop = min(self._size, walk.planned + length)
            windows.append((walk.planned, stop - walk.planned))
            walk.borders.append(walk.planned)
            walk.planned = stop
            walk.window = min(2 * length, LAST_WINDOW)
        return windows


def _up(offset: int, block: int) -> int:
    return -(-offset // block) * block
