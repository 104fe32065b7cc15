"""Many files in one answer: zip, tar and tar.gz, made while they are sent (R§3.4).

zip entries carry sizes and CRC in their local headers (so stored files are read twice, as the
real server does); tar entries carry the exact mtime and mode 060 (R§12.6).
"""

from __future__ import annotations

import tarfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, cast

from xnatfs.demo.objects import Holder, Resource
from xnatfs.demo.wire import PIECE, FileSlice, Query, Reply

_MEDIA_TYPES = {
    "zip": "application/zip",
    "tar": "application/x-tar",
    "tar.gz": "application/x-gtar",
}

Member = tuple[str, FileSlice]  # its name in the archive, its bytes


def format_of(query: Query, path: str) -> str:
    """The bulk format that a query asks for, "" if none, or if the file is one already."""
    wish = query.get("format").lower()
    return wish if wish in _MEDIA_TYPES and not path.lower().endswith(f".{wish}") else ""


def entry_name(
    structure: str, holder: Holder, resource: Resource, path: str, *, tar: bool, through_scans: bool
) -> str:
    """The name of a file in an archive, by the `structure=` parameter (R§3.4, R§12.3)."""
    label = resource.label or resource.id
    suffix = holder.entry_suffix if through_scans else ""
    # Ids are replaced by labels wherever they occur.
    if holder.guard.kind != "project":
        path = path.replace(holder.guard.id, holder.guard.label)
    if suffix and not structure:
        own = holder.cat_id
        path = "/".join(own + suffix if it == own else it for it in path.split("/"))
    if structure == "legacy":
        return "/".join(resource.directory.split("/")[3:]) + f"/{path}"
    if structure == "simplified":
        full = f"{holder.entry}/resources/{label}/files/{path}"
        return full.replace("/resources", "").replace("/files", "")
    if structure == "improved":
        return f"{holder.entry}{'' if tar else suffix.replace('-', '_', 1)}/{label}/{path}"
    return f"{holder.entry}{suffix}/resources/{label}/files/{path}"


def reply(members: Iterable[Member], bulk_format: str, label: str, query: Query) -> Reply:
    """The streamed answer with all members."""
    if bulk_format == "zip":
        is_packed = query.get("compression", "0") == "8"
        pieces = _zipped(members, zipfile.ZIP_DEFLATED if is_packed else zipfile.ZIP_STORED)
    else:
        pieces = _tarred(members) if bulk_format == "tar" else _gzipped(_tarred(members))
    disposition = ("Content-Disposition", f'attachment; filename="{label}.{bulk_format}";')
    body = _gathered(pieces)
    return Reply(200, (disposition,), body, _MEDIA_TYPES[bulk_format], streamed=True)


def _gathered(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes in pieces of a useful size."""
    waiting = bytearray()
    for piece in pieces:
        waiting += piece
        if len(waiting) >= PIECE // 2:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


def _tarred(members: Iterable[Member]) -> Iterator[bytes]:
    """A tar stream; names over 100 bytes as POSIX extended headers."""
    for name, content in members:
        header = tarfile.TarInfo(name)
        header.size, header.mtime, header.mode = content.size, int(content.mtime), 0o060
        is_long = len(name.encode()) > 100 or content.size >= 1 << 33
        yield header.tobuf(tarfile.PAX_FORMAT if is_long else tarfile.USTAR_FORMAT, "utf-8")
        yield from content.pieces()
        yield bytes(-content.size % 512)
    yield bytes(1024)


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


def _zipped(members: Iterable[Member], method: int) -> Iterator[bytes]:
    """A zip stream; ZIP64 where sizes or offsets ask for it."""
    sink = _Sink()
    packed = zipfile.ZipFile(cast(IO[bytes], sink), "w", method)
    out = cast(IO[bytes], packed.fp)  # it counts what is written
    for name, content in members:
        moment = max(time.gmtime(content.mtime)[:6], (1980, 1, 1, 0, 0, 0))
        info = zipfile.ZipInfo(name, moment)
        info.compress_type, info.create_system = method, 0
        if method == zipfile.ZIP_STORED:
            # By hand: zipfile would put size and CRC behind the bytes, XNAT has them before.
            info.header_offset = out.tell()
            info.compress_size = info.file_size = content.size
            info.CRC = 0
            for piece in content.pieces():
                info.CRC = zlib.crc32(piece, info.CRC)
            out.write(info.FileHeader())
            for piece in content.pieces():
                out.write(piece)
                yield sink.taken()
            packed.filelist.append(info)
            packed.start_dir = out.tell()
        else:
            with packed.open(info, "w", force_zip64=content.size >= 1 << 31) as entry:
                for piece in content.pieces():
                    entry.write(piece)
                    yield sink.taken()
    packed.comment = b""  # so that the central directory is written whatever was done above
    packed.close()
    yield sink.taken()
