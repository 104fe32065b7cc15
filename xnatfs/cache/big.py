"""Big content: blocks in sparse files, one file for each process that fetched some of them.

A block is written before the map says that it is there, the map is replaced in one step, and a
block is compared with its CRC before the first byte of it is handed out in a process. So a kill
at any moment costs at most the blocks that no map names yet.
"""

from __future__ import annotations

import errno
import logging
import os
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path

from xnatfs.cache import disk, layout
from xnatfs.cache.blocks import MEMORY, NOWHERE, Blocks, runs
from xnatfs.cache.content import BLOCK, Content, Verdict
from xnatfs.cache.eviction import Room, remove
from xnatfs.cache.layout import block_length
from xnatfs.cache.memory import Memory
from xnatfs.cache.parts import Finder
from xnatfs.config import MIB, make_private

log = logging.getLogger(__name__)

# Blocks wait in memory until the disk has surely taken them; no more than this much of a content.
_SETTLE_AFTER = 8 * MIB
# The map is written again when so much has come; of a large content, whose map is large, more.
_SAVE_AFTER = MIB
_SAVES = 256
# … or when something has come, and this long has passed. Seconds.
_SAVE_EVERY_S = 2.0


class BigContent(Content):
    """Content of more than SMALL bytes.

    Args:
        folder: the content's folder; made when the first block is put.
        size: bytes.
        part: name of the part that this process writes, unique among processes.
        room: whether more may go to disk.
        memory: where blocks go otherwise.
        closed: called by ``close``.

    Threading: ``_mu`` guards the fields and is never held across I/O; ``_lifecycle`` orders
    ``load``, ``look`` and ``unload``; ``_saving`` lets one thread at a time write the map, and
    ``_putting`` one write blocks: two that bring the same one may have it differently.
    Descriptors stay open until the last ``unload``, so a read that began before a drop ends
    well; and ``_blocks`` is another object after it, so what was written before is not listed.
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
        self._putting = threading.Lock()
        self._loaded = False
        self._fds: list[int] = []
        self._finder = Finder(folder, size, part)
        self._forget()

    def _forget(self) -> None:
        self._blocks = Blocks(self.size)
        # Bytes that no map on disk tells of, and whether it tells the verdict.
        self._new = 0
        self._verdict_saved = True
        self._saved_at = time.monotonic()

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
                self._forget()
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
        blocks = self._blocks
        # Those with a verdict first: it says which blocks of the others count.
        parts = sorted(self._finder.changed(), key=lambda part: -part.map.verdict)
        with self._mu:
            self._fds.extend(part.fd for part in parts if part.fresh)
            if blocks is not self._blocks:
                # Dropped meanwhile: these are of what was dropped.
                return
            for part in parts:
                if part.map.verdict <= worst:
                    number = blocks.adopt(part.map, part.fd)
                    blocks.own = number if part.name == self._part else blocks.own

    # reading

    def read(self, offset: int, size: int) -> bytes | None:
        """See Content."""
        end = min(self.size, offset + size)
        pieces = []
        while offset < end:
            piece = self._read_run(self._blocks, offset, end)
            if piece is None:
                return None
            pieces.append(piece)
            offset += len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _read_run(self, blocks: Blocks, start: int, end: int) -> bytes | None:
        """Bytes from ``start`` as far as they lie in one place; None: they are not here."""
        index = start // BLOCK
        place = blocks.place[index]
        if place == NOWHERE:
            return None
        stop = min(end, (index + 1) * BLOCK)
        held = blocks.held.get(index)
        if held is not None:
            return bytes(held[start - index * BLOCK : stop - index * BLOCK])
        if place == MEMORY:
            kept = self._memory.get(id(self), index)
            if kept is None:
                self._lose(blocks, index, place)
                return None
            return kept[start - index * BLOCK : stop - index * BLOCK]
        _, behind = runs(self.size, start, end)
        last = index
        while last < behind and blocks.place[last] == place and last not in blocks.held:
            if not blocks.trusted[last] and not self._check(blocks, last, place):
                break
            last += 1
        piece = None
        if last > index:
            length = min(end, last * BLOCK) - start
            piece = disk.read_exactly(blocks.fd(place), length, start)
        if piece is None:
            log.warning("the store held damaged bytes in %s (block %d)", self._folder, index)
            self._lose(blocks, index, place)
            # Another part may have it; the number of parts bounds the depth.
            return self._read_run(blocks, start, end)
        return piece

    def _check(self, blocks: Blocks, index: int, place: int) -> bool:
        whole = disk.read_exactly(blocks.fd(place), block_length(self.size, index), index * BLOCK)
        if whole is None or zlib.crc32(whole) != blocks.crc[index]:
            return False
        blocks.trusted[index] = 1
        return True

    def _lose(self, blocks: Blocks, index: int, place: int) -> None:
        with self._mu:
            blocks.lose(index, place)
            self._verdict_saved = False

    def missing(self, offset: int, size: int) -> list[tuple[int, int]]:
        """See Content."""
        end = min(self.size, offset + size)
        if end <= offset:
            return []
        first, stop = runs(self.size, offset, end)
        with self._mu:
            self._lose_forgotten(first, stop)
            absent = self._blocks.absent(first, stop)
        return [(at * BLOCK, min(to * BLOCK, self.size) - at * BLOCK) for at, to in absent]

    def _lose_forgotten(self, first: int, stop: int) -> None:
        """What went to memory may have had to go from there. Called with ``_mu``."""
        for index in self._blocks.in_memory(first, stop):
            if self._memory.get(id(self), index) is None:
                self._blocks.lose(index, MEMORY)

    def complete(self) -> bool:
        """See Content."""
        with self._mu:
            self._lose_forgotten(0, self._blocks.count)
            return NOWHERE not in self._blocks.place

    def checksums(self) -> dict[int, int]:
        """See Content."""
        with self._mu:
            return self._blocks.checksums()

    @property
    def verdict(self) -> Verdict:
        """See Content."""
        return self._blocks.verdict

    @property
    def modified(self) -> str:
        """See Content."""
        return self._blocks.modified

    @modified.setter
    def modified(self, modified: str) -> None:
        self._blocks.modified = modified

    @property
    def on_disk(self) -> bool:
        """See Content."""
        return self._blocks.on_disk

    # writing

    def put(self, offset: int, piece: bytes | memoryview) -> bool:
        """See Content."""
        end = offset + len(piece)
        if offset % BLOCK or (end % BLOCK and end != self.size):
            raise ValueError(f"not whole blocks: {len(piece)} bytes at {offset}")
        if end > self.size:
            raise ValueError(f"past the end: {len(piece)} bytes at {offset} of {self.size}")
        view = memoryview(piece)
        first, stop = runs(self.size, offset, end)
        pieces = {
            index: view[(index - first) * BLOCK : (index - first + 1) * BLOCK]
            for index in range(first, stop)
        }
        crcs = {index: zlib.crc32(part) for index, part in pieces.items()}
        with self._putting:
            with self._mu:
                blocks = self._blocks
                if any(blocks.differs(index, crc) for index, crc in crcs.items()):
                    return False
                self._lose_forgotten(first, stop)
                gaps = blocks.absent(first, stop)
            for begin, behind in gaps:
                part = view[(begin - first) * BLOCK : (behind - first) * BLOCK]
                place = self._write(blocks, begin * BLOCK, part)
                with self._mu:
                    if blocks is not self._blocks:
                        return True
                    for index in range(begin, behind):
                        self._keep(blocks, index, crcs[index], pieces[index], place)
        if len(self._blocks.held) * BLOCK >= _SETTLE_AFTER:
            self._settle()
        if self._new >= max(_SETTLE_AFTER, self.size // _SAVES):
            self.save()
        return True

    def _keep(self, blocks: Blocks, index: int, crc: int, piece: memoryview, place: int) -> None:
        """A block has come and was written, or was not (MEMORY). Called with ``_mu``."""
        if place == MEMORY:
            blocks.on_disk = False
            self._memory.put(id(self), index, bytes(piece))
        else:
            blocks.held[index] = piece
            self._new += len(piece)
        blocks.put(index, crc, place)

    def _write(self, blocks: Blocks, offset: int, piece: memoryview) -> int:
        """The place of our part, which has the bytes now; MEMORY when the disk has no room."""
        if not self._room.admit(len(piece)):
            return MEMORY
        try:
            place = self._own_part(blocks)
            disk.write_all(blocks.fd(place), piece, offset)
        except OSError as error:
            self._room.full(error)
            return MEMORY
        return place

    def _own_part(self, blocks: Blocks) -> int:
        """Raises OSError."""
        with self._mu:
            if blocks.own != NOWHERE:
                return blocks.own
        path = self._folder / f"{self._part}{layout.BYTES_SUFFIX}"
        make_private(self._folder)
        fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        with self._mu:
            self._fds.append(fd)
            # Another thread may have been first: the map lists what lies behind one descriptor.
            if blocks.own == NOWHERE:
                blocks.own = blocks.number(fd)
            if blocks.own == NOWHERE:
                raise OSError(errno.EMFILE, "too many processes have fetched parts of one file")
            return blocks.own

    def _settle(self) -> bool:
        """See to it that the disk has taken what it was given; False when it refuses late."""
        with self._mu:
            blocks = self._blocks
            held = dict(blocks.held)
        try:
            if held:
                disk.flush(blocks.fd(blocks.own))
        except OSError as error:
            self._room.full(error)
            self._unlist(blocks, held)
            return False
        with self._mu:
            for index in held:
                blocks.held.pop(index, None)
        return True

    def _unlist(self, blocks: Blocks, held: dict[int, memoryview]) -> None:
        """What a disk refuses late is kept in memory, and not believed to be on it."""
        with self._mu:
            blocks.on_disk = False
            for index, piece in held.items():
                if blocks.held.pop(index, None) is not None:
                    self._memory.put(id(self), index, bytes(piece))
                    blocks.put(index, blocks.crc[index], MEMORY)

    def save(self) -> None:
        """See Content."""
        with self._saving:
            with self._mu:
                blocks, new = self._blocks, self._new
                if not new and self._verdict_saved:
                    return
                self._new, self._verdict_saved = 0, True
                self._saved_at = time.monotonic()
            if blocks.own == NOWHERE or not self._settle():
                return
            with self._mu:
                part = blocks.own_map()
            try:
                path = self._folder / f"{self._part}{layout.MAP_SUFFIX}"
                os.close(disk.write_beside(path, (layout.pack_map(self.size, part),)))
            except FileNotFoundError:
                # Somebody evicted or dropped the folder; our descriptors go on reading.
                return
            except OSError as error:
                self._room.full(error)

    def checkpoint(self) -> None:
        """See Content."""
        enough = self._new >= max(_SAVE_AFTER, self.size // _SAVES)
        if enough or (self._new and time.monotonic() - self._saved_at > _SAVE_EVERY_S):
            self.save()

    def mark_verified(self) -> None:
        """See Content."""
        self._mark(Verdict.VERIFIED)

    def mark_contradicting(self) -> None:
        """See Content."""
        self._mark(Verdict.CONTRADICTS)

    def _mark(self, verdict: Verdict) -> None:
        with self._mu:
            self._blocks.mark(verdict)
            self._verdict_saved = False
        self.save()

    def drop(self) -> None:
        """See Content."""
        with self._mu:
            self._forget()
        self._memory.forget(id(self))
        remove(self._folder)

    def close(self) -> None:
        """See Content."""
        self._closed()
