"""Where blocks go when the disk does not take them: bounded memory, oldest out first."""

from __future__ import annotations

import threading
from collections import OrderedDict

from xnatfs.config import MIB

# Enough for eight small contents or for the windows of several readers, and no more: on a node
# where the disk is full, memory is usually short too.
MOST = 64 * MIB


class Memory:
    """Blocks by (owner, block number).

    Args:
        most: bytes.

    Threading: ``_mu`` guards everything.
    """

    def __init__(self, most: int = MOST) -> None:
        self._most = most
        self._mu = threading.Lock()
        self._blocks: OrderedDict[tuple[int, int], bytes] = OrderedDict()
        self._used = 0

    def put(self, owner: int, index: int, block: bytes) -> None:
        """Keep a block; others may have to go for it."""
        with self._mu:
            before = self._blocks.pop((owner, index), b"")
            self._blocks[owner, index] = block
            self._used += len(block) - len(before)
            while self._used > self._most:
                self._used -= len(self._blocks.popitem(last=False)[1])

    def get(self, owner: int, index: int) -> bytes | None:
        """A block, or None if it had to go."""
        with self._mu:
            block = self._blocks.get((owner, index))
            if block is not None:
                self._blocks.move_to_end((owner, index))
            return block

    def forget(self, owner: int) -> None:
        """Drop all blocks of an owner."""
        with self._mu:
            for key in [key for key in self._blocks if key[0] == owner]:
                self._used -= len(self._blocks.pop(key))

    def used(self) -> int:
        """Bytes kept."""
        with self._mu:
            return self._used
