"""GET and HEAD of `…/files[/path]` and `…/DIR`: listings, single files, archives of files.

R§2.6, R§3.3, R§3.4, R§12.1, R§12.2.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from urllib.parse import unquote

from xnatfs.demo import addresses, bulk, catalog, tables
from xnatfs.demo.calls import Call
from xnatfs.demo.catalog import Catalog, Entry
from xnatfs.demo.objects import Holder, Object, Resource
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import PIECE, FileSlice, Refusal, Reply, document, http_date

_COLUMNS = (
    "Name", "Size", "URI", "collection", "file_tags", "file_format", "file_content", "cat_ID",
    "digest",
)  # fmt: skip
# What may stand in the place of URI.
_LOCATORS = {"absolutepath": "absolutePath", "projectpath": "projectPath"}
_VARIANTS = (*tables.LIST_VARIANTS, "image/jpeg")  # R§12.7
_TYPES = {
    "bmp": "image/bmp", "gif": "image/gif", "html": "text/html", "jpg": "image/jpeg",
    "jpeg": "image/jpeg", "pdf": "application/pdf", "png": "image/png", "svg": "image/svg+xml",
    "tiff": "image/tiff", "txt": "text/plain", "xml": "text/xml",
}  # fmt: skip
# A path through one of these means what is inside, whatever the catalog says (R§3.3).
_LOOK_INSIDE = re.compile(r"(.*?\.(?:zip|jar|rar|ear|gar|mrb))(?:!/?|/)(.+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Found:
    """A catalog entry with the resource and the holder that it belongs to."""

    holder: Holder
    resource: Resource
    entry: Entry


def get(call: Call) -> Reply:
    """A listing, a file, or an archive of files."""
    try:
        tables.accepted(call, _VARIANTS)
        return _answer(call)
    except Refusal as refusal:
        if refusal.status == 404 and call.query.flag("accept-not-found"):
            return Reply(204)
        raise


def _answer(call: Call) -> Reply:
    query, path = call.query, call.file_path
    target = addresses.target(call, strict=call.verb != "GET")
    level = target.everything if query.flag("all") else target.holders
    if not level:
        raise Refusal(500)  # the real code runs into a null pointer there (R§1.4)
    pairs = addresses.resources(call, call.variable("RES"), level)
    single = "RES" in call.variables and len(pairs) == 1
    if path:
        pairs = pairs[:1]  # the first catalog ends the search, with or without a match (R§12.1)
    if query.has("index") and not path:
        found = dict(enumerate(_found(call, pairs)))
        index = query.get("index")
        return _bytes(call, found.get(int(index)) if index.isdigit() else None)
    if query.get("format").lower() == "xcat" and not path:
        return _xcat(call, _found(call, pairs))
    bulk_format = bulk.format_of(query, path)
    if bulk_format:
        return _bulk(call, bulk_format, _found(call, pairs, path))
    if not path or (single and path.endswith("/")):
        entries = _found(call, pairs, path)
        if path and not query.flag("recursive", default=True):
            # wrongly keeps only the deeper ones (R§3.3)
            entries = [it for it in entries if "/" in it.entry.uri.removeprefix(path)]
        return _listing(call, entries, target.base if single else "")
    inside = _LOOK_INSIDE.fullmatch(path) if single else None
    if inside is not None:
        return _zip_entry(call, _found(call, pairs, inside[1], exact=True), inside[2])
    # Through a short-cut a folder or a pattern is the file that it alone means (R§12.2).
    chosen = _found(call, pairs, path, exact=single)
    return _bytes(call, chosen[0] if len(chosen) == 1 else None)


def _found(
    call: Call, pairs: list[addresses.Pair], path: str = "", *, exact: bool = False
) -> list[Found]:
    """The entries that a path means, as far as they pass the filters of the query."""
    contents, formats = call.query.all("file_content"), call.query.all("file_format")
    found = []
    for holder, resource in pairs:
        known = call.site.archive.catalog(resource)
        found += [
            Found(holder, resource, it)
            for it in _meant(known, path, exact=exact)
            if (not contents or it.content in contents) and (not formats or it.format in formats)
        ]
    return found


def _meant(known: Catalog, path: str, *, exact: bool) -> Sequence[Entry]:
    """The entries of a path, or below a folder (`a/`), or by a pattern (`a*`); "" is all."""
    one = known.find(path) if path else None
    if one or exact:
        return [one] if one else []
    if path.endswith("*"):
        return catalog.matching(known.entries, path)
    if path and not path.endswith("/"):
        return []
    return [it for it in known.entries if it.uri.startswith(path)]


def _listing(call: Call, found: list[Found], base: str) -> Reply:
    archive = call.site.archive
    locator = _LOCATORS.get(call.query.get("locator").lower(), "URI")
    starts: dict[str, str] = {}
    rows = []
    for it in found:
        entry, resource = it.entry, it.resource
        if resource.id not in starts:
            starts[resource.id] = {
                "absolutePath": f"{archive.directory(resource)}/",
                "projectPath": f"{resource.directory.partition('/')[2]}/",
            }.get(locator, f"{base or it.holder.uri}/resources/{resource.id}/files/")
        rows.append({
            "Name": entry.name or entry.uri.rpartition("/")[2],
            "Size": entry.size or archive.size(resource, entry),
            locator: starts[resource.id] + entry.uri,
            "collection": resource.label,
            "file_tags": ",".join(entry.tags),
            "file_format": entry.format,
            "file_content": entry.content,
            "cat_ID": resource.id,
            "digest": entry.digest,
        })  # fmt: skip
    columns = tuple(locator if name == "URI" else name for name in _COLUMNS)
    notes = ({"key": "URI", "serverRoot": call.site.options.context_path},)
    return tables.render(Table(columns, rows, (("title", "Files"),), notes), call)


def _xcat(call: Call, found: list[Found]) -> Reply:
    """A catalog of full addresses, for programs that download by it (R§3.4)."""
    entries = []
    for it in found:
        start = f"{call.base}{it.holder.uri}/resources/{it.resource.id}/files/"
        path = it.entry.uri
        entries.append(replace(it.entry, uri=start + path, relative_path=path))
    return document(catalog.render("", entries), "text/xml")


def _bulk(call: Call, bulk_format: str, found: list[Found]) -> Reply:
    members = _members(call, bulk_format, found)
    first = next(members, None)
    if first is None:
        raise Refusal(404)
    label = found[0].holder.entry.partition("/")[0]
    return bulk.reply(chain([first], members), bulk_format, label, call.query)


def _members(call: Call, bulk_format: str, found: list[Found]) -> Iterator[bulk.Member]:
    """Names and bytes; missing files are skipped without a word (R§3.4).

    A folder's files have their paths in the resource, one file its name alone.
    """
    for it in found:
        content = call.site.archive.stored(it.resource, it.entry.uri)
        if content is None:
            continue
        if not call.file_path:
            name = bulk.entry_name(
                call.query.get("structure"), it.holder, it.resource, it.entry.uri,
                tar=bulk_format != "zip", through_scans="SCAN" in call.variables,
            )  # fmt: skip
        else:
            name = it.entry.uri if len(found) > 1 else it.entry.uri.rpartition("/")[2]
        yield name, content


def _bytes(call: Call, found: Found | None) -> Reply:
    if found is None:
        raise Refusal(404, "Unable to find file.")
    content = call.site.archive.stored(found.resource, found.entry.uri)
    if content is None:
        raise Refusal(404, body=b"")
    name = found.entry.uri.rpartition("/")[2]
    if call.query.flag("listContents") and name.lower().endswith(".zip"):
        with zipfile.ZipFile(call.site.archive.file(found.resource, found.entry.uri)) as packed:
            rows = [
                {"File Name": it.filename, "Size": str(it.file_size)} for it in packed.infolist()
            ]
        return tables.render(Table(("File Name", "Size"), rows), call)
    return _file(content, name)


def _file(content: FileSlice, name: str) -> Reply:
    """The reply with a file's bytes and XNAT's headers (R§3.1)."""
    headers = (
        ("Last-Modified", http_date(content.mtime)),
        ("Content-Disposition", f'attachment; filename="{name}";'),
    )
    suffix = name.rpartition(".")[2].lower() if "." in name else ""
    return Reply(200, headers, content, _TYPES.get(suffix, "application/octet-stream"))


def _zip_entry(call: Call, found: list[Found], name: str) -> Reply:
    """What lies in a zip; of no known length (R§3.3)."""
    try:
        outer = found[0]
        packed = zipfile.ZipFile(call.site.archive.file(outer.resource, outer.entry.uri))
        stream = packed.open(name)
    except zipfile.BadZipFile as problem:
        raise Refusal(415, str(problem)) from None
    except (LookupError, OSError):
        raise Refusal(404, "Unable to find file.") from None

    def pieces() -> Iterator[bytes]:
        with packed, stream:
            while piece := stream.read(PIECE // 4):
                yield piece

    return Reply(body=pieces(), media_type="application/octet-stream", streamed=True)


def directory(call: Call) -> Reply:
    """`DIR`: the session's directory as it is on disk; `recursive=true` for all of it (R§3.4)."""
    if call.user.guest:
        raise Refusal(401)
    found = addresses.experiments(call, addresses.project(call))
    path = unquote(call.tail.strip("/"))
    if not found or ".." in path.split("/"):
        raise Refusal(400 if found else 404)
    session, site = found[0], call.site
    for _holder, resource in site.tables.resources_of(site.tables.below(session)):
        site.archive.settle(resource)
    top = site.archive.root / site.tables.holder(session).folder
    matches = sorted(top.glob(path)) if path else [top]
    if not top.is_dir() or not matches:
        raise Refusal(404)
    if len(matches) == 1 and matches[0].is_file():
        return _file(FileSlice.of(matches[0]), matches[0].name)
    deep = call.query.flag("recursive")
    rows = [row for it in matches for row in _directory_rows(it, top, session, deep=deep)]
    return tables.render(Table(("Name", "DIR", "Size", "URI"), rows), call)


def _directory_rows(
    place: Path, top: Path, session: Object, *, deep: bool
) -> Iterator[dict[str, str]]:
    if place.is_file():
        found, listed = [place], place.parent
    else:
        found, listed = sorted(place.rglob("*") if deep else place.iterdir()), place
    for it in found:
        if it.is_file() or not deep:
            yield {
                "Name": str(it.relative_to(listed)),
                "DIR": str(it.is_dir()).lower(),
                "Size": str(it.stat().st_size) if it.is_file() else "",
                "URI": f"/data/experiments/{session.id}/DIR/{it.relative_to(top)}",
            }
