"""Reading versions: hits straight from the store, misses through one transfer for all readers."""

from __future__ import annotations

from dataclasses import dataclass

from xnatfs.cache.store import Store
from xnatfs.config import Limits
from xnatfs.download.fetcher import Fetch
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter, Workers


@dataclass(frozen=True, slots=True)
class DownloadStats:
    """What came from the server and what went to readers, in this process."""

    # Bytes of bodies; bytes handed to readers.
    fetched: int
    served: int
    # Transfers started; attempts that had to be resumed or repeated.
    transfers: int
    retries: int


class Downloads:
    """The way in of one mount.

    Args:
        store: where content is kept.
        workers: the threads that fetch.
        limits: ``io_timeout_s`` is used: seconds without progress.
        verify: "strict", or "warn" to let contradictions of the right size through.
    """

    def __init__(self, store: Store, workers: Workers, limits: Limits, verify: str) -> None:
        raise NotImplementedError

    def open(self, version: Version, fetch: Fetch, label: str) -> Reader:
        """A reader of one version; asks the server nothing.

        Args:
            version: the pinned version.
            fetch: how to get its bytes.
            label: the path, for error texts and log lines.
        """
        raise NotImplementedError

    def stats(self) -> DownloadStats:
        """Counts of this process."""
        raise NotImplementedError


class Reader:
    """One opening of one version."""

    @property
    def verified(self) -> str:
        """``md5``, ``size`` or ``pending``, for ``user.xnat.verified``."""
        raise NotImplementedError

    def read(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """The true bytes from ``offset``, clamped to the end of the file; never short.

        Raises:
            Stale: the server has another version.
            Contradiction: the bytes contradict the catalog, twice the same way.
            ContentProblem: bytes handed out earlier turned out damaged.
            Interrupted, TimedOut: the waiter's; the transfer goes on for others.
            ServerProblem: the transfer failed for good.
        """
        raise NotImplementedError

    def close(self) -> None:
        """End the opening; a transfer nobody waits for is given up. Never raises."""
