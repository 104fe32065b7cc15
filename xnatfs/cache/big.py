"""Big content: blocks in sparse files, one file for each process that fetched some of them.

A block is written before the map says that it is there, the map is replaced in one step, and a
block is compared with its CRC before the first byte of it is handed out in a process. So a kill
at any moment costs at most the blocks that no map names yet.
"""

from __future__ import annotations

import hashlib
import logging
import os
import threading
import zlib
from collections.abc import Callable
from pathlib import Path

from xnatfs.cache import disk, layout
from xnatfs.cache.content import BLOCK, Content, Verdict
from xnatfs.cache.eviction import Room, remove
from xnatfs.cache.layout import PartMap, block_count, block_length
from xnatfs.cache.memory import Memory
from xnatfs.cache.parts import Block, Finder, Part
from xnatfs.config import make_private

log = logging.getLogger(__name__)

# Blocks wait in memory until they are written down; no more than this much of one content.
_SAVE_AFTER = 8 * BLOCK


class BigContent(Content):
    """Content of more than SMALL bytes.

    Args:
        folder: the content's folder; made when the first block is put.
        size: bytes.
        part: name of the part that this process writes, unique among processes.
        room: whether more may go to disk.
        memory: where blocks go otherwise.
        closed: called by ``close``.

    Threading: ``_mu`` guards the fields and is never held across I/O, except in ``load`` and
    ``unload``, which ``_lifecycle`` orders; ``_saving`` lets one thread at a time write the map.
    Descriptors stay open until the last ``unload``, so a read that began before a drop ends well.
    """

    def __init__(
        self,
        folder: Path,
        size: int,
        part: str,
        room: Room,
        memory: Memory,
        closed: Callable[[], None],
    ) -> None:
        self.size = size
        self.block = BLOCK
        self._folder = folder
        self._part = part
        self._room = room
        self._memory = memory
        self._closed = closed
        self._mu = threading.Lock()
        self._lifecycle = threading.Lock()
        self._saving = threading.Lock()
        self._loaded = False
        self._fds: list[int] = []
        self._finder = Finder(folder, size, part)
        self._epoch = 0
        self._clear()

    def _clear(self) -> None:
        self._blocks: dict[int, Block] = {}
        # The same blocks in further parts.
        self._spare: dict[int, list[Block]] = {}
        # CRCs that must not change: of all blocks once the whole has a verdict, and of lost ones.
        self._known: dict[int, int] = {}
        self._verdict = Verdict.OPEN
        self._on_disk = True
        # Descriptor of our own part; -1 until the first block is put.
        self._own = -1
        self._unsaved: dict[int, Block] = {}
        self._verdict_saved = True
        # Counts drops: what was written for an earlier state is not listed in a later one.
        self._epoch += 1

    # opening and closing

    def load(self) -> None:
        """Look on disk; does nothing when that was done already."""
        with self._lifecycle:
            if not self._loaded:
                self._loaded = True
                self._find(Verdict.CONTRADICTS)

    def unload(self, wanted: Callable[[], bool]) -> None:
        """Write down and let go, unless ``wanted`` says somebody opened it again."""
        with self._lifecycle:
            if wanted():
                return
            self.save()
            self._memory.forget(id(self))
            with self._mu:
                self._clear()
                fds, self._fds = self._fds, []
            self._finder.forget()
            for fd in fds:
                os.close(fd)
            self._loaded = False

    def look(self) -> bool:
        """See Content."""
        with self._lifecycle:
            if self._loaded:
                self._find(Verdict.VERIFIED)
        return self.complete()

    def _find(self, worst: Verdict) -> None:
        epoch = self._epoch
        parts = self._finder.changed()
        with self._mu:
            self._fds.extend(part.fd for part in parts if part.fresh)
            self._own = next((part.fd for part in parts if part.name == self._part), self._own)
            # Dropped meanwhile: these are of what was dropped.
            if epoch == self._epoch:
                self._adopt([part for part in parts if part.map.verdict <= worst])

    def _adopt(self, parts: list[Part]) -> None:
        for part in parts:
            told = part.map.known | part.map.here
            agrees = all(told.get(i, block.crc) == block.crc for i, block in self._blocks.items())
            if part.map.verdict > self._verdict and agrees:
                self._verdict, self._known = part.map.verdict, told
        for part in parts:
            for index, crc in part.map.here.items():
                # With a verdict only the very bytes count that it was made on.
                if self._known.get(index, crc) != crc:
                    continue
                block = Block(crc, part.fd, checked=False)
                if self._blocks.setdefault(index, block).fd != part.fd:
                    self._spare.setdefault(index, []).append(block)

    # reading

    def read(self, offset: int, size: int) -> bytes | None:
        """See Content."""
        end = min(self.size, offset + size)
        if end <= offset:
            return b""
        pieces = []
        while offset < end:
            index = offset // BLOCK
            until = min(end, (index + 1) * BLOCK)
            piece = self._read_block(index, offset - index * BLOCK, until - offset)
            if piece is None:
                return None
            pieces.append(piece)
            offset = until
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_block(self, index: int, skip: int, size: int) -> bytes | None:
        block = self._blocks.get(index)
        if block is None:
            return None
        held = block.held
        if held is not None:
            return held[skip : skip + size]
        if block.fd < 0:
            kept = self._memory.get(id(self), index)
            if kept is None:
                self._lose(index, block)
                return None
            return kept[skip : skip + size]
        if block.checked:
            piece = disk.read_exactly(block.fd, size, index * BLOCK + skip)
        else:
            whole = disk.read_exactly(block.fd, block_length(self.size, index), index * BLOCK)
            if whole is not None and zlib.crc32(whole) != block.crc:
                whole = None
            block.checked = whole is not None
            piece = None if whole is None else whole[skip : skip + size]
        if piece is None:
            log.warning("the store held damaged bytes in %s (block %d)", self._folder, index)
            self._lose(index, block)
            # Another part may have it; the number of parts bounds the depth.
            return self._read_block(index, skip, size)
        return piece

    def _lose(self, index: int, block: Block) -> None:
        with self._mu:
            if self._blocks.get(index) is block:
                del self._blocks[index]
                self._unsaved.pop(index, None)
                # It may have gone into a digest already: what replaces it must be the same.
                self._known[index] = block.crc
                spare = self._spare.get(index)
                if spare and spare[-1].crc == block.crc:
                    self._blocks[index] = spare.pop()
                self._verdict_saved = False

    def missing(self, offset: int, size: int) -> list[tuple[int, int]]:
        """See Content."""
        end = min(self.size, offset + size)
        gaps: list[tuple[int, int]] = []
        if end <= offset:
            return gaps
        with self._mu:
            lacking = [
                index for index in range(offset // BLOCK, block_count(end)) if not self._has(index)
            ]
        for index in lacking:
            start, length = index * BLOCK, block_length(self.size, index)
            if gaps and sum(gaps[-1]) == start:
                start, length = gaps[-1][0], gaps.pop()[1] + length
            gaps.append((start, length))
        return gaps

    def _has(self, index: int) -> bool:
        block = self._blocks.get(index)
        if block is None:
            return False
        in_memory_only = block.fd < 0 and block.held is None
        return not in_memory_only or self._memory.get(id(self), index) is not None

    def complete(self) -> bool:
        """See Content."""
        with self._mu:
            if len(self._blocks) < block_count(self.size):
                return False
            return all(self._has(index) for index in self._blocks)

    def checksums(self) -> dict[int, int]:
        """See Content."""
        with self._mu:
            here = {index: block.crc for index, block in self._blocks.items()}
            return self._known | here

    @property
    def verdict(self) -> Verdict:
        """See Content."""
        return self._verdict

    @property
    def on_disk(self) -> bool:
        """See Content."""
        return self._on_disk

    def digest(self, progress: Callable[[], None] | None = None) -> str:
        """See Content."""
        md5 = hashlib.md5(usedforsecurity=False)
        for start in range(0, self.size, BLOCK):
            piece = self.read(start, BLOCK)
            if piece is None:
                return ""
            md5.update(piece)
            if progress is not None:
                progress()
        return md5.hexdigest()

    # writing

    def put(self, offset: int, piece: bytes) -> bool:
        """See Content."""
        if offset % BLOCK or (len(piece) % BLOCK and offset + len(piece) != self.size):
            raise ValueError(f"not whole blocks: {len(piece)} bytes at {offset}")
        if offset + len(piece) > self.size:
            raise ValueError(f"past the end: {len(piece)} bytes at {offset} of {self.size}")
        for start in range(0, len(piece), BLOCK):
            block = piece if len(piece) <= BLOCK else piece[start : start + BLOCK]
            if not self._put_block((offset + start) // BLOCK, block):
                return False
        if len(self._unsaved) * BLOCK >= _SAVE_AFTER:
            self.save()
        return True

    def _put_block(self, index: int, piece: bytes) -> bool:
        crc = zlib.crc32(piece)
        with self._mu:
            if self._known.get(index, crc) != crc:
                return False
            if self._has(index):
                return True
            epoch = self._epoch
        fd = self._write(index, piece)
        with self._mu:
            if epoch != self._epoch or self._has(index):
                return True
            if fd < 0:
                self._on_disk = False
                self._memory.put(id(self), index, piece)
                self._blocks[index] = Block(crc, -1, checked=True)
            else:
                block = Block(crc, fd, checked=True, held=piece)
                self._blocks[index] = self._unsaved[index] = block
        return True

    def _write(self, index: int, piece: bytes) -> int:
        """The descriptor of our part, which has the block now; -1 when the disk has no room."""
        if not self._room.admit(len(piece)):
            return -1
        try:
            fd = self._own_part()
            disk.write_all(fd, piece, index * BLOCK)
        except OSError as error:
            self._room.full(error)
            return -1
        return fd

    def _own_part(self) -> int:
        """Raises OSError."""
        with self._mu:
            if self._own >= 0:
                return self._own
            epoch = self._epoch
        path = self._folder / f"{self._part}{layout.BYTES_SUFFIX}"
        make_private(self._folder)
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with self._mu:
            self._fds.append(fd)
            if epoch != self._epoch:
                return fd
            # Another thread may have been first: the map lists what lies behind one descriptor.
            self._own = fd if self._own < 0 else self._own
            return self._own

    def save(self) -> None:
        """See Content."""
        with self._saving:
            with self._mu:
                unsaved, self._unsaved = self._unsaved, {}
                if not unsaved and self._verdict_saved:
                    return
                epoch, own = self._epoch, self._own
            if own < 0:
                self._verdict_saved = True
                return
            try:
                disk.flush(own)
                part = self._own_map(own)
                path = self._folder / f"{self._part}{layout.MAP_SUFFIX}"
                os.close(disk.write_beside(path, (layout.pack_map(self.size, part),)))
            except FileNotFoundError:
                # Somebody evicted or dropped the folder; our descriptors go on reading.
                self._settle(unsaved)
            except OSError as error:
                self._room.full(error)
                self._unlist(unsaved, epoch)
            else:
                self._settle(unsaved)

    def _own_map(self, own: int) -> PartMap:
        with self._mu:
            here = {index: block.crc for index, block in self._blocks.items() if block.fd == own}
            known = {index: crc for index, crc in self._known.items() if index not in here}
            covered = len(here) + len(known) == block_count(self.size)
            verdict = self._verdict if covered else Verdict.OPEN
            self._verdict_saved = True
        return PartMap(verdict, here, known if covered else {})

    @staticmethod
    def _settle(blocks: dict[int, Block]) -> None:
        for block in blocks.values():
            block.held = None

    def _unlist(self, blocks: dict[int, Block], epoch: int) -> None:
        """A disk that refuses late: what it was given is kept in memory, and not believed."""
        with self._mu:
            if epoch != self._epoch:
                return
            self._on_disk = False
            for index, block in blocks.items():
                if self._blocks.get(index) is block and block.held is not None:
                    self._memory.put(id(self), index, block.held)
                    self._blocks[index] = Block(block.crc, -1, checked=True)

    def mark_verified(self) -> None:
        """See Content."""
        self._mark(Verdict.VERIFIED)

    def mark_contradicting(self) -> None:
        """See Content."""
        self._mark(Verdict.CONTRADICTS)

    def _mark(self, verdict: Verdict) -> None:
        with self._mu:
            self._verdict = verdict
            self._known |= {index: block.crc for index, block in self._blocks.items()}
            self._verdict_saved = False
        self.save()

    def drop(self) -> None:
        """See Content."""
        with self._mu:
            self._clear()
        self._memory.forget(id(self))
        remove(self._folder)

    def close(self) -> None:
        """See Content."""
        self._closed()
