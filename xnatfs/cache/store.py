"""The block store: content by version, shared by any number of processes of one user.

It knows no HTTP and no XNAT. Every promise rests on write-beside, rename and check; no lock on
disk is needed for correctness.
"""

from __future__ import annotations

import errno
import logging
import os
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache import accounts, disk, layout
from xnatfs.cache.big import BigContent
from xnatfs.cache.claims import Claim, Claims
from xnatfs.cache.content import BLOCK, SMALL, Content, Verdict
from xnatfs.cache.empty import EmptyContent
from xnatfs.cache.eviction import Kept, Room, contents, remove
from xnatfs.cache.inspection import sound
from xnatfs.cache.memory import Memory
from xnatfs.cache.shelf import Shelf
from xnatfs.cache.small import Checked, SmallContent
from xnatfs.config import StoreSettings, make_private
from xnatfs.errors import DiskFault, NoSpace, QuotaExceeded, XnatfsError
from xnatfs.model.versions import Version

__all__ = ["BLOCK", "SMALL", "Claim", "Claims", "Content", "Store", "StoreStats", "Verdict"]

log = logging.getLogger(__name__)


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


class _Opening:
    """A content with the number of its openings."""

    __slots__ = ("content", "count", "key")

    def __init__(self, key: str) -> None:
        self.key = key
        self.content: SmallContent | BigContent
        self.count = 0


class Store:
    """The content of one server.

    Args:
        settings: folder and bounds.
        server_key: name of the server's folder, safe as a file name.

    Raises:
        DiskFault, NoSpace, QuotaExceeded: the folder cannot be made.

    Threading: ``_mu`` guards the table of what is open and the counts; it is not held across
    I/O. A content looks after its own bytes.
    """

    def __init__(self, settings: StoreSettings, server_key: str) -> None:
        self._folder = settings.folder / server_key
        # Who of the processes that share this folder fetches what.
        self.claims = Claims(self._folder / layout.CLAIMS)
        # What the server's listings told.
        self.shelf = Shelf(self._folder / layout.LISTINGS)
        self._mu = threading.Lock()
        self._open: dict[str, _Opening] = {}
        # Keys that are held without being open.
        self._held: dict[str, int] = {}
        self._room = Room(settings, self._in_use)
        self._memory = Memory()
        self._checked = Checked()
        self._part = (0, "")
        self._hits = self._misses = 0
        try:
            self._make_folders(settings.folder)
        except OSError as error:
            raise _disk_error(error, settings.folder) from error

    def _make_folders(self, root: Path) -> None:
        make_private(root)
        make_private(self._folder / layout.CONTENT)
        # The folder that the user named may be older than we are.
        os.chmod(root, 0o700)
        tag = root / layout.TAG_NAME
        if not tag.exists():
            os.close(disk.write_beside(tag, (layout.TAG_TEXT.encode(),)))

    def sign(self, server: str, account: str) -> None:
        """Note whose folder this is, for mounts without a login."""
        accounts.note(self._folder, server, account)

    def open(self, version: Version) -> Content:
        """The content of a version, empty if nothing is known; never evicted while open."""
        content = self._load(version)
        complete = content.complete()
        with self._mu:
            self._hits += complete
            self._misses += not complete
        return content

    def hold(self, version: Version) -> None:
        """Keep a version from eviction without looking for it, until ``let_go``."""
        key = version.key
        with self._mu:
            self._held[key] = self._held.get(key, 0) + 1

    def let_go(self, version: Version) -> None:
        """End one ``hold``."""
        key = version.key
        with self._mu:
            left = self._held[key] - 1
            if left:
                self._held[key] = left
            else:
                del self._held[key]

    def _load(self, version: Version) -> Content:
        if version.size == 0:
            return EmptyContent()
        with self._mu:
            opening = self._open.get(version.key)
            if opening is None:
                opening = self._open[version.key] = self._make(version)
            opening.count += 1
        opening.content.load()
        return opening.content

    def has(self, version: Version) -> bool:
        """Whether all of a small version seems to be here; what is on disk is not checked."""
        with self._mu:
            opening = self._open.get(version.key)
        if opening is not None and opening.content.complete():
            return True
        return version.size == 0 or layout.content_path(self._folder, version.key).is_file()

    def put(self, version: Version, whole: bytes) -> bool:
        """Keep all of a small version, compared with the catalog; whether the disk took it."""
        content = self._load(version)
        try:
            content.put(0, whole)
            content.mark_verified()
            return content.on_disk
        finally:
            content.close()

    def _make(self, version: Version) -> _Opening:
        path = layout.content_path(self._folder, version.key)
        opening = _Opening(version.key)

        def closed() -> None:
            self._close(opening)

        if version.size <= SMALL:
            opening.content = SmallContent(
                path, version.size, self._room, self._memory, self._checked, closed
            )
        else:
            opening.content = BigContent(
                path, version.size, self._part_name(), self._room, self._memory, closed
            )
        return opening

    def _part_name(self) -> str:
        """Unique among the processes of all nodes; a fork is another process."""
        if self._part[0] != os.getpid():
            self._part = (os.getpid(), secrets.token_hex(8))
        return self._part[1]

    def _close(self, opening: _Opening) -> None:
        with self._mu:
            opening.count -= 1
            if opening.count > 0:
                return
        opening.content.unload(wanted=lambda: opening.count > 0)
        with self._mu:
            if opening.count == 0 and self._open.get(opening.key) is opening:
                del self._open[opening.key]

    def _in_use(self, path: Path) -> bool:
        with self._mu:
            in_use = path.name in self._open or path.name in self._held
            return in_use and path.is_relative_to(self._folder)

    def stats(self) -> StoreStats:
        """Counts; walks the folder."""
        kept = list(self._kept())
        used = sum(content.used for content in kept) + self._memory.used()
        return StoreStats(used, len(kept), self._hits, self._misses, self._room.evictions)

    def _kept(self) -> Iterator[Kept]:
        for spread in sorted((self._folder / layout.CONTENT).glob("*")):
            yield from contents(spread)

    def sweep(self) -> None:
        """Apply the bounds now; otherwise that happens as content arrives."""
        self._room.sweep()

    def forget(self, version: Version) -> None:
        """Drop a version's content, open or not."""
        self._forget(layout.content_path(self._folder, version.key))

    def discard(self, version: Version) -> None:
        """Drop a version's content, unless it is open here: who pinned it reads on.

        Without a digest, that of all versions of the file.
        """
        exact = layout.content_path(self._folder, version.key)
        paths = [exact] if version.digest else exact.parent.glob(f"{version.stem}*")
        for path in paths:
            if not self._in_use(path):
                remove(path)

    def _forget(self, path: Path) -> None:
        with self._mu:
            opening = self._open.get(path.name)
        if opening is None:
            remove(path)
        else:
            opening.content.drop()

    def clear(self) -> None:
        """Drop everything of this server that is not open."""
        for kept in self._kept():
            if not self._in_use(kept.path):
                remove(kept.path)
        self.shelf.remove("")

    def verify(self) -> tuple[int, int]:
        """Read everything and drop what is damaged: (contents checked, contents damaged)."""
        checked = damaged = 0
        for kept in self._kept():
            found = sound(kept.path)
            if found is None:
                continue
            checked += 1
            if not found:
                damaged += 1
                log.warning("the store held damaged bytes in %s: removed", kept.path)
                self._forget(kept.path)
        return checked, damaged

    def close(self) -> None:
        """Write down what is known about open content. Never raises."""
        with self._mu:
            openings = list(self._open.values())
        for opening in openings:
            opening.content.save()
        self.claims.close()


def _disk_error(error: OSError, folder: Path) -> XnatfsError:
    text = f"cannot make the store in {folder}: {error.strerror} (see --cache-dir)"
    kinds: dict[int, type[XnatfsError]] = {errno.ENOSPC: NoSpace, errno.EDQUOT: QuotaExceeded}
    return kinds.get(error.errno or 0, DiskFault)(text)
