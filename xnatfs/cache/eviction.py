"""The bounds of the store: how much may be kept, and what goes when it is too much.

A sweep walks all servers' content below the cache folder, because the bounds are those of the
folder. Several processes may sweep at once: each removal is one rename or unlink, and who comes
second finds nothing.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache import layout
from xnatfs.config import MIB, StoreSettings

log = logging.getLogger(__name__)

# A sweep begins when this part of the bound is in use, so that content may go on arriving while
# it is under way, and ends at the second figure, so that the next block does not need another.
_HIGH_WATER = 0.95
_LOW_WATER = 0.85
# What a file takes beyond its bytes: the rest of its last disk block, a seal.
_ROUNDING = 4096
# Other processes fill the same folder and content grows old: look again after this long.
_SWEEP_EVERY_S = 600.0
# The disk's free space is asked for again after this many bytes or seconds.
_LOOK_EVERY = 32 * MIB
_LOOK_EVERY_S = 5.0
# After a full disk, or a sweep that found nothing to remove.
_PAUSE_S = 5.0
# A file being written beside is left alone this long: its writer may still live.
_ABANDONED_S = 86400.0


@dataclass(frozen=True, slots=True)
class Kept:
    """One content on disk."""

    path: Path
    # Bytes that it takes on the disk (sparse files count what they hold).
    used: int
    # Seconds since the epoch.
    last_used: float


def walk(root: Path) -> Iterator[Kept]:
    """Every content and listing below a cache folder, of all servers, as far as it stays there."""
    for server in _folders(root):
        for spread in _folders(server / layout.CONTENT):
            yield from contents(spread)
        yield from listings(server / layout.LISTINGS)


def listings(folder: Path) -> Iterator[Kept]:
    """Every record of a listing at or below a folder."""
    for entry in _scan(folder):
        if entry.is_dir(follow_symlinks=False):
            yield from listings(Path(entry.path))
        elif not entry.name.startswith("."):
            with contextlib.suppress(OSError):
                stat = entry.stat(follow_symlinks=False)
                yield Kept(Path(entry.path), stat.st_blocks * 512, stat.st_mtime)


def contents(folder: Path) -> Iterator[Kept]:
    """Every content in one of the 256 folders."""
    for entry in _scan(folder):
        if entry.name.startswith("."):
            continue
        try:
            files = list(os.scandir(entry.path)) if entry.is_dir(follow_symlinks=False) else [entry]
            stats = [file.stat(follow_symlinks=False) for file in files]
        except OSError:
            continue
        used = sum(stat.st_blocks * 512 for stat in stats)
        # Reading sets atime lazily (relatime), so openings set it (``touch``); writing sets mtime.
        last = max((max(stat.st_atime, stat.st_mtime) for stat in stats), default=0.0)
        yield Kept(Path(entry.path), used, last)


def remove(path: Path) -> bool:
    """Remove a content; whoever has it open goes on reading. False when it was not there."""
    doomed = path.with_name(f"{layout.DOOMED}{secrets.token_hex(8)}")
    try:
        # One step, so that nobody ever finds half of a folder under its name.
        os.rename(path, doomed)
    except OSError:
        return False
    _destroy(doomed)
    return True


def _destroy(path: Path) -> None:
    try:
        os.unlink(path)
    except IsADirectoryError:
        shutil.rmtree(path, ignore_errors=True)
    except OSError as error:
        log.info("cannot remove %s: %s", path, error.strerror)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError:
        return []


def _folders(folder: Path) -> list[Path]:
    return [Path(entry.path) for entry in _scan(folder) if entry.is_dir(follow_symlinks=False)]


class Room:
    """How much more the store may take.

    Args:
        settings: folder and bounds.
        in_use: whether this process has the content at a path open.

    Threading: ``_mu`` guards the figures; a sweep runs on a thread of its own, one at a time,
    without the lock.
    """

    def __init__(self, settings: StoreSettings, in_use: Callable[[Path], bool]) -> None:
        self._settings = settings
        self._in_use = in_use
        self._mu = threading.Lock()
        # Bytes on disk by the last sweep and what was put since; None before the first.
        self._used: int | None = None
        # Bytes ever let in, for what arrives while a sweep is under way.
        self._admitted = self._last_admitted = 0
        self._since_look = _LOOK_EVERY
        self._looked = 0.0
        self._swept = 0.0
        self._sweeping = False
        self._closed_until = 0.0
        self._told = False
        self._evictions = 0

    @property
    def evictions(self) -> int:
        """Contents removed by this process."""
        return self._evictions

    def admit(self, size: int) -> bool:
        """Whether ``size`` more bytes may go to disk; starts a sweep when one is due."""
        now = time.monotonic()
        with self._mu:
            if now < self._closed_until:
                return False
            taken = size + _ROUNDING
            self._admitted += taken
            self._last_admitted = taken
            self._since_look += taken
            bound = self._settings.size
            over = self._used is not None and self._used + taken > bound
            if self._used is not None and not over:
                self._used += taken
            due = self._used is None or over or self._used > bound * _HIGH_WATER
            due = due or now - self._swept > _SWEEP_EVERY_S
            if self._since_look >= _LOOK_EVERY or now - self._looked > _LOOK_EVERY_S:
                self._since_look, self._looked = 0, now
                due = due or self._wanting() > 0
            start = due and not self._sweeping
            self._sweeping = self._sweeping or start
        if start:
            threading.Thread(target=self._sweep_aside, name="sweep", daemon=True).start()
        return not over

    def full(self, error: OSError) -> None:
        """The disk refused a write: no more of them for some seconds, and one log line."""
        text = error.strerror or str(error)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            self._close(f"has no room ({text})")
        else:
            self._close(f"cannot be written ({text})")

    def _close(self, why: str) -> None:
        with self._mu:
            self._closed_until = time.monotonic() + _PAUSE_S
            tell, self._told = not self._told, True
        if tell:
            log.warning(
                "the store in %s %s: reads go on without it; see --cache-dir and --cache-size",
                self._settings.folder,
                why,
            )

    def _wanting(self) -> int:
        """Bytes that the disk lacks of what must stay free."""
        try:
            disk = os.statvfs(self._settings.folder)
        except OSError:
            return 0
        keep = int(disk.f_blocks * self._settings.keep_free)
        return max(0, (keep - disk.f_bavail) * disk.f_frsize)

    def _sweep_aside(self) -> None:
        try:
            self.sweep()
        finally:
            with self._mu:
                self._sweeping = False

    def sweep(self) -> int:
        """Remove what is too old or too much, least recently used first; bytes that are left."""
        settings = self._settings
        with self._mu:
            # What was let in last is being written now, and may not be seen by this walk.
            admitted_before = self._admitted - self._last_admitted
        kept = sorted(walk(settings.folder), key=lambda content: content.last_used)
        used = sum(content.used for content in kept)
        oldest = time.time() - settings.max_age_s
        most = settings.size * (_HIGH_WATER if used <= settings.size * _HIGH_WATER else _LOW_WATER)
        for content in kept:
            too_old = content.last_used < oldest
            if not (too_old or used > most or self._wanting() > 0):
                break
            if not self._in_use(content.path) and remove(content.path):
                used -= content.used
                self._evictions += 1
        self._remove_leftovers()
        with self._mu:
            self._used = used + self._admitted - admitted_before
            self._swept = time.monotonic()
        if used > settings.size or self._wanting() > 0:
            self._close("is full of open files, or its disk is")
        return used

    def _remove_leftovers(self) -> None:
        """What killed processes left on its way in or out."""
        oldest = time.time() - _ABANDONED_S
        for server in _folders(self._settings.folder):
            for spread in _folders(server / layout.CONTENT):
                for entry in _scan(spread):
                    if entry.name.startswith(layout.DOOMED):
                        _destroy(Path(entry.path))
                    elif entry.name.startswith(layout.BESIDE):
                        self._remove_if_older(entry, oldest)

    def _remove_if_older(self, entry: os.DirEntry[str], oldest: float) -> None:
        try:
            if entry.stat(follow_symlinks=False).st_mtime < oldest:
                os.unlink(entry.path)
        except OSError as error:
            log.info("cannot remove %s: %s", entry.path, error.strerror)
