"""One version's bytes in the store: the face that readers and writers of the store see.

``Store.open`` returns one of these; ``small`` and ``big`` say how the bytes lie on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from enum import IntEnum

from xnatfs.config import KIB, MIB

# Content up to this size is one block: fetched, checked and published as a whole.
SMALL = 8 * MIB

# The unit in which larger content is fetched, checked and kept: what a random reader wants is
# not fetched in many times its size.
BLOCK = 64 * KIB


class Verdict(IntEnum):
    """What is known about the whole content; the number is what lies on disk."""

    # Not all there yet, or not compared yet.
    OPEN = 0
    # Equal to what the server's catalog says (without a digest there: of the right size).
    VERIFIED = 1
    # Contradicts the catalog, twice the same way; served under ``--verify warn`` only.
    CONTRADICTS = 2


class Content(ABC):
    """The bytes of one version, counted: open until ``close`` was called once for each open.

    Threading: every method may be called from any thread. ``read`` takes no lock across I/O.
    ``close`` must not run while another method of the same opening does.
    """

    # Bytes of the whole content.
    size: int
    # ``Last-Modified`` of the file that the bytes are of, "" when not known; for who fills it.
    modified = ""
    # Unit of ``missing`` and ``put``: BLOCK, or the size itself for small content.
    block: int

    @abstractmethod
    def read(self, offset: int, size: int) -> bytes | None:
        """The bytes from ``offset``, clamped to the end of the content.

        Returns:
            Exactly ``min(size, self.size - offset)`` bytes (b"" at or past the end), or None
            when they are not all here or were found damaged (the damaged block is dropped).
        """

    @abstractmethod
    def missing(self, offset: int, size: int) -> list[tuple[int, int]]:
        """What ``read`` lacks: ascending (start, length), on block borders, clamped to the end."""

    @abstractmethod
    def put(self, offset: int, piece: bytes) -> bool:
        """Keep complete blocks (the content's last one may be short); the piece may be kept.

        Never fails for want of room: what the disk does not take is kept in bounded memory, and
        may be missing again later. What is here already is not written again.

        Args:
            offset: a multiple of ``block``.
            piece: the bytes of whole blocks.

        Returns:
            False when a block differs from what it was before it was lost: one of the two was
            damaged on the way, and neither this block nor the rest of the piece is kept.
        """

    @abstractmethod
    def save(self) -> None:
        """Write down which blocks are here, for the next process; after a window, not a block.

        Blocks that a network file system turns out not to have taken are missing afterwards.
        """

    def checkpoint(self) -> None:
        """``save`` if that is worth it: much has come since, or some time has passed."""
        self.save()

    @abstractmethod
    def look(self) -> bool:
        """Look on disk again for what other processes have brought; whether all is here now.

        What contradicts the catalog is left to them.
        """

    @abstractmethod
    def complete(self) -> bool:
        """Whether every block is here."""

    @abstractmethod
    def checksums(self) -> dict[int, int]:
        """CRC32 by block number, of the blocks that are or were here since the last drop."""

    @property
    @abstractmethod
    def verdict(self) -> Verdict:
        """What is known about the whole."""

    @property
    def verified(self) -> bool:
        """Whether the whole content equals what the server's catalog says."""
        return self.verdict is Verdict.VERIFIED

    @property
    @abstractmethod
    def on_disk(self) -> bool:
        """False once blocks had to go to memory: fetch no more than the reader asks for."""

    @abstractmethod
    def mark_verified(self) -> None:
        """The whole is what it should be: others may be given it."""

    @abstractmethod
    def mark_contradicting(self) -> None:
        """Keep the whole although it contradicts the catalog (``--verify warn``)."""

    @abstractmethod
    def drop(self) -> None:
        """Forget the bytes, here and on disk; the content stays open and empty."""

    @abstractmethod
    def close(self) -> None:
        """End one opening. Never raises."""
