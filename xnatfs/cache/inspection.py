"""Reading all of the store again, for ``xnatfs cache verify``."""

from __future__ import annotations

import hashlib
import os
import re
import zlib
from pathlib import Path

from xnatfs.cache import disk, layout
from xnatfs.cache.content import BLOCK, Verdict
from xnatfs.cache.layout import block_length

# Version.key of a version with a digest.
_BY_DIGEST = re.compile(r"([0-9a-f]{32})-\d+")


def sound(path: Path) -> bool | None:
    """Whether a content on disk is what its seal or maps say; None when it has gone meanwhile."""
    try:
        if path.is_dir():
            return all(_sound_part(map_path) for map_path in path.glob(f"*{layout.MAP_SUFFIX}"))
        return _sound_file(path.name, path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        # ValueError: a folder that is not ours, whose name tells no size.
        return False


def _sound_file(key: str, raw: bytes) -> bool:
    seal = layout.parse_seal(raw[-layout.SEAL_SIZE :])
    whole = raw[: -layout.SEAL_SIZE]
    if seal is None or seal.size != len(whole) or seal.crc != zlib.crc32(whole):
        return False
    digest = _BY_DIGEST.fullmatch(key)
    if digest is None or seal.verdict is not Verdict.VERIFIED:
        return True
    return hashlib.md5(whole, usedforsecurity=False).hexdigest() == digest[1]


def _sound_part(map_path: Path) -> bool:
    size = int(map_path.parent.name.rpartition("-")[2])
    part = layout.parse_map(map_path.read_bytes(), size)
    if part is None:
        return False
    fd = os.open(map_path.with_suffix(layout.BYTES_SUFFIX), os.O_RDONLY | os.O_CLOEXEC)
    try:
        for index, state in enumerate(part.states):
            if state != layout.HERE:
                continue
            block = disk.read_exactly(fd, block_length(size, index), index * BLOCK)
            if block is None or zlib.crc32(block) != part.crcs[index]:
                return False
    finally:
        os.close(fd)
    return True
