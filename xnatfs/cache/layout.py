"""How content lies on disk: names, the seal of small content, the map of big content.

    <cache-dir>/CACHEDIR.TAG
    <cache-dir>/<server>/content/<xx>/<key>            small: the bytes, then a seal of 32 bytes
    <cache-dir>/<server>/content/<xx>/<key>/<part>.bytes   big: a sparse file of blocks
    <cache-dir>/<server>/content/<xx>/<key>/<part>.map     which blocks are in it, a CRC for each

    <cache-dir>/<server>/claims/<xx>                   locked by who fetches what; empty
    <cache-dir>/<server>/listings/…                    see ``shelf``

A part is written by one process only, so nobody ever writes over bytes that another process has
checked; everybody reads all parts. A name that starts with "." is on its way in or out. Pure:
no I/O here but names.
"""

from __future__ import annotations

import struct
import sys
import zlib
from array import array
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache.content import BLOCK, Verdict

CONTENT = "content"
CLAIMS = "claims"
LISTINGS = "listings"
VOID = "void"
BYTES_SUFFIX = ".bytes"
MAP_SUFFIX = ".map"
# Written beside, not yet renamed into place; renamed away, not yet removed.
BESIDE = ".new-"
DOOMED = ".old-"

TAG_NAME = "CACHEDIR.TAG"
# The text is fixed by https://bford.info/cachedir/.
TAG_TEXT = (
    "Signature: 8a477f597d28d172789f06886806bc55\n"
    "# Content of an XNAT archive, kept by xnatfs. Safe to delete.\n"
)

_FORMAT = 1
_MAP_FORMAT = 2

# magic, format, verdict, size of the content, CRC of the content, CRC of the fields before.
_SEAL = struct.Struct("<8sIIQII")
_SEAL_MAGIC = b"xnatseal"
SEAL_SIZE = _SEAL.size

# magic, format, verdict, size of the content, block size, length of the date. Then a byte for each
# block (ABSENT …), their CRCs as 32-bit words, the Last-Modified of the file that the blocks are
# of, and the CRC of everything before.
_MAP = struct.Struct("<8sIIQII")
_MAP_MAGIC = b"xnat-map"
_WORD = struct.Struct("<I")

ABSENT = 0
# The block is in this part.
HERE = 1
# The block is in another part; its CRC is known because the whole was checked.
KNOWN = 2


@dataclass(frozen=True, slots=True)
class Seal:
    """What the end of a small content's file tells."""

    verdict: Verdict
    size: int
    crc: int


@dataclass(frozen=True, slots=True)
class PartMap:
    """What the map of one part tells."""

    # OPEN, or the verdict on the whole content that the blocks here and known together make.
    verdict: Verdict
    # A byte for each block: ABSENT, HERE or KNOWN.
    states: bytes
    # A CRC32 for each block; of absent ones nothing.
    crcs: array[int]
    # Last-Modified of the file that the blocks are of; "" when not known.
    modified: str = ""


def content_path(folder: Path, key: str) -> Path:
    """The place of a key in a server's folder; 256 folders keep each one short."""
    # The first two characters of a digest are evenly spread; "x" keys are so behind their x.
    spread = key[1:3] if key.startswith("x") else key[:2]
    return Path(f"{folder}/{CONTENT}/{spread}/{key}")


def block_count(size: int) -> int:
    """Blocks of a content of ``size`` bytes."""
    return -(-size // BLOCK)


def block_length(size: int, index: int) -> int:
    """Bytes of block ``index``: the last one may be short."""
    return min(BLOCK, size - index * BLOCK)


def pack_seal(seal: Seal) -> bytes:
    """The bytes that follow a small content."""
    fields = _SEAL.pack(_SEAL_MAGIC, _FORMAT, seal.verdict, seal.size, seal.crc, 0)[:-4]
    return fields + _WORD.pack(zlib.crc32(fields))


def parse_seal(raw: bytes) -> Seal | None:
    """The seal, or None when it is torn, damaged or of another format."""
    if len(raw) != SEAL_SIZE:
        return None
    magic, form, verdict, size, crc, check = _SEAL.unpack(raw)
    if (magic, form, check) != (_SEAL_MAGIC, _FORMAT, zlib.crc32(raw[:-4])):
        return None
    return Seal(Verdict(verdict), size, crc) if verdict in _VERDICTS else None


def pack_map(size: int, part: PartMap) -> bytes:
    """The map file of one part of a content of ``size`` bytes."""
    dated = part.modified.encode()
    head = _MAP.pack(_MAP_MAGIC, _MAP_FORMAT, part.verdict, size, BLOCK, len(dated))
    raw = b"".join((head, part.states, little(part.crcs).tobytes(), dated))
    return raw + _WORD.pack(zlib.crc32(raw))


def parse_map(raw: bytes, size: int) -> PartMap | None:
    """The map, or None when it is torn, damaged, of another format or of another content."""
    blocks = block_count(size)
    fixed = _MAP.size + 5 * blocks
    if len(raw) < fixed + _WORD.size or _WORD.unpack(raw[-4:])[0] != zlib.crc32(raw[:-4]):
        return None
    magic, form, verdict, told_size, block, dated = _MAP.unpack_from(raw)
    if (magic, form, told_size, block) != (_MAP_MAGIC, _MAP_FORMAT, size, BLOCK):
        return None
    if verdict not in _VERDICTS or len(raw) != fixed + dated + _WORD.size:
        return None
    states = raw[_MAP.size : _MAP.size + blocks]
    if verdict != Verdict.OPEN and states.count(ABSENT):
        return None
    crcs = array("I", raw[_MAP.size + blocks : fixed])
    modified = raw[fixed : fixed + dated].decode(errors="replace")
    return PartMap(Verdict(verdict), states, little(crcs), modified)


def little(words: array[int]) -> array[int]:
    """The words in the order of bytes on disk, or back; on most machines they are that already."""
    if sys.byteorder == "little":
        return words
    swapped = array("I", words)
    swapped.byteswap()
    return swapped


_VERDICTS = frozenset(int(verdict) for verdict in Verdict)
