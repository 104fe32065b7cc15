"""The MD5 of a large file, computed while it arrives."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from xnatfs.cache.content import Content

# Blocks hashed with each one that arrives: enough to catch up behind a reader that walks, little
# enough not to hold up the transfer on whose thread it happens.
_STEP = 4


class RunningDigest:
    """The MD5 of a content as far as it is here without a gap from its start.

    Threading: ``_mu`` guards the state; it is held while blocks are read from the store and
    hashed. ``advance`` goes away when another thread is at it.
    """

    def __init__(self, content: Content) -> None:
        self._content = content
        self._mu = threading.Lock()
        self._start_over()

    def _start_over(self) -> None:
        self._md5 = hashlib.md5(usedforsecurity=False)
        self._at = 0

    def advance(self) -> None:
        """Hash some of what is here."""
        if self._mu.acquire(blocking=False):
            try:
                for _ in range(_STEP):
                    if not self._step():
                        return
            finally:
                self._mu.release()

    def finish(self, progress: Callable[[], None]) -> str:
        """Hash the rest.

        Args:
            progress: called after each block.

        Returns:
            MD5 in lower-case hex; "" when a block is missing.
        """
        with self._mu:
            while self._step():
                progress()
            return self._md5.hexdigest() if self._at >= self._content.size else ""

    def reset(self) -> None:
        """Begin again, for other bytes."""
        with self._mu:
            self._start_over()

    def _step(self) -> bool:
        if self._at >= self._content.size:
            return False
        if self._content.missing(self._at, 1):
            return False
        piece = self._content.read(self._at, self._content.block)
        if piece is None:
            return False
        self._md5.update(piece)
        self._at += len(piece)
        return True
