"""PUT and POST of files: every status of R§4.5, and the ways in which they go wrong (R§4.6).

Multipart bodies are spooled and moved into place; in-body ones go straight into the archive, so
that a broken transfer leaves its first part there.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from xnatfs.demo import multipart
from xnatfs.demo.addresses import variable
from xnatfs.demo.archive import md5_of
from xnatfs.demo.catalog import CatalogConflictError, Entry
from xnatfs.demo.files import path_of
from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Resource, timestamp
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.tables import json_text
from xnatfs.demo.wire import Body, BrokenTransferError, Query, Refusal, Reply, Request, text

_PIECE = 1 << 20
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
_ARCHIVES = (".tar", ".xar", ".tgz", ".tar.gz", ".zip", ".zar", ".gz")


@dataclass(frozen=True, slots=True)
class Incoming:
    """One file that a request brings: its name, and how to write it to a place."""

    name: str
    write: Callable[[Path], None]
    discard: Callable[[], None]


class Uploads:
    """Answers PUT and POST of `…/resources/R/files[/path]`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def put(self, call: Call) -> Reply:
        """Store what the request brings."""
        request = call.request
        target = self._site.addresses.target(call.variables, request.user, strict=True)
        if len(target.holders) != 1:
            raise Refusal(404)
        holder = target.holders[0]
        named = variable(call.variables, "RES")
        self._check_number(named, request)
        if not self._site.addresses.may(request.user, "edit", holder):
            return text("")  # nothing is stored and nothing is said (R§4.5)
        try:
            return self._store(call, holder, named)
        except (
            OSError,
            multipart.MultipartError,
            BrokenTransferError,
            CatalogConflictError,
        ) as problem:
            raise Refusal(500, str(problem)) from problem
        except (tarfile.TarError, zipfile.BadZipFile, UnicodeError) as problem:
            raise Refusal(500, str(problem)) from problem

    def _check_number(self, named: str, request: Request) -> None:
        """An all-digit label is a database id, which must exist and be readable (R§4.4)."""
        if named.isdigit():
            self._site.addresses.resources(named, (), request.user)

    def _store(self, call: Call, holder: Holder, named: str) -> Reply:
        request, query = call.request, call.request.query
        path = path_of(call.tail)
        incoming = self._incoming(request, path.rpartition("/")[2])
        if not incoming:
            raise Refusal(
                400,
                "Unable to identify upload format. Send the file as multipart/form-data, or in "
                "the body with inbody=true.",
            )
        try:
            resource = self._resource(holder, named, query, request.user.name)
            writer = _Writer(self._site, resource, request)
            duplicates: list[str] = []
            for one in incoming:
                if query.flag("extract") and one.name.lower().endswith(_ARCHIVES):
                    duplicates += writer.extract(one)
                else:
                    duplicates += writer.store(one, path or one.name)
            writer.finish()
        finally:
            for one in incoming:
                one.discard()
        if query.flag("update-stats", default=True):
            self._site.archive.measure(resource)
        if duplicates:
            return text(json_text({"duplicates": duplicates}), media_type="text/html")
        return text("")

    def _resource(self, holder: Holder, named: str, query: Query, user: str) -> Resource:
        """The first resource of that name on this very level, made if there is none (R§12.8)."""
        site = self._site
        with site.tables.lock:
            own = site.tables.resources.of(holder.owner)
            token = named.split(",")[0]
            found = [it for it in own if token in (it.label, it.id) or not named]
            resource = found[0] if found else None
            if resource is None:
                content = query.get("content")
                if holder.category == "scans" and not own and not content:
                    content = "RAW"
                resource = site.archive.create(holder, token, user, content=content)
            changed = replace(
                resource,
                format=query.get("format") or resource.format,
                content=query.get("content") or resource.content,
                description=query.get("description") or resource.description,
                tags=_united(resource.tags, query),
            )
            return site.tables.resources.put(changed) if changed != resource else resource

    def _incoming(self, request: Request, named: str) -> list[Incoming]:
        """What the request brings; `named` is the last part of its path, for in-body files."""
        media_type = request.media_type
        is_form = media_type in ("multipart/form-data", "application/x-www-form-urlencoded")
        if request.query.flag("inbody"):
            if is_form:
                return []
            return [_in_body(request, media_type, named)]
        if is_form:
            return self._from_form(request)
        return [_in_body(request, media_type, named)] if media_type in _IN_BODY else []

    def _from_form(self, request: Request) -> list[Incoming]:
        found: list[Incoming] = []
        content_type = request.headers.get("content-type", "")
        try:
            for part in multipart.parts(request.body, content_type, self._site.archive.spool):
                if part.filename is None:
                    if part.field == "reference":
                        raise multipart.MultipartError("a reference cannot stand in a form")
                elif part.place is not None:
                    name = part.filename.rpartition("\\")[2].rpartition("/")[2]
                    place = part.place
                    found.append(
                        Incoming(
                            name, partial(_move, place), partial(place.unlink, missing_ok=True)
                        )
                    )
        except BaseException:
            for one in found:
                one.discard()
            raise
        return found


def _united(tags: str, query: Query) -> str:
    return ",".join(dict.fromkeys([it for it in tags.split(",") if it] + query.words("tags")))


def _move(place: Path, destination: Path) -> None:
    shutil.move(place, destination)
    destination.chmod(0o644)


def _in_body(request: Request, media_type: str, named: str) -> Incoming:
    """A file that is the body itself. Zero or unknown length only goes as a zip (R§4.1)."""
    if not request.body.length and media_type != "application/zip":
        raise Refusal(500, "The body of the request has no length.")
    name = named or "upload" + _IN_BODY.get(media_type, ".unsupported")
    return Incoming(name, partial(_stream, request.body), lambda: None)


def _stream(body: Body, destination: Path) -> None:
    with destination.open("wb", buffering=0) as out:
        while piece := body.read(_PIECE):
            out.write(piece)


class _Writer:
    """Writes the files of one request into a resource and its catalog.

    The catalog is read now and rewritten at the end: what others changed meanwhile is a conflict,
    and the bytes lie in place without being listed.
    """

    def __init__(self, site: Site, resource: Resource, request: Request) -> None:
        self._archive = site.archive
        self._event = str(site.tables.number("event"))
        self._resource = resource
        self._query = request.query
        self._user = request.user.name
        self._base = site.archive.base(resource, request)
        self._entries = {entry.uri: entry for entry in self._base.entries}
        self._changed = False

    def store(self, incoming: Incoming, path: str) -> list[str]:
        """Write one file; returns its path if it exists and may not be overwritten."""
        place = self._archive.file(self._resource, path)
        if place.exists():
            if not self._query.flag("overwrite"):
                return [path]
            if place.name.endswith("_catalog.xml") or place.name.startswith(".~lock-"):
                raise OSError(f"XNAT cannot catalog {place.name}")
            if place.is_dir():
                raise IsADirectoryError(f"{place} (Is a directory)")
            place.unlink()  # deleted first, then written: not atomic, as in XNAT (R§4.6)
        place.parent.mkdir(parents=True, exist_ok=True)
        incoming.write(place)
        self._note(path)
        return []

    def _note(self, path: str) -> None:
        query, now = self._query, timestamp()
        place = self._archive.file(self._resource, path)
        fresh = self._archive.entry_for(self._resource, path, self._user, self._event)
        known = self._entries.get(path)
        if known is not None:
            fresh = self._updated(known, fresh, now, place)
        tags = tuple(dict.fromkeys((*fresh.tags, *query.words("tags"))))
        self._entries[path] = replace(
            fresh,
            format=query.get("format") or fresh.format,
            content=query.get("content") or fresh.content,
            tags=tags,
        )
        self._changed = True

    def _updated(self, known: Entry, fresh: Entry, now: str, place: Path) -> Entry:
        """An overwritten entry; without checksums it keeps a stale digest (R§7)."""
        return replace(
            known,
            size=fresh.size,
            digest=md5_of(place) if self._archive.checksums else known.digest,
            modified_time=now,
            modified_by=self._user,
            modified_event=self._event,
        )

    def extract(self, incoming: Incoming) -> list[str]:
        """Unpack an archive into the resource's root (R§4.3); returns the duplicates."""
        spooled = self._archive.spool / f"extract_{self._event}_{incoming.name.rpartition('/')[2]}"
        duplicates = []
        try:
            incoming.write(spooled)
            with ExitStack() as closing:
                for member in _members(spooled, incoming.name, closing):
                    duplicates += self.store(member, member.name)
        finally:
            spooled.unlink(missing_ok=True)
        return duplicates

    def finish(self) -> None:
        """Rewrite the catalog. Raises CatalogConflictError."""
        if self._changed:
            self._archive.rewrite(self._resource, self._entries.values(), self._base)


def _members(spooled: Path, name: str, closing: ExitStack) -> list[Incoming]:
    """The files in an archive; its kind goes by the suffix of the name (R§4.3)."""
    lower = name.lower()
    if lower.endswith((".zip", ".zar")):
        packed = closing.enter_context(zipfile.ZipFile(spooled))
        return [
            Incoming(_inside(it.filename), partial(_unzip, packed, it.filename), lambda: None)
            for it in packed.infolist()
            if not it.is_dir()
        ]
    if lower.endswith((".tar", ".xar", ".tgz", ".tar.gz")):
        with tarfile.open(spooled) as tar:
            return [
                Incoming(_inside(it.name), partial(_untar, spooled, it.name), lambda: None)
                for it in tar
                if it.isfile()
            ]
    return [Incoming(name[: -len(".gz")], partial(_gunzip, spooled), lambda: None)]


def _inside(name: str) -> str:
    path = os.path.normpath(name)
    if path.startswith(("/", "..")):
        raise OSError(f"{name} leads out of the resource")
    return path


def _unzip(packed: zipfile.ZipFile, name: str, destination: Path) -> None:
    with packed.open(name) as src, destination.open("wb") as out:
        shutil.copyfileobj(src, out, _PIECE)


def _untar(spooled: Path, name: str, destination: Path) -> None:
    with tarfile.open(spooled) as tar, destination.open("wb") as out:
        source = tar.extractfile(name)
        if source is not None:
            shutil.copyfileobj(source, out, _PIECE)


def _gunzip(spooled: Path, destination: Path) -> None:
    with gzip.open(spooled) as source, destination.open("wb") as out:
        shutil.copyfileobj(source, out, _PIECE)
