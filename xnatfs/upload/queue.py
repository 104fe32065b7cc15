"""What waits in the spool folder of this user: the uploads of all mounts, alive or dead.

``xnatfs uploads`` lists, sends, exports and drops by it, and a new mount finds here what an old
one left. An upload whose process may live is looked at, never touched.
"""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from pathlib import Path, PurePosixPath

from xnatfs.config import SpoolSettings
from xnatfs.errors import DiskFault, NotFound, Protected, UsageError
from xnatfs.upload.disk import local_disk
from xnatfs.upload.owner import RELEASED_NAME, Owner, read_owner, surely_dead, surely_here
from xnatfs.upload.record import Record, State, read_record
from xnatfs.upload.spool import MAKING, Spool, remove_if_empty
from xnatfs.upload.upload import BYTES_NAME, LEAVING, Upload

log = logging.getLogger(__name__)


class Standing(Enum):
    """Whether an upload may be taken over."""

    # Its process lives on this machine and works on it.
    LIVE = "live"
    # Its process is surely gone, or has let go of it.
    FREE = "free"
    # Its process is on another machine, or cannot be judged from here: only by force.
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Row:
    """One upload, as ``xnatfs uploads list`` shows it."""

    # The name of its folder: the ID that the commands take.
    id: str
    folder: Path
    # None: it cannot be read, and ``problem`` says why; the bytes can still be exported.
    record: Record | None
    problem: str
    # Bytes on disk now.
    size: int
    # As in the record; of an unreadable one when its folder was changed.
    created: float
    # Mount point ("" without one), and "node17, process 4711".
    mount: str
    owner: str
    standing: Standing

    @property
    def age_s(self) -> float:
        """Seconds since it was begun."""
        return max(0.0, time.time() - self.created)


class Queue:
    """All uploads in a spool folder.

    Args:
        settings: which spool folder.

    Threading: holds nothing; every call reads the disk.
    """

    def __init__(self, settings: SpoolSettings) -> None:
        self._root = settings.folder

    def rows(self, ids: Iterable[str] = ()) -> list[Row]:
        """What waits, oldest first.

        Args:
            ids: only these; empty means all.

        Raises: NotFound: there is no upload of that id. DiskFault.
        """
        wanted = set(ids)
        with local_disk(f"the spool {self._root}"):
            found = [row for folder in self._folders() for row in _rows_in(folder)]
        if missing := wanted - {row.id for row in found}:
            raise NotFound(f"no upload {', '.join(sorted(missing))} in {self._root}")
        chosen = [row for row in found if not wanted or row.id in wanted]
        return sorted(chosen, key=lambda row: (row.created, row.id))

    def take(self, row: Row, spool: Spool, *, force: bool = False) -> Upload | None:
        """Take an upload into our own folder of the spool, to send it.

        Args:
            row: which.
            spool: ours, adopted.
            force: even if it is not known whether its process lives (``--take``).

        Returns: the upload, or None when another process was faster.

        Raises: Protected: its process may live. UsageError: it is for another server or account.
            DiskFault: its record cannot be read.
        """
        _may_touch(row, force=force)
        if row.record is None:
            raise DiskFault(row.problem)
        target = row.record.target
        if (target.server, target.account) != spool.account:
            raise UsageError(f"{row.id} goes to {target.server} as {target.account}")
        upload = spool.take(row.folder)
        self._tidy(row.folder.parent)
        return upload

    def export(self, row: Row, folder: Path) -> Path:
        """Copy the bytes of an upload to a folder, under the path that they have in a mount.

        Returns: where they are now; an existing file is left alone and the id goes to the name.

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        labels = row.record.target.labels if row.record else ""
        parts = [part for part in PurePosixPath(labels).parts if part not in ("/", "..")]
        place = folder.joinpath(*parts) if parts else folder / row.id
        with local_disk(f"the copy of {row.id} in {folder}"):
            place.parent.mkdir(parents=True, exist_ok=True)
            if place.exists():
                place = place.with_name(f"{place.name[:120]}~{row.id}")
            with open(row.folder / BYTES_NAME, "rb") as source, open(place, "xb") as copy:
                shutil.copyfileobj(source, copy)
                copy.flush()
                os.fsync(copy.fileno())
        return place

    def drop(self, row: Row, *, force: bool = False) -> None:
        """Remove an upload for good.

        Raises: Protected: its process may live (``force`` as for ``take``). DiskFault.
        """
        _may_touch(row, force=force)
        leaving = self._root / f"{LEAVING}{row.id}"
        with local_disk(f"the spool copy {row.folder}"), suppress(FileNotFoundError):
            os.rename(row.folder, leaving)
            shutil.rmtree(leaving)
        self._tidy(row.folder.parent)

    def latest(self, rows: Iterable[Row]) -> list[Row]:
        """Drop what its own mount has written over: of several for one name the last counts.

        When the later ones were begun, the server had the earlier ones already.

        Args:
            rows: oldest first.

        Returns: the others.

        Raises: DiskFault.
        """
        kept: list[Row] = []
        last: dict[tuple[Path, str, str], Row] = {}
        for row in rows:
            kept.append(row)
            if row.record is None or not row.record.md5 or row.record.state is State.CONFLICT:
                continue
            target = row.record.target
            name = (row.folder.parent, target.resource_id, target.path)
            if name in last and row.standing is Standing.FREE:
                self.drop(last[name])
                kept.remove(last[name])
            last[name] = row
        return kept

    def tidy(self) -> None:
        """Remove the folders of dead processes in which nothing is left."""
        with local_disk(f"the spool {self._root}"):
            for folder in self._folders():
                if _standing(folder, _owner(folder)) is Standing.FREE:
                    self._tidy(folder)

    def _folders(self) -> Iterator[Path]:
        if not self._root.is_dir():
            return
        for entry in sorted(self._root.iterdir()):
            if entry.name.startswith(LEAVING):
                shutil.rmtree(entry, ignore_errors=True)
            elif not entry.name.startswith(MAKING) and entry.is_dir():
                yield entry

    def _tidy(self, folder: Path) -> None:
        try:
            remove_if_empty(folder)
        except FileNotFoundError:
            log.debug("%s was removed by another process", folder)
        except OSError as error:
            log.warning("cannot remove the spool folder %s: %s", folder, error)


def _owner(folder: Path) -> Owner | None:
    try:
        return read_owner(folder)
    except DiskFault as error:
        log.warning("%s", error)
        return None


def _standing(folder: Path, owner: Owner | None) -> Standing:
    if (folder / RELEASED_NAME).exists():
        return Standing.FREE
    if owner is None:
        return Standing.UNKNOWN
    if surely_dead(owner):
        return Standing.FREE
    return Standing.LIVE if surely_here(owner) else Standing.UNKNOWN


def _rows_in(folder: Path) -> Iterator[Row]:
    owner = _owner(folder)
    standing = _standing(folder, owner)
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        record, problem = None, ""
        try:
            record = read_record(entry)
        except DiskFault as error:
            problem = str(error)
        try:
            size = (entry / BYTES_NAME).stat().st_size
            created = record.created if record else entry.stat().st_mtime
        except FileNotFoundError:
            if not entry.exists():
                continue  # done, or taken over, while we were looking
            size, created = 0, time.time()
            problem = problem or f"{entry / BYTES_NAME} is missing"
        yield Row(
            id=entry.name,
            folder=entry,
            record=record,
            problem=problem,
            size=size,
            created=created,
            mount=owner.mount if owner else "",
            owner=owner.where if owner else "unknown",
            standing=standing,
        )


def _may_touch(row: Row, *, force: bool) -> None:
    if row.standing is Standing.LIVE:
        raise Protected(f"{row.owner} is at work on {row.id}: unmount {row.mount or 'it'} first")
    if row.standing is Standing.UNKNOWN and not force:
        raise Protected(
            f"{row.id} belongs to {row.owner}, which may be at work on it; if it surely is not: "
            f"--take {row.id}"
        )
