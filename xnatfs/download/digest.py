"""The MD5 of a large file, computed while it arrives, and what follows from it."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable

from xnatfs.cache.content import Content, Verdict
from xnatfs.config import MIB
from xnatfs.download.comparison import Comparison
from xnatfs.download.sinks import Fingerprint
from xnatfs.model.versions import Version

# How much is hashed for each byte that arrives: enough to catch up behind a reader that walks,
# little enough not to hold up the transfer on whose thread it happens.
_CATCH_UP = 4
# Read from the store and hashed at once.
_STEP = MIB


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

    def advance(self, arrived: int) -> None:
        """Hash some of what is here, after so many bytes have come."""
        if self._mu.acquire(blocking=False):
            try:
                until = self._at + _CATCH_UP * arrived
                while self._at < until and self._step():
                    pass
            finally:
                self._mu.release()

    def finish(self, progress: Callable[[], None]) -> str:
        """Hash the rest.

        Args:
            progress: called after each step.

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
        """Hash a piece; False when there is none."""
        gaps = self._content.missing(self._at, _STEP)
        here = gaps[0][0] - self._at if gaps else _STEP
        piece = self._content.read(self._at, here) if here > 0 else None
        if not piece:
            return False
        self._md5.update(piece)
        self._at += len(piece)
        return True


def judge(
    version: Version,
    content: Content,
    running: RunningDigest,
    comparison: Comparison,
    download_again: Callable[[], None],
    progress: Callable[[], None],
) -> set[int]:
    """Compare a complete content with the catalog and mark it; on a mismatch download it again.

    Args:
        version: what the catalog says.
        content: all of it is here.
        running: how far its MD5 is.
        comparison: what earlier downloads gave.
        download_again: drops the content and fills it again; begins the MD5 anew.
        progress: called after each block.

    Returns:
        Blocks that a first download had brought damaged. Nothing is marked when a block was lost
        meanwhile (no room, damaged on disk): the content is judged when it is complete again.

    Raises:
        Contradiction, ContentProblem: see Comparison.judge.
        XnatfsError: of ``download_again``.
    """
    before: dict[int, int] = {}
    while True:
        digest = running.finish(progress) if version.digest else ""
        if version.digest and not digest:
            return set()
        verdict = comparison.judge(Fingerprint(version.size, digest))
        if verdict is not Verdict.OPEN:
            break
        before = before or content.checksums()
        download_again()
    if verdict is Verdict.CONTRADICTS:
        content.mark_contradicting()
    else:
        content.mark_verified()
    after = content.checksums()
    return {index for index, crc in before.items() if after.get(index, crc) != crc}
