"""The spool: what was written and is not surely on the server yet, on the local disk.

    <spool>/<host>-<boot>-<pid>-<start>/        one folder for each process that mounts, 0700
        owner                                   who that is: JSON
        released                                the process ended cleanly and left something
        <time>-<random>-<name>/                 one folder for each upload
            bytes
            record.json

``fs`` makes uploads here and hands them to ``uploader``; ``queue`` looks at the folders of other
processes. An upload belongs to one process at a time, and changes hands by a rename of its
folder, which has one winner on every file system: no lock is needed.
"""

from __future__ import annotations

import errno
import logging
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xnatfs.config import MIB, SpoolSettings, make_private
from xnatfs.errors import DiskFault, NoSpace, XnatfsError
from xnatfs.model.versions import Version
from xnatfs.upload.disk import local_disk, sync_folder, write_file
from xnatfs.upload.owner import OWNER_NAME, RELEASED_NAME, Owner, write_owner
from xnatfs.upload.record import RECORD_NAME, Base, Record, Target, read_record
from xnatfs.upload.upload import BYTES_NAME, LEAVING, Upload

log = logging.getLogger(__name__)

# Prefix of a folder that is being made: a crash may leave it, nobody was told of it.
MAKING = ".new-"

# Fraction of the disk that stays free when no bound is set.
KEEP_FREE = 0.05

# The disk is asked for room once in this many bytes: as much more than its bound may each of the
# processes write that share a spool.
GRANT = 16 * MIB

# What of a file name is kept in the name of its folder, so that ``ls`` tells what it is.
_UNREADABLE = re.compile(r"[^A-Za-z0-9._+=-]+")


@dataclass(frozen=True, slots=True)
class Room:
    """The disk that holds the spool, as statfs shows it. Bytes and counts."""

    block_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int


class Spool:
    """The folder of this process in the spool.

    Args:
        settings: where, and how much may wait there.
        server: base URL; account: login name; mount: the mount point, for people ("" without).

    Threading: ``_mu`` guards the table of uploads, the latest time and the granted bytes. Uploads
    have their own lock; the order is upload, then spool.
    """

    def __init__(self, settings: SpoolSettings, server: str, account: str, mount: str = "") -> None:
        self._settings = settings
        self._server = server
        self._account = account
        self._mount = mount
        self._folder: Path | None = None
        self._mu = threading.Lock()
        self._uploads: dict[str, Upload] = {}
        # What may be written before the disk is asked again. Bytes.
        self._granted = 0
        # What ``now`` said last, or a record that was taken over. Seconds since the epoch.
        self._latest = 0.0

    @property
    def account(self) -> tuple[str, str]:
        """Base URL and login name that its uploads go to."""
        return self._server, self._account

    @property
    def folder(self) -> Path:
        """The folder of this process; ``adopt`` makes it."""
        if self._folder is None:
            raise RuntimeError("the spool is used before adopt()")
        return self._folder

    def adopt(self) -> None:
        """Make this process's folder. To be called in the process that serves (after a fork).

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        owner = Owner.of_this_process(self._server, self._account, self._mount)
        root = self._settings.folder
        with local_disk(f"the spool {root}"):
            make_private(root)
            # With its owner file from the first moment: others judge a folder by it.
            making = root / f"{MAKING}{owner.folder_name}-{secrets.token_hex(3)}"
            making.mkdir(mode=0o700)
            write_owner(making, owner)
            self._folder = _rename_to_free(making, root / owner.folder_name)

    def new(
        self,
        target: Target,
        base: Version | None,
        old: Iterable[bytes] | None,
        perhaps: tuple[Base, ...] = (),
    ) -> Upload:
        """Begin an upload: a folder with its bytes and an open record.

        Args:
            target: where it goes.
            base: the version on the server that it replaces; None: the name must not exist there.
            old: content to start from, in order (an existing file is copied up); None: empty.
            perhaps: versions of our own that the server may have instead.

        Raises: NoSpace, QuotaExceeded, DiskFault, and whatever ``old`` raises; nothing is left
            behind then.
        """
        record = Record(
            id=_new_id(target.path),
            target=target,
            base=None if base is None else Base.of(base),
            created=self.now(),
            perhaps=perhaps,
        )
        making = self.folder / f"{MAKING}{record.id}"
        upload: Upload | None = None
        try:
            with local_disk(f"the spool copy of {target.labels}"):
                making = self._make(making)
                # Nobody looks into a folder that is being made: it need not be replaced.
                write_file(f"{making}/{RECORD_NAME}", record.to_json().encode(), durable=False)
            upload = Upload(self, making, record)
            for piece in old or ():
                upload.write(upload.size, piece)
            with local_disk(f"the spool copy of {target.labels}"):
                upload.settle_in(self.folder / record.id)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            self.give_back(upload.size if upload else 0)
            raise
        with self._mu:
            self._uploads[record.id] = upload
        return upload

    def take(self, folder: Path) -> Upload | None:
        """Take over an upload of a process that is gone, by renaming its folder into ours.

        Returns: the upload, or None when another process was faster.

        Raises: DiskFault: its record cannot be read; it stays where it was.
        """
        try:
            record = read_record(folder)
            place = self.folder / record.id
            with local_disk(f"the spool copy {folder}"):
                os.rename(folder, place)
        except DiskFault:
            if folder.exists():
                raise
            return None
        upload = Upload(self, place, record)
        with self._mu:
            self._uploads[record.id] = upload
            self._latest = max(self._latest, record.created)
        return upload

    def now(self) -> float:
        """The time, later than that of all uploads here even when the clock was set back."""
        with self._mu:
            self._latest = max(time.time(), self._latest + 1e-5)
            return self._latest

    def pending(self) -> list[Upload]:
        """What is not surely on the server yet, oldest first."""
        with self._mu:
            return sorted(self._uploads.values(), key=lambda upload: upload.record.created)

    def holds(self, version: Version) -> bool:
        """Whether these bytes wait here to get that very name, or may have got it already."""
        key, base = (version.resource_id, version.path), Base.of(version)
        with self._mu:
            records = [upload.record for upload in self._uploads.values()]
        return bool(base.digest) and any(
            key == (record.target.resource_id, record.target.path)
            and base in (record.version, *record.perhaps)
            for record in records
        )

    def reserve(self, size: int) -> None:
        """Count ``size`` more bytes, before they are written.

        Raises: NoSpace: the bound of the spool is reached.
        """
        if size <= 0:
            return
        with self._mu:
            if size > self._granted:
                self._granted = self._grant(size)
            self._granted -= size

    def give_back(self, size: int) -> None:
        """Count ``size`` bytes less."""
        with self._mu:
            self._granted += size

    def forget(self, upload: Upload) -> None:
        """An upload is gone."""
        with self._mu:
            self._uploads.pop(upload.record.id, None)
            self._granted += upload.size

    def free(self) -> Room:
        """The disk of the spool, with what the bound of the spool leaves of it.

        Raises: DiskFault.
        """
        with local_disk(f"the spool {self._settings.folder}"):
            disk = os.statvfs(self._folder or self._settings.folder)
        unit = disk.f_frsize or disk.f_bsize
        available = disk.f_bavail
        if self._settings.size:
            left = max(0, self._settings.size - self._held()) // unit
        else:
            left = max(0, available - int(disk.f_blocks * KEEP_FREE))
        return Room(
            block_size=unit,
            blocks=disk.f_blocks,
            blocks_free=disk.f_bfree,
            blocks_available=min(available, left),
            files=disk.f_files,
            files_free=disk.f_ffree,
        )

    def release(self) -> None:
        """End cleanly: remove the folder, or write ``released`` when something is left in it.

        Never raises: what cannot be removed is left for the next process.
        """
        if self._folder is None:
            return
        for upload in self.pending():
            upload.close()
        try:
            remove_if_empty(self._folder)
            if self._folder.exists():
                with local_disk(f"the spool {self._folder}"):
                    (self._folder / RELEASED_NAME).touch(mode=0o600)
                    sync_folder(self._folder)
        except (OSError, XnatfsError) as error:
            log.warning("cannot release the spool folder %s: %s", self._folder, error)

    def _make(self, making: Path) -> Path:
        """Make the folder of a new upload; ours too, if somebody has cleaned it away."""
        try:
            making.mkdir(mode=0o700)
        except FileNotFoundError:
            log.warning("the spool folder %s is gone; what was in it is lost", self.folder)
            self.adopt()
            making = self.folder / making.name
            making.mkdir(mode=0o700)
        return making

    def _grant(self, size: int) -> int:
        """How many bytes may be written before the disk is asked again. ``_mu`` is held."""
        root, bound = self._settings.folder, self._settings.size
        if bound:
            held = self._held()
            if bound - held < size:
                raise NoSpace(
                    f"the spool {root} holds {held} bytes that are not on the server yet, and "
                    f"--spool-size is {bound}"
                )
            return min(bound - held, max(size, GRANT))
        with local_disk(f"the spool {root}"):
            disk = os.statvfs(self.folder)
        unit = disk.f_frsize or disk.f_bsize
        spare = (disk.f_bavail - int(disk.f_blocks * KEEP_FREE)) * unit
        if spare < size:
            raise NoSpace(
                f"the disk of the spool {root} is down to its last "
                f"{KEEP_FREE:.0%}, which xnatfs leaves free"
            )
        return min(spare, max(size, GRANT))

    def _held(self) -> int:
        """The bytes of all uploads in the spool, whoever's they are."""
        sizes = 0
        for process in os.scandir(self._settings.folder):
            with suppress(OSError):  # it may end while we look
                for upload in os.scandir(process):
                    with suppress(OSError):
                        sizes += os.stat(os.path.join(upload.path, BYTES_NAME)).st_size
        return sizes


def remove_if_empty(folder: Path) -> None:
    """Remove a process's folder in which no upload is left. Raises OSError other than that."""
    for entry in list(folder.iterdir()):
        if entry.name.startswith((MAKING, LEAVING)):
            shutil.rmtree(entry, ignore_errors=True)
    if {entry.name for entry in folder.iterdir()} <= {OWNER_NAME, RELEASED_NAME}:
        leaving = folder.with_name(LEAVING + folder.name)
        os.rename(folder, leaving)
        shutil.rmtree(leaving, ignore_errors=True)


def _rename_to_free(folder: Path, wanted: Path) -> Path:
    """Rename to ``wanted``, or with a number where this process has a spool already."""
    place, number = wanted, 1
    while True:
        try:
            # Onto a folder that is not empty (there is always an owner) this fails everywhere.
            os.rename(folder, place)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            number += 1
            place = wanted.with_name(f"{wanted.name}-{number}")
        else:
            return place


def _new_id(path: str) -> str:
    """A name that sorts by time, is unique among all processes, and tells what it is."""
    name = _UNREADABLE.sub("_", path.rpartition("/")[2])[-60:].lstrip(".") or "file"
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(3)}-{name}"
