"""Many files in one answer: zip, tar and tar.gz, made while they are sent (R§3.4).

zip entries carry sizes and CRC in their local headers (so stored files are read twice, as the
real server does); tar entries carry the exact mtime and mode 060 (R§12.6).
"""

from __future__ import annotations

import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, cast

from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Project, Resource
from xnatfs.demo.wire import Query, Reply

FORMATS = {
    "zip": ("zip", "application/zip"),
    "tar": ("tar", "application/x-tar"),
    "tar.gz": ("tar.gz", "application/x-gtar"),
}
_PIECE = 1 << 19  # bytes handed to the front at once
_ZIP64_FROM = 0x7FFFFFFF


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
        is_packed = query.get("compression", "0") == "8"
        method = zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED
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


class _Sink:
    """What zipfile writes to: it cannot be sought in, and is emptied piece by piece."""

    def __init__(self) -> None:
        self._held = bytearray()

    def write(self, piece: bytes) -> int:
        self._held += piece
        return len(piece)

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        piece = bytes(self._held)
        self._held.clear()
        return piece


def zipped(members: Sequence[Member], method: int) -> Iterator[bytes]:
    """A zip stream; ZIP64 where sizes or offsets ask for it."""
    sink = _Sink()
    packed = zipfile.ZipFile(cast(IO[bytes], sink), "w", method)
    out = cast(IO[bytes], packed.fp)  # it counts what is written
    for member in members:
        state = member.place.stat()
        moment = max(time.gmtime(state.st_mtime)[:6], (1980, 1, 1, 0, 0, 0))
        info = zipfile.ZipInfo(member.name, moment)
        info.compress_type, info.create_system = method, 0
        if method == zipfile.ZIP_STORED:
            # By hand: zipfile would put size and CRC behind the bytes, XNAT has them before.
            info.header_offset = out.tell()
            info.CRC, info.file_size = _sum(member.place)
            info.compress_size = info.file_size
            out.write(info.FileHeader())
            for piece in _exactly(member.place, info.file_size):
                out.write(piece)
                yield sink.taken()
            packed.filelist.append(info)
            packed.start_dir = out.tell()
        else:
            with packed.open(info, "w", force_zip64=state.st_size >= _ZIP64_FROM) as entry:
                for piece in _read(member.place):
                    entry.write(piece)
                    yield sink.taken()
    packed.comment = b""  # so that the central directory is written whatever was done above
    packed.close()
    yield sink.taken()


def _sum(place: Path) -> tuple[int, int]:
    crc = size = 0
    for piece in _read(place):
        crc, size = zlib.crc32(piece, crc), size + len(piece)
    return crc, size
