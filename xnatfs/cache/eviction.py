"""The bounds of the store: how much may be kept, and what goes when it is too much.

A sweep walks all servers' content below the cache folder, because the bounds are those of the
folder. Several processes may sweep at once: each removal is one rename or unlink, and who comes
second finds nothing.
"""

from __future__ import annotations

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

# A sweep goes this far below the bound, so that the next block does not need another one.
_LOW_WATER = 0.9
# While a sweep is under way the store may grow past its bound by this much, no further.
_OVERSHOOT = 1.05
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
    """Every content below a cache folder, of all servers; what vanishes meanwhile is left out."""
    for server in _folders(root):
        for spread in _folders(server / layout.CONTENT):
            yield from contents(spread)


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
            self._used = None if self._used is None else self._used + size
            self._since_look += size
            due = self._used is None or self._used > self._settings.size
            due = due or now - self._swept > _SWEEP_EVERY_S
            if self._since_look >= _LOOK_EVERY or now - self._looked > _LOOK_EVERY_S:
                self._since_look, self._looked = 0, now
                due = due or self._wanting() > 0
            start = due and not self._sweeping
            self._sweeping = self._sweeping or start
            over = self._used is not None and self._used > self._settings.size * _OVERSHOOT
        if start:
            threading.Thread(target=self._sweep_then_open, name="sweep", daemon=True).start()
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

    def _sweep_then_open(self) -> None:
        try:
            self.sweep()
        finally:
            with self._mu:
                self._sweeping = False

    def sweep(self) -> int:
        """Remove what is too old or too much, least recently used first; bytes that are left."""
        settings = self._settings
        kept = sorted(walk(settings.folder), key=lambda content: content.last_used)
        used = sum(content.used for content in kept)
        oldest = time.time() - settings.max_age_s
        bound = settings.size if used <= settings.size else int(settings.size * _LOW_WATER)
        for content in kept:
            too_old = content.last_used < oldest
            if not (too_old or used > bound or self._wanting() > 0):
                break
            if not self._in_use(content.path) and remove(content.path):
                used -= content.used
                self._evictions += 1
        self._remove_leftovers()
        with self._mu:
            self._used, self._swept = used, time.monotonic()
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
