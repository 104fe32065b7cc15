"""Many files in one answer: zip, tar and tar.gz, made while they are sent (R§3.4).

zip entries carry sizes and CRC in their local headers (so stored files are read twice, as the
real server does); tar entries carry the exact mtime and mode 060 (R§12.6).
"""

from __future__ import annotations

import tarfile
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from struct import pack

from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Project, Resource
from xnatfs.demo.wire import Query, Reply

FORMATS = {
    "zip": ("zip", "application/zip"),
    "tar": ("tar", "application/x-tar"),
    "tar.gz": ("tar.gz", "application/x-gtar"),
}
_PIECE = 1 << 19  # bytes handed to the front at once
_ZIP64_FROM = 0xFFFFFFFF
_STORED, _DEFLATED = 0, 8


def format_of(query: Query) -> str:
    """The bulk format that a query asks for, "" if none."""
    wish = query.get("format").lower()
    return FORMATS[wish][0] if wish in FORMATS else ""


@dataclass(frozen=True, slots=True)
class Member:
    """One file of a bulk download: its name there and where its bytes are."""

    name: str
    place: Path


class Naming:
    """The names of entries, by the `structure=` parameter (R§3.4, R§12.3)."""

    def __init__(self, structure: str, bulk_format: str, *, through_scans: bool) -> None:
        self._structure = structure
        self._tar = bulk_format != "zip"
        self._through_scans = through_scans

    def name(self, holder: Holder, resource: Resource, path: str) -> str:
        """The entry's name for a file of a resource."""
        label = resource.label or resource.id
        path = self._replaced(holder, path)
        if self._structure == "legacy":
            return "/".join(resource.directory.split("/")[3:]) + f"/{path}"
        if self._structure == "simplified":
            full = f"{holder.entry}/resources/{label}/files/{path}"
            return full.replace("/resources", "").replace("/files", "")
        suffix = holder.entry_suffix if self._through_scans else ""
        if self._structure == "improved":
            suffix = "" if self._tar else suffix.replace("-", "_", 1)
            return f"{holder.entry}{suffix}/{label}/{path}"
        return f"{holder.entry}{suffix}/resources/{label}/files/{path}"

    def _replaced(self, holder: Holder, path: str) -> str:
        """The path as ids in it come out: they are replaced by labels everywhere (R§3.4)."""
        guard = holder.guard
        if not isinstance(guard, Project):
            path = path.replace(guard.id, guard.label)
        if holder.category != "scans" or not self._through_scans or self._structure:
            return path
        named = holder.cat_id + holder.entry_suffix
        return "/".join(named if it == holder.cat_id else it for it in path.split("/"))


def reply(members: Sequence[Member], bulk_format: str, label: str, query: Query) -> Reply:
    """The streamed answer with all members."""
    if bulk_format == "zip":
        method = _DEFLATED if query.get("compression", "0") == "8" else _STORED
        pieces = zipped(members, method)
    elif bulk_format == "tar":
        pieces = tarred(members)
    else:
        pieces = _gzipped(tarred(members))
    media_type = FORMATS[bulk_format][1]
    name = f"{label}.{bulk_format}"
    return Reply(
        headers=(("Content-Disposition", f'attachment; filename="{name}";'),),
        body=_gathered(pieces),
        media_type=media_type,
        streamed=True,
    )


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of a useful size."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= _PIECE:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _read(place: Path) -> Iterator[bytes]:
    with place.open("rb") as stream:
        while piece := stream.read(_PIECE):
            yield piece


def tarred(members: Sequence[Member]) -> Iterator[bytes]:
    """A tar stream; names over 100 bytes as POSIX extended headers."""
    for member in members:
        state = member.place.stat()
        header = tarfile.TarInfo(member.name)
        header.size = state.st_size
        header.mtime = int(state.st_mtime)
        header.mode = 0o060
        if len(member.name.encode()) > 100 or state.st_size >= 1 << 33:
            yield header.tobuf(tarfile.PAX_FORMAT, "utf-8")
        else:
            yield header.tobuf(tarfile.USTAR_FORMAT, "utf-8")
        yield from _exactly(member.place, state.st_size)
        yield bytes(-state.st_size % 512)
    yield bytes(1024)


def _exactly(place: Path, size: int) -> Iterator[bytes]:
    """`size` bytes of a file; if it shrank meanwhile the stream breaks off."""
    left = size
    for piece in _read(place):
        yield piece[:left]
        left -= min(left, len(piece))
    if left:
        raise OSError(f"{place} became shorter while it was sent")


def _gzipped(pieces: Iterable[bytes]) -> Iterator[bytes]:
    packer = zlib.compressobj(6, zlib.DEFLATED, 31)
    for piece in pieces:
        yield packer.compress(piece)
    yield packer.flush()


@dataclass(frozen=True, slots=True)
class _Placed:
    """What the central directory needs of an entry that was written."""

    name: bytes
    method: int
    stamp: bytes
    crc: int
    packed: int
    size: int
    offset: int


def zipped(members: Sequence[Member], method: int) -> Iterator[bytes]:
    """A zip stream; ZIP64 where sizes or offsets ask for it."""
    placed: list[_Placed] = []
    offset = 0
    for member in members:
        stamp = _dos_time(member.place.stat().st_mtime)
        name = member.name.encode()
        if method == _STORED:
            crc, size = _sum(member.place)
            entry = _Placed(name, method, stamp, crc, size, size, offset)
            yield _local_header(entry, flags=0x800)
            yield from _exactly(member.place, size)
            written = len(_local_header(entry, flags=0x800)) + size
        else:
            start = _Placed(name, method, stamp, 0, 0, 0, offset)
            header = _local_header(start, flags=0x808)
            yield header
            packer = zlib.compressobj(-1, zlib.DEFLATED, -15)
            crc = size = packed = 0
            for piece in _read(member.place):
                crc, size = zlib.crc32(piece, crc), size + len(piece)
                out = packer.compress(piece)
                packed += len(out)
                yield out
            out = packer.flush()
            packed += len(out)
            yield out + pack("<IIII", 0x08074B50, crc, packed, size)
            entry = _Placed(name, method, stamp, crc, packed, size, offset)
            written = len(header) + packed + 16
        placed.append(entry)
        offset += written
    yield _central(placed, offset)


def _sum(place: Path) -> tuple[int, int]:
    crc = size = 0
    for piece in _read(place):
        crc, size = zlib.crc32(piece, crc), size + len(piece)
    return crc, size


def _dos_time(mtime: float) -> bytes:
    moment = time.gmtime(mtime)
    day = (max(moment.tm_year, 1980) - 1980) << 9 | moment.tm_mon << 5 | moment.tm_mday
    clock = moment.tm_hour << 11 | moment.tm_min << 5 | moment.tm_sec // 2
    return pack("<HH", clock, day)


def _local_header(entry: _Placed, *, flags: int) -> bytes:
    size, extra = entry.size, b""
    if size >= _ZIP64_FROM:
        extra = pack("<HHQQ", 1, 16, size, size)
        size = _ZIP64_FROM
    return (
        pack("<IHHH", 0x04034B50, 45 if extra else 20, flags, entry.method)
        + entry.stamp
        + pack("<IIIHH", entry.crc, size, size, len(entry.name), len(extra))
        + entry.name
        + extra
    )


def _central(placed: Sequence[_Placed], start: int) -> bytes:
    out = bytearray()
    for entry in placed:
        wide = [value for value in (entry.size, entry.packed, entry.offset) if value >= _ZIP64_FROM]
        extra = pack("<HH", 1, 8 * len(wide)) + b"".join(pack("<Q", it) for it in wide)
        extra = extra if wide else b""
        flags = 0x808 if entry.method == _DEFLATED else 0x800
        out += pack("<IHHHH", 0x02014B50, 20, 45 if wide else 20, flags, entry.method)
        out += entry.stamp
        out += pack(
            "<IIIHHHHHII", entry.crc, min(entry.packed, _ZIP64_FROM), min(entry.size, _ZIP64_FROM),
            len(entry.name), len(extra), 0, 0, 0, 0, min(entry.offset, _ZIP64_FROM),
        )  # fmt: skip
        out += entry.name + extra
    count, size = len(placed), len(out)
    if count >= 0xFFFF or start >= _ZIP64_FROM:
        out += pack("<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, count, count, size, start)
        out += pack("<IIQI", 0x07064B50, 0, start + size, 1)
    out += pack(
        "<IHHHHIIH", 0x06054B50, 0, 0, min(count, 0xFFFF), min(count, 0xFFFF),
        size, min(start, _ZIP64_FROM), 0,
    )  # fmt: skip
    return bytes(out)
