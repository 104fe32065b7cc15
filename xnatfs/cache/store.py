"""The block store: content by version, shared by any number of processes of one user.

It knows no HTTP and no XNAT. Every promise rests on write-beside, rename and check; no lock on
disk is needed for correctness.
"""

from __future__ import annotations

from dataclasses import dataclass

from xnatfs.cache.content import BLOCK, SMALL, Content, Verdict
from xnatfs.config import StoreSettings
from xnatfs.model.versions import Version

__all__ = ["BLOCK", "SMALL", "Content", "Store", "StoreStats", "Verdict"]


@dataclass(frozen=True, slots=True)
class StoreStats:
    """What the store holds and did in this process."""

    # Bytes and files of this server's content, in memory too.
    bytes: int
    files: int
    # Openings that found the content complete; openings that did not.
    hits: int
    misses: int
    # Contents removed for size, age or room, in this process.
    evictions: int


class Store:
    """The content of one server.

    Args:
        settings: folder and bounds.
        server_key: name of the server's folder, safe as a file name.

    Raises:
        DiskFault, NoSpace, QuotaExceeded: the folder cannot be made.
    """

    def __init__(self, settings: StoreSettings, server_key: str) -> None:
        raise NotImplementedError

    def open(self, version: Version) -> Content:
        """The content of a version, empty if nothing is known; never evicted while open."""
        raise NotImplementedError

    def stats(self) -> StoreStats:
        """Counts; walks the folder."""
        raise NotImplementedError

    def forget(self, version: Version) -> None:
        """Drop a version's content, open or not."""

    def clear(self) -> None:
        """Drop everything of this server that is not open."""

    def verify(self) -> tuple[int, int]:
        """Read everything and drop what is damaged: (contents checked, contents damaged)."""
        raise NotImplementedError

    def close(self) -> None:
        """Write down what is known about open content. Never raises."""
