"""PUT, POST and DELETE of files: every status of R§4.5 and R§5.2, and how they go wrong (R§4.6).

Multipart bodies are spooled and moved into place; in-body ones go straight into the archive, so
that a broken transfer leaves its first part there.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from xnatfs.demo import addresses
from xnatfs.demo.calls import Call
from xnatfs.demo.catalog import Entry, matching
from xnatfs.demo.multipart import MultipartError, parts
from xnatfs.demo.objects import Holder, Resource
from xnatfs.demo.tables import json_text
from xnatfs.demo.wire import PIECE, Body, Refusal, Reply, text

# Content types whose body is the file itself (R§4.1); JSON is not among them, nor is
# application/gzip (R§12.10).
_IN_BODY = {
    "application/octet-stream": ".bin", "application/zip": ".zip", "application/x-gzip": ".gz",
    "application/x-gtar": ".tar.gz", "application/x-tar": ".tar", "application/pdf": ".pdf",
    "application/msword": ".doc", "application/excel": ".xls", "application/vnd.ms-excel": ".xls",
    "application/vnd.ms-powerpoint": ".ppt", "application/powerpoint": ".ppt",
    "application/dicom": ".dcm", "text/plain": ".txt", "text/xml": ".xml",
    "application/xml": ".xml", "text/csv": ".csv", "image/bmp": ".bmp", "image/gif": ".gif",
    "image/jpeg": ".jpg", "image/png": ".png", "image/svg+xml": ".svg", "image/tiff": ".tiff",
    "image/x-icon": ".ico", "video/mpeg": ".mpg", "video/mp4": ".mp4", "video/quicktime": ".mov",
    "video/x-msvideo": ".avi",
}  # fmt: skip
_ZIPS, _TARS = (".zip", ".zar"), (".tar", ".xar", ".tgz", ".tar.gz")
_NO_FORMAT = (
    "Unable to identify upload format. Send the file as multipart/form-data, or in the body with "
    "inbody=true."
)

Incoming = tuple[str, Callable[[Path], None]]  # a file's name, and what writes it to a place


def put(call: Call) -> Reply:
    """Store what the request brings."""
    query, named = call.query, call.variable("RES")
    holder = addresses.target(call, strict=True).holders[0]
    if named.isdigit():  # a database id, which must exist and be readable (R§4.4)
        addresses.resources(call, named, ())
    if not call.may("edit", holder):
        return text("")  # nothing is stored and nothing is said (R§4.5)
    path = call.file_path
    with ExitStack() as spooled:
        incoming = _incoming(call, path.rpartition("/")[2], spooled)
        if not incoming:
            raise Refusal(400, _NO_FORMAT)
        writer = _Writer(call, _resource(call, holder, named.split(",")[0]))
        duplicates: list[str] = []
        for name, write in incoming:
            if query.flag("extract") and name.lower().endswith((*_ZIPS, *_TARS, ".gz")):
                duplicates += writer.extract(name, write)
            else:
                duplicates += writer.store(path or name, write)
        writer.finish()
    if duplicates:
        return text(json_text({"duplicates": duplicates}), media_type="text/html")
    return text("")


def _resource(call: Call, holder: Holder, label: str) -> Resource:
    """The first resource of that name on this very level, made if there is none (R§12.8)."""
    query, rows = call.query, call.site.tables
    with rows.lock:
        own = rows.resources.of(holder.owner)
        found = next((it for it in own if not label or label in (it.label, it.id)), None)
        if found is None:
            first = "RAW" if holder.object.kind == "scan" and not own else ""
            content = query.get("content") or first
            found = call.site.archive.create(holder, label, call.user.name, content=content)
        names = ("format", "content", "description")
        changed = replace(
            found, **{it: query.get(it) or getattr(found, it) for it in names},
            tags=",".join(dict.fromkeys([*filter(None, found.tags.split(",")),
                                         *query.words("tags")])),
        )  # fmt: skip
        return rows.resources.put(changed) if changed != found else found


def _incoming(call: Call, named: str, spooled: ExitStack) -> list[Incoming]:
    """The files that a request brings; `named` is the last part of its path (R§4.1)."""
    media_type, is_in_body = call.media_type, call.query.flag("inbody")
    is_form = media_type in ("multipart/form-data", "application/x-www-form-urlencoded")
    if is_form and not is_in_body:
        content_type = call.headers.get("content-type", "")
        found: list[Incoming] = []
        for part in parts(call.body, content_type, call.site.archive.spool, spooled):
            if part.place is not None:
                found.append((part.filename, partial(_move, part.place)))
            elif part.field == "reference":
                raise MultipartError("a reference cannot stand in a form")
        return found
    if is_form or not (is_in_body or media_type in _IN_BODY):
        return []
    if not call.body.length and media_type != "application/zip":
        raise Refusal(500, "The body of the request has no length.")
    name = named or "upload" + _IN_BODY.get(media_type, ".unsupported")
    return [(name, partial(_stream, call.body))]


def _move(place: Path, destination: Path) -> None:
    shutil.move(place, destination)
    destination.chmod(0o644)


def _stream(body: Body, destination: Path) -> None:
    with destination.open("wb", buffering=0) as out:
        while piece := body.read(PIECE):
            out.write(piece)


class _Writer:
    """Writes the files of one request into a resource and its catalog.

    The catalog is read now and rewritten at the end: what others changed meanwhile is a conflict,
    and the bytes lie in place without being listed.
    """

    def __init__(self, call: Call, resource: Resource) -> None:
        self._call = call
        self._archive = call.site.archive
        self._resource = resource
        self._event = call.site.tables.number("event")
        self._base = self._archive.base(resource, conflict=call.conflict)
        self._entries = {entry.uri: entry for entry in self._base.entries}
        self._changed = False

    def store(self, path: str, write: Callable[[Path], None]) -> list[str]:
        """Write one file; returns its path if it exists and may not be overwritten."""
        place, query = self._archive.file(self._resource, path), self._call.query
        if place.exists():
            if not query.flag("overwrite"):
                return [path]
            if place.name.endswith("_catalog.xml") or place.name.startswith(".~lock-"):
                raise OSError(f"XNAT cannot catalog {place.name}")
            if place.is_dir():
                raise IsADirectoryError(f"{place} (Is a directory)")
            place.unlink()  # deleted first, then written: not atomic, as in XNAT (R§4.6)
        place.parent.mkdir(parents=True, exist_ok=True)
        write(place)
        known, user = self._entries.get(path), self._call.user.name
        entry = self._archive.entry(self._resource, path, user, self._event, known)
        self._entries[path] = replace(
            entry,
            format=query.get("format") or entry.format,
            content=query.get("content") or entry.content,
            tags=tuple(dict.fromkeys((*entry.tags, *query.words("tags")))),
        )
        self._changed = True
        return []

    def extract(self, name: str, write: Callable[[Path], None]) -> list[str]:
        """Unpack an archive into the resource's root (R§4.3); returns the duplicates."""
        spooled = self._archive.spool / f"extract_{self._event}_{name.rpartition('/')[2]}"
        duplicates = []
        try:
            write(spooled)
            for member, unpack in _members(spooled, name):
                path = os.path.normpath(member)
                if path.startswith(("/", "..")):
                    raise OSError(f"{member} leads out of the resource")
                duplicates += self.store(path, unpack)
        finally:
            spooled.unlink(missing_ok=True)
        return duplicates

    def finish(self) -> None:
        """Rewrite the catalog and count anew. Raises CatalogConflictError."""
        if self._changed:
            self._archive.rewrite(self._resource, self._entries.values(), self._base)
        if self._call.query.flag("update-stats", default=True):
            self._archive.measure(self._resource)


def _members(spooled: Path, name: str) -> Iterator[Incoming]:
    """The files in an archive; its kind goes by the suffix of the name (R§4.3)."""
    if name.lower().endswith(_ZIPS):
        with zipfile.ZipFile(spooled) as packed:
            for it in packed.infolist():
                if not it.is_dir():
                    yield it.filename, partial(_copy, partial(packed.open, it))
    elif name.lower().endswith(_TARS):
        with tarfile.open(spooled) as tar:
            for member in tar:
                if member.isfile():
                    yield member.name, partial(_copy, partial(tar.extractfile, member))
    else:
        yield name[: -len(".gz")], partial(_copy, partial(gzip.open, spooled))


def _copy(source: Callable[[], Any], destination: Path) -> None:
    with source() as stream, destination.open("wb") as out:
        shutil.copyfileobj(stream, out, PIECE)


def delete(call: Call) -> Reply:
    """Remove files from the catalogs and, unless told otherwise, from disk."""
    target = addresses.target(call, strict=True)
    pairs = addresses.resources(call, call.variable("RES"), target.holders)
    if not pairs or "RES" not in call.variables:
        raise Refusal(400, "Unable to identify resource.")
    holder, resource = pairs[0]  # of several with one label the first, whatever it holds
    if not call.may("delete", holder):
        raise Refusal(403, "User account doesn't have permission to delete this file.")
    if not _remove(call, resource):
        raise Refusal(204 if call.query.flag("accept-not-found") else 404)
    return text("")


def _remove(call: Call, resource: Resource) -> int:
    archive = call.site.archive
    base = archive.base(resource, conflict=call.conflict)
    gone = _doomed(base.entries, call.file_path)
    if gone:
        archive.rewrite(resource, [it for it in base.entries if it.uri not in gone], base)
        for uri in gone if call.query.flag("removeFiles", default=True) else ():
            archive.unlink(resource, uri)
        archive.measure(resource)
    return len(gone)


def _doomed(entries: tuple[Entry, ...], path: str) -> set[str]:
    """The paths that a DELETE removes.

    Every one that equals or starts with `path`, and those that match it if it ends in `*`. An empty
    path means all.
    """
    chosen = [it for it in entries if it.uri.startswith(path)]
    chosen += matching(entries, path) if path.endswith("*") else []
    return {it.uri for it in chosen}
