"""What waits in the spool folder of this user, of all mounts, alive or dead."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from xnatfs.config import SpoolSettings
from xnatfs.upload.record import Record
from xnatfs.upload.spool import Spool
from xnatfs.upload.upload import Upload


@dataclass(frozen=True, slots=True)
class Row:
    """One upload, as ``xnatfs uploads list`` shows it."""

    # Its name: the ID that the commands take.
    id: str
    folder: Path
    # None: the record cannot be read; ``problem`` says why.
    record: Record | None
    problem: str
    # Bytes on disk now.
    size: int
    # Seconds since it was begun.
    age_s: float
    # Mount point and process, for people.
    mount: str
    owner: str
    # "alive": its process works on it; "free": anyone of this account may take it; "unknown":
    # of another host, only by force (--take).
    standing: str


class Queue:
    """All uploads in a spool folder."""

    def __init__(self, settings: SpoolSettings) -> None: ...

    def rows(self, ids: Iterable[str] = ()) -> list[Row]:
        """All rows, or those of the ids; oldest first. Raises NotFound for an unknown id."""
        raise NotImplementedError

    def take(self, row: Row, spool: Spool, *, force: bool = False) -> Upload:
        """Take an upload into our own folder. Raises Protected (its owner may live)."""
        raise NotImplementedError

    def export(self, row: Row, folder: Path) -> Path:
        """Copy the bytes to ``folder`` under their path in the mount; returns where."""
        raise NotImplementedError

    def drop(self, row: Row, *, force: bool = False) -> None:
        """Remove an upload for good."""
