"""The parts of a big content on disk: what each process that fetched some of it left."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache import disk, layout
from xnatfs.cache.layout import PartMap

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One process's share of a content."""

    name: str
    map: PartMap
    # Of its bytes; open for writing if the part is ours. The finder's caller closes it.
    fd: int


class Block:
    """Where one block is, and whether this process may trust it."""

    __slots__ = ("checked", "crc", "fd", "held")

    def __init__(self, crc: int, fd: int, *, checked: bool, held: bytes | None = None) -> None:
        self.crc = crc
        # Descriptor of the part, or -1 for one that is in memory only.
        self.fd = fd
        self.checked = checked
        # The bytes, while a network disk may still refuse what was written.
        self.held = held


def find_parts(folder: Path, size: int, own: str) -> list[Part]:
    """The usable parts of a content.

    Args:
        folder: the content's folder; need not exist.
        size: of the content, bytes.
        own: name of the part that this process may write.
    """
    try:
        names = sorted(name for name in os.listdir(folder) if name.endswith(layout.MAP_SUFFIX))
    except OSError:
        return []
    found = (_find(folder / name, size, own) for name in names)
    return [part for part in found if part is not None]


def _find(path: Path, size: int, own: str) -> Part | None:
    try:
        map_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        raw = disk.read_exactly(map_fd, os.fstat(map_fd).st_size, 0)
        disk.touch(map_fd)
    finally:
        os.close(map_fd)
    part_map = None if raw is None else layout.parse_map(raw, size)
    if part_map is None:
        log.warning("the store held a damaged map in %s: its blocks are fetched again", path)
        return None
    access = os.O_RDWR if path.stem == own else os.O_RDONLY
    try:
        bytes_path = path.with_suffix(layout.BYTES_SUFFIX)
        fd = os.open(bytes_path, access | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    return Part(path.stem, part_map, fd)
