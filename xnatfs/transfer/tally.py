"""How far a transfer has come: what is shown while it runs, and what is said at its end."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from xnatfs.errors import XnatfsError


@dataclass(frozen=True, slots=True)
class Failure:
    """One file that did not make it."""

    path: str
    error: XnatfsError


@dataclass(slots=True)
class Tally:
    """The figures of one transfer.

    Threading: ``_mu`` guards the figures; whoever only shows them reads them without it.
    """

    # Files and bytes that are to be moved in all, as far as they are known.
    files: int = 0
    bytes: int = 0
    # Files and bytes that are where they should be; of these, files that were there before.
    done_files: int = 0
    done_bytes: int = 0
    here_files: int = 0
    failures: list[Failure] = field(default_factory=list)
    started: float = field(default_factory=time.monotonic)
    _mu: threading.Lock = field(default_factory=threading.Lock)

    def expect(self, size: int) -> None:
        """One file more is to be moved."""
        with self._mu:
            self.files += 1
            self.bytes += size

    def moved(self, size: int) -> None:
        """So many bytes of some file have moved; negative: they were lost, or do not count."""
        with self._mu:
            self.done_bytes += size

    def done(self, *, before: bool) -> None:
        """A file is where it should be; ``before``: it was there already."""
        with self._mu:
            self.done_files += 1
            self.here_files += before

    def failed(self, path: str, error: XnatfsError) -> None:
        """A file did not make it."""
        with self._mu:
            self.failures.append(Failure(path, error))

    @property
    def untried(self) -> int:
        """Files that neither arrived nor failed, at the end: it ended before them."""
        return self.files - self.done_files - len(self.failures)

    def summary(self) -> dict[str, Any]:
        """For ``--json``."""
        return {
            "files": self.files,
            "bytes": self.bytes,
            "done_files": self.done_files,
            "done_bytes": self.done_bytes,
            "here_files": self.here_files,
            "failed": [
                {"path": failure.path, "reason": str(failure.error)} for failure in self.failures
            ],
            "seconds": round(time.monotonic() - self.started, 3),
        }
