"""`…/files[/path]`: listings and single files (R§2.6, R§3.3, R§12.1, R§12.2)."""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote_plus

from xnatfs.demo import bulk, catalog, tables
from xnatfs.demo.addresses import Target, variable
from xnatfs.demo.catalog import Entry
from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Resource
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import FileSlice, Query, Refusal, Reply, Request, document, http_date

COLUMNS = (
    "Name", "Size", "URI", "collection", "file_tags", "file_format", "file_content", "cat_ID",
    "digest",
)  # fmt: skip
_VARIANTS = ("application/json", "text/html", "text/xml", "image/jpeg")  # R§12.7
_TYPES = {
    "bmp": "image/bmp", "gif": "image/gif", "html": "text/html", "jpg": "image/jpeg",
    "jpeg": "image/jpeg", "pdf": "application/pdf", "png": "image/png", "svg": "image/svg+xml",
    "tiff": "image/tiff", "txt": "text/plain", "xml": "text/xml",
}  # fmt: skip
_LOOK_INSIDE = re.compile(r"^(.*?\.(?:zip|jar|rar|ear|gar|mrb))(?:!/?|/)(.*)$", re.IGNORECASE)


def path_of(tail: str) -> str:
    """The path in the resource that a URL's tail means.

    Decoded only if it holds `%20` or `%2B` (in that spelling); then as a form, so that a raw `+`
    becomes a blank (R§3.3, R§12.9).
    """
    path = tail.removeprefix("/")
    return unquote_plus(path) if "%20" in path or "%2B" in path else path


@dataclass(frozen=True, slots=True)
class Found:
    """A catalog entry with the resource and the holder that it belongs to."""

    holder: Holder
    resource: Resource
    entry: Entry


class Files:
    """Answers GET and HEAD."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def get(self, call: Call) -> Reply:
        """A listing, a file, or an archive of files."""
        request = call.request
        try:
            tables.accepted(request, _VARIANTS)
            return self._answer(call)
        except Refusal as refusal:
            if refusal.status == 404 and request.query.flag("accept-not-found"):
                return Reply(204)
            raise

    def _answer(self, call: Call) -> Reply:
        request, query = call.request, call.request.query
        target = self._site.addresses.target(
            call.variables, request.user, strict=request.verb != "GET"
        )
        wide = query.flag("all") and target.whole_session
        level = target.everything if wide else target.holders
        if not level:
            # The real code runs into a null pointer there (R§1.4).
            raise Refusal(500)
        named = variable(call.variables, "RES")
        pairs = self._site.addresses.resources(named, level, request.user)
        single = bool(named) and len(pairs) == 1
        found = self._filtered(pairs, query)
        path = path_of(call.tail)
        bulk_format = bulk.format_of(query)
        if query.has("index") and not path:
            return self._numbered(found, query, request)
        if query.get("format").lower() == "xcat" and not path:
            return _xcat(found, request)
        if bulk_format and not _has_suffix(path, bulk_format):
            chosen = _under(found, path) if path else found
            return self._bulk(call, bulk_format, chosen, path, single=single)
        if not path or (single and path.endswith("/")):
            return self._listing(request, _listed(found, path, query), target, single=single)
        if single:
            return self._single(found, pairs, path, request)
        return self._through_shortcut(found, pairs, path, request)

    def _filtered(self, pairs: list[tuple[Holder, Resource]], query: Query) -> list[Found]:
        contents, formats = query.all("file_content"), query.all("file_format")
        return [
            Found(holder, resource, entry)
            for holder, resource in pairs
            for entry in self._site.archive.catalog(resource).entries
            if (not contents or entry.content in contents)
            and (not formats or entry.format in formats)
        ]

    def _listing(
        self, request: Request, found: list[Found], target: Target, *, single: bool
    ) -> Reply:
        query = request.query
        locator = query.get("locator", "URI")
        columns = tuple(locator if name == "URI" else name for name in COLUMNS)
        rows = []
        for it in found:
            base = target.base if single and target.base else it.holder.uri
            rows.append(self._row(it, base, locator))
        table = Table(
            columns, tuple(rows), (("title", "Files"),), ({"key": locator, "serverRoot": ""},)
        )
        return tables.render(table, request)

    def _row(self, found: Found, base: str, locator: str) -> dict[str, str]:
        entry, resource = found.entry, found.resource
        place = {
            "absolutePath": str(self._site.archive.file(resource, entry.uri)),
            "projectPath": f"{resource.directory}/{entry.uri}".partition("/")[2],
        }.get(locator, f"{base}/resources/{resource.id}/files/{entry.uri}")
        return {
            "Name": entry.name or entry.uri.rpartition("/")[2],
            "Size": self._site.archive.size(resource, entry),
            locator: place,
            "collection": resource.label,
            "file_tags": ",".join(entry.tags),
            "file_format": entry.format,
            "file_content": entry.content,
            "cat_ID": resource.id,
            "digest": entry.digest,
        }

    def _bulk(
        self, call: Call, bulk_format: str, found: list[Found], path: str, *, single: bool
    ) -> Reply:
        members = []
        naming = bulk.Naming(
            call.request.query.get("structure"), bulk_format, through_scans="SCAN" in call.variables
        )
        for it in found:
            place = self._site.archive.stored(it.resource, it.entry.uri)
            if place is None:
                continue  # missing files are skipped without a word (R§3.4)
            name = naming.name(it.holder, it.resource, it.entry.uri)
            members.append(bulk.Member(it.entry.uri if single and path else name, place))
        if not members:
            raise Refusal(404)
        label = (
            members[0].name.partition("/")[0] if not path else path.strip("/").rpartition("/")[2]
        )
        return bulk.reply(members, bulk_format, label, call.request.query)

    def _numbered(self, found: list[Found], query: Query, request: Request) -> Reply:
        try:
            chosen = found[int(query.get("index"))]
        except (ValueError, IndexError):
            raise Refusal(404, "Unable to find file.") from None
        return self._bytes(chosen.resource, chosen.entry.uri, request)

    def _single(
        self, found: list[Found], pairs: list[tuple[Holder, Resource]], path: str, request: Request
    ) -> Reply:
        entry = lookup([it.entry for it in found], path)
        if entry is not None:
            return self._bytes(pairs[0][1], entry.uri, request)
        inside = _LOOK_INSIDE.match(path)
        outer = lookup([it.entry for it in found], inside.group(1)) if inside else None
        if inside is None or outer is None:
            raise Refusal(404, "Unable to find file.")
        return _zip_entry(self._site.archive.file(pairs[0][1], outer.uri), inside.group(2))

    def _through_shortcut(
        self, found: list[Found], pairs: list[tuple[Holder, Resource]], path: str, request: Request
    ) -> Reply:
        """A path below several resources: the first one must have it (R§12.1)."""
        if path.endswith(("/", "*")):
            chosen = _under(found, path)
            if len(chosen) != 1:
                raise Refusal(404)
            return self._bytes(chosen[0].resource, chosen[0].entry.uri, request)
        if not pairs:
            raise Refusal(404)
        first = pairs[0][1]
        entry = lookup([it.entry for it in found if it.resource.id == first.id], path)
        if entry is None:
            raise Refusal(404, "Unable to find file.")
        return self._bytes(first, entry.uri, request)

    def _bytes(self, resource: Resource, path: str, request: Request) -> Reply:
        place = self._site.archive.stored(resource, path)
        if place is None:
            raise Refusal(404, body=b"")
        if request.query.flag("listContents") and place.suffix.lower() == ".zip":
            return _zip_listing(place, request)
        return file_reply(place, path.rpartition("/")[2])


def _xcat(found: list[Found], request: Request) -> Reply:
    """A catalog of full addresses, for programs that download by it (R§3.4)."""
    entries = [
        replace(it.entry, uri=f"{request.base}{it.holder.uri}/resources/{it.resource.id}/files/"
                f"{it.entry.uri}", relative_path=it.entry.uri)
        for it in found
    ]  # fmt: skip
    return document(catalog.render("", entries).decode(), "text/xml")


def lookup(entries: list[Entry], path: str) -> Entry | None:
    """The entry that a path means: as it is, form-decoded, or as an ID (R§3.3)."""
    by_uri = {entry.uri: entry for entry in reversed(entries)}
    found = by_uri.get(path) or by_uri.get(unquote_plus(path))
    return found or next((entry for entry in entries if entry.id == path), None)


def file_reply(place: Path, name: str) -> Reply:
    """The reply with a file's bytes and XNAT's headers (R§3.1)."""
    state = place.stat()
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    return Reply(
        headers=(
            ("Last-Modified", http_date(state.st_mtime)),
            ("Content-Disposition", f'attachment; filename="{name}";'),
        ),
        body=FileSlice(place, 0, state.st_size, state.st_size, state.st_mtime),
        media_type=_TYPES.get(suffix, "application/octet-stream"),
    )


def _has_suffix(path: str, bulk_format: str) -> bool:
    return path.lower().endswith(f".{bulk_format}")


def _listed(found: list[Found], path: str, query: Query) -> list[Found]:
    """Entries below a folder; `recursive=false` wrongly keeps only the deeper ones (R§3.3)."""
    if not path:
        return found
    chosen = [it for it in found if it.entry.uri.startswith(path)]
    if query.flag("recursive", default=True):
        return chosen
    return [it for it in chosen if "/" in it.entry.uri[len(path) :]]


def _under(found: list[Found], path: str) -> list[Found]:
    if path.endswith("*"):
        pattern = re.compile(re.escape(path[:-1]) + ".*")
        return [it for it in found if pattern.fullmatch(it.entry.uri)]
    if path.endswith("/"):
        return [it for it in found if it.entry.uri.startswith(path)]
    entry = lookup([it.entry for it in found], path)
    return [it for it in found if it.entry == entry]


def _zip_entry(place: Path, name: str) -> Reply:
    try:
        archive = zipfile.ZipFile(place)
        stream = archive.open(name)
    except (OSError, KeyError, zipfile.BadZipFile):
        raise Refusal(404, "Unable to find file.") from None

    def pieces() -> Iterator[bytes]:
        with archive, stream:
            while piece := stream.read(1 << 18):
                yield piece

    return Reply(body=pieces(), media_type="application/octet-stream", streamed=True)


def _zip_listing(place: Path, request: Request) -> Reply:
    try:
        with zipfile.ZipFile(place) as archive:
            members = archive.infolist()
    except zipfile.BadZipFile:
        raise Refusal(500) from None
    rows = tuple({"File Name": it.filename, "Size": str(it.file_size)} for it in members)
    return tables.render(Table(("File Name", "Size"), rows), request)
