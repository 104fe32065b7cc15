"""What became of a mount's work: what it sent, and what it could not read."""

from __future__ import annotations

import logging
import threading
import time

from xnatfs.errors import XnatfsError
from xnatfs.fs.values import ReadFailure

log = logging.getLogger(__name__)


class Tally:
    """Counts what a mount sent, and names what it could not read.

    Threading: ``_mu`` guards everything; the counts are read without it.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._failures: dict[str, ReadFailure] = {}
        # Files and bytes that the server has taken.
        self.sent_files = 0
        self.sent_bytes = 0

    def sent(self, size: int) -> None:
        """The server has taken a file of ``size`` bytes."""
        with self._mu:
            self.sent_files += 1
            self.sent_bytes += size

    def read_failed(self, path: str, error: XnatfsError) -> None:
        """A read failed in the end: counted and named, and logged once for each cause.

        A program that reads again, and the kernel's readahead, make many requests of one read.
        """
        with self._mu:
            known = self._failures.get(path)
            self._failures[path] = ReadFailure(path, str(error), time.time())
        if known is None or known.reason != str(error):
            log.error("cannot read %s: %s", path, error)

    def read_failures(self) -> list[ReadFailure]:
        """The files that could not be read, in the order of the first failures."""
        with self._mu:
            return list(self._failures.values())
