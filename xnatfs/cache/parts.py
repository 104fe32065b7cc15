"""The parts of a big content on disk: what each process that fetched some of it left."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache import disk, layout
from xnatfs.cache.layout import PartMap

log = logging.getLogger(__name__)


# A map is replaced by another file: told by inode and mtime.
_Mark = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Part:
    """One process's share of a content."""

    name: str
    map: PartMap
    # Of its bytes; open for writing if the part is ours. The finder's caller closes it.
    fd: int
    # Whether ``fd`` was opened for this Part, or given out before.
    fresh: bool


class Finder:
    """Looks for the usable parts of one content, again and again.

    Args:
        folder: the content's folder; need not exist.
        size: of the content, bytes.
        own: name of the part that this process may write.

    Threading: for one thread at a time.
    """

    def __init__(self, folder: Path, size: int, own: str) -> None:
        self._folder = folder
        self._size = size
        self._own = own
        self._seen: dict[str, tuple[_Mark, int]] = {}
        self._first = True

    def changed(self) -> list[Part]:
        """The parts that are new, or have another map than when they were given out.

        The own one is among them the first time only: then its writer knows more than its map.
        """
        first, self._first = self._first, False
        try:
            names = sorted(os.listdir(self._folder))
        except OSError:
            return []
        paths = [self._folder / name for name in names if name.endswith(layout.MAP_SUFFIX)]
        found = (self._find(path) for path in paths if first or path.stem != self._own)
        return [part for part in found if part is not None]

    def forget(self) -> None:
        """Start again: the descriptors that were given out are closed."""
        self._seen.clear()
        self._first = True

    def _find(self, path: Path) -> Part | None:
        try:
            map_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return None
        try:
            stat = os.fstat(map_fd)
            mark = (stat.st_ino, stat.st_mtime_ns)
            known_mark, known_fd = self._seen.get(path.stem, (None, -1))
            if mark == known_mark:
                return None
            raw = disk.read_exactly(map_fd, stat.st_size, 0)
            disk.touch(map_fd)
        finally:
            os.close(map_fd)
        part_map = None if raw is None else layout.parse_map(raw, self._size)
        if part_map is None:
            log.warning("the store held a damaged map in %s: its blocks are fetched again", path)
            return None
        try:
            fd = self._bytes(path, known_fd)
        except OSError:
            return None
        self._seen[path.stem] = (mark, fd)
        return Part(path.stem, part_map, fd, fresh=fd != known_fd)

    def _bytes(self, path: Path, known: int) -> int:
        """A descriptor of the part's bytes. Raises OSError."""
        place = path.with_suffix(layout.BYTES_SUFFIX)
        # The folder may have been removed and made again meanwhile.
        if known >= 0 and os.path.samestat(os.fstat(known), os.stat(place)):
            return known
        access = os.O_RDWR if path.stem == self._own else os.O_RDONLY
        return os.open(place, access | os.O_CLOEXEC | os.O_NOFOLLOW)
