"""Small content: one file, published whole and checked, or not at all."""

from __future__ import annotations

import logging
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from cachetools import LRUCache

from xnatfs.cache import disk, layout
from xnatfs.cache.content import Content, Verdict
from xnatfs.cache.eviction import Room, remove
from xnatfs.cache.layout import Seal
from xnatfs.cache.memory import Memory
from xnatfs.config import make_private

log = logging.getLogger(__name__)

# A small file is told from its successor by device, inode and mtime.
Mark = tuple[int, int, int]

# Files that a process remembers to have checked; forgetting one costs a second look at it.
_REMEMBERED = 1 << 16


class Checked:
    """The small files that this process has read and found whole.

    Threading: ``_mu`` guards the table.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._marks: LRUCache[str, Mark] = LRUCache(_REMEMBERED)

    def holds(self, name: str, mark: Mark) -> bool:
        """Whether the file of that name was checked and is still the same."""
        with self._mu:
            return bool(self._marks.get(name) == mark)

    def note(self, name: str, mark: Mark) -> None:
        """The file was checked, or written by us."""
        with self._mu:
            self._marks[name] = mark


def _mark(fd: int) -> Mark:
    stat = os.fstat(fd)
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns


class SmallContent(Content):
    """Content of at most SMALL bytes.

    Args:
        path: the content's file.
        size: bytes, at least 1.
        room: whether more may go to disk.
        memory: where the bytes go otherwise.
        checked: what this process has read and found whole.
        closed: called by ``close``.

    Threading: ``_mu`` guards the fields; it is held while the file is opened and checked (once
    for each opening by the process) and while it is published, never in ``read``. A descriptor
    stays open until the last ``unload``, so a read that began before a drop ends well.
    """

    def __init__(
        self,
        path: Path,
        size: int,
        room: Room,
        memory: Memory,
        checked: Checked,
        closed: Callable[[], None],
    ) -> None:
        self.size = size
        self.block = size
        self._path = path
        self._room = room
        self._memory = memory
        self._checked = checked
        self._closed = closed
        self._mu = threading.Lock()
        self._loaded = False
        self._fd = -1
        self._retired: list[int] = []
        # Put, but not marked yet.
        self._held: bytes | None = None
        self._crc = 0
        self._verdict = Verdict.OPEN
        self._on_disk = True

    def load(self) -> None:
        """Look on disk; does nothing when that was done already."""
        with self._mu:
            if not self._loaded:
                self._loaded = True
                self._find()

    def unload(self, wanted: Callable[[], bool]) -> None:
        """Let go of descriptors and memory, unless ``wanted`` says somebody opened it again."""
        with self._mu:
            if wanted():
                return
            self._reset()
            for fd in self._retired:
                os.close(fd)
            self._retired.clear()
            self._loaded = False

    def _reset(self) -> None:
        if self._fd >= 0:
            self._retired.append(self._fd)
        self._fd = -1
        self._held = None
        self._verdict = Verdict.OPEN
        self._on_disk = True
        self._memory.forget(id(self))

    def _find(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return
        seal = self._check(fd)
        if seal is None:
            os.close(fd)
            log.warning("the store held damaged bytes in %s: they are fetched again", self._path)
            remove(self._path)
            return
        disk.touch(fd)
        self._fd, self._crc, self._verdict = fd, seal.crc, seal.verdict

    def _check(self, fd: int) -> Seal | None:
        seal = layout.parse_seal(disk.read_exactly(fd, layout.SEAL_SIZE, self.size) or b"")
        if seal is None or seal.size != self.size or seal.verdict is Verdict.OPEN:
            return None
        mark = _mark(fd)
        if not self._checked.holds(self._path.name, mark):
            whole = disk.read_exactly(fd, self.size, 0)
            if whole is None or zlib.crc32(whole) != seal.crc:
                return None
            self._checked.note(self._path.name, mark)
        return seal

    def read(self, offset: int, size: int) -> bytes | None:
        """See Content."""
        size = max(0, min(size, self.size - offset))
        # In this order: publishing sets the descriptor before it lets go of the bytes.
        held, fd = self._held, self._fd
        if fd >= 0:
            piece = disk.read_exactly(fd, size, offset)
            if piece is None:
                log.warning("the store cannot read %s: it is fetched again", self._path)
                self.drop()
            return piece
        whole = held if held is not None else self._memory.get(id(self), 0)
        return None if whole is None else whole[offset : offset + size]

    def missing(self, offset: int, size: int) -> list[tuple[int, int]]:
        """See Content."""
        if size <= 0 or offset >= self.size or self.complete():
            return []
        return [(0, self.size)]

    def put(self, offset: int, piece: bytes) -> bool:
        """See Content; nothing is published before it is marked."""
        if offset != 0 or len(piece) != self.size:
            raise ValueError(f"not the whole content: {len(piece)} bytes at {offset}")
        with self._mu:
            if self._fd < 0:
                self._held, self._crc = bytes(piece), zlib.crc32(piece)
        return True

    def save(self) -> None:
        """See Content: marking has done it."""

    def look(self) -> bool:
        """See Content."""
        with self._mu:
            if self._loaded and not self.complete():
                self._find()
                if self._verdict is Verdict.CONTRADICTS:
                    self._reset()
        return self.complete()

    def complete(self) -> bool:
        """See Content."""
        here = self._fd >= 0 or self._held is not None
        return here or self._memory.get(id(self), 0) is not None

    def checksums(self) -> dict[int, int]:
        """See Content."""
        return {0: self._crc} if self.complete() else {}

    @property
    def verdict(self) -> Verdict:
        """See Content."""
        return self._verdict

    @property
    def on_disk(self) -> bool:
        """See Content."""
        return self._on_disk

    def mark_verified(self) -> None:
        """See Content."""
        self._publish(Verdict.VERIFIED)

    def mark_contradicting(self) -> None:
        """See Content."""
        self._publish(Verdict.CONTRADICTS)

    def _publish(self, verdict: Verdict) -> None:
        with self._mu:
            held = self._held
            self._verdict = verdict
            if held is None:
                return
            if not self._write(held, verdict):
                self._on_disk = False
                self._memory.put(id(self), 0, held)
            self._held = None

    def _write(self, whole: bytes, verdict: Verdict) -> bool:
        if not self._room.admit(len(whole)):
            return False
        seal = layout.pack_seal(Seal(verdict, self.size, self._crc))
        try:
            try:
                fd = disk.write_beside(self._path, (whole, seal))
            except FileNotFoundError:
                make_private(self._path.parent)
                fd = disk.write_beside(self._path, (whole, seal))
            self._checked.note(self._path.name, _mark(fd))
        except OSError as error:
            self._room.full(error)
            return False
        self._fd = fd
        return True

    def drop(self) -> None:
        """See Content."""
        with self._mu:
            self._reset()
            remove(self._path)

    def close(self) -> None:
        """See Content."""
        self._closed()
