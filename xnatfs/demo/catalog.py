"""Catalog files: the XML beside a resource's files that says which of them exist (R§7).

A catalog is read with the MD5 of its text and rewritten only if that is still the text on disk;
otherwise `CatalogConflictError`, and the file that was just stored is an orphan (R§4.6).
"""

from __future__ import annotations

import hashlib
import os
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

NAMESPACE = "http://nrg.wustl.edu/catalog"
_ENTRY = f"{{{NAMESPACE}}}entry"
_META = f"{{{NAMESPACE}}}metaField"
_TAG = f"{{{NAMESPACE}}}tag"


class CatalogConflictError(Exception):
    """Somebody else rewrote the catalog since it was read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One file of a catalog. `uri` is its path in the resource; `size` bytes as text or ""."""

    uri: str
    name: str = ""
    id: str = ""
    digest: str = ""
    size: str = ""
    format: str = ""
    content: str = ""
    tags: tuple[str, ...] = ()
    created_time: str = ""
    created_by: str = ""
    created_event: str = ""
    modified_time: str = ""
    modified_by: str = ""
    modified_event: str = ""
    relative_path: str = ""


@dataclass(frozen=True, slots=True)
class Catalog:
    """What a catalog said when it was read; `md5` of its text, "" if there was none."""

    entries: tuple[Entry, ...] = ()
    md5: str = ""


_ATTRIBUTES = {
    "id": "ID",
    "uri": "URI",
    "name": "name",
    "digest": "digest",
    "format": "format",
    "content": "content",
    "created_time": "createdTime",
    "created_by": "createdBy",
    "created_event": "createdEventId",
    "modified_time": "modifiedTime",
    "modified_by": "modifiedBy",
    "modified_event": "modifiedEventId",
}


def parse(text: bytes) -> tuple[Entry, ...]:
    """The entries of a catalog's XML."""
    entries = []
    for element in ET.fromstring(text).iter(_ENTRY):  # noqa: S314 - written by this server
        fields = {field: element.get(attribute, "") for field, attribute in _ATTRIBUTES.items()}
        size = next((meta.text for meta in element.iter(_META) if meta.get("name") == "SIZE"), "")
        tags = tuple(tag.text or "" for tag in element.iter(_TAG))
        entries.append(Entry(**fields, size=size or "", tags=tags))
    return tuple(entries)


def render(label: str, entries: Iterable[Entry]) -> bytes:
    """The XML of a catalog."""
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<cat:Catalog ID={quoteattr(label)} xmlns:cat="{NAMESPACE}" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">',
        "\t<cat:entries>",
    ]
    lines.extend(_render_entry(entry) for entry in entries)
    lines += ["\t</cat:entries>", "</cat:Catalog>", ""]
    return "\n".join(lines).encode()


def _render_entry(entry: Entry) -> str:
    attributes = "".join(
        f" {attribute}={quoteattr(getattr(entry, field))}"
        for field, attribute in _ATTRIBUTES.items()
        if getattr(entry, field)
    )
    attributes += f" cachePath={quoteattr(entry.uri)}"
    inner = ""
    notes = {"RELATIVE_PATH": entry.relative_path, "SIZE": entry.size}
    if any(notes.values()):
        fields = "".join(
            f'<cat:metaField name="{name}">{_escaped(value)}</cat:metaField>'
            for name, value in notes.items()
            if value
        )
        inner = f"\n\t\t\t<cat:metaFields>{fields}</cat:metaFields>"
    if entry.tags:
        tags = "".join(f"<cat:tag>{_escaped(tag)}</cat:tag>" for tag in entry.tags)
        inner += f"\n\t\t\t<cat:tags>{tags}</cat:tags>"
    return f"\t\t<cat:entry{attributes}>{inner}</cat:entry>"


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


class CatalogStore:
    """Reads and rewrites catalog files; what was parsed is kept until the file changes.

    Threading: `_lock` guards the cache of parsed catalogs and the compare-and-replace of writes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parsed: dict[Path, tuple[tuple[int, int], Catalog]] = {}

    def read(self, path: Path) -> Catalog:
        """The catalog of that file; an empty one when there is no file."""
        try:
            state = path.stat()
        except FileNotFoundError:
            return Catalog()
        stamp = (state.st_mtime_ns, state.st_ino)
        with self._lock:
            known = self._parsed.get(path)
        if known is not None and known[0] == stamp:
            return known[1]
        text = path.read_bytes()
        catalog = Catalog(parse(text), _md5(text))
        with self._lock:
            self._parsed[path] = (stamp, catalog)
        return catalog

    def write(self, path: Path, label: str, entries: Iterable[Entry], base: Catalog) -> None:
        """Replace a catalog that was read as `base`. Raises CatalogConflictError."""
        entries = tuple(entries)
        text = render(label, entries)
        fresh = path.with_name(f".~new-{threading.get_ident()}-{path.name}")
        with self._lock:
            try:
                current = _md5(path.read_bytes())
            except FileNotFoundError:
                current = ""
            if current != base.md5:
                raise CatalogConflictError(
                    f"Another thread or process modified {path} since I last read it. "
                    "To avoid overwriting changes, I'm throwing an exception."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(text)
            os.replace(fresh, path)
            state = path.stat()
            self._parsed[path] = ((state.st_mtime_ns, state.st_ino), Catalog(entries, _md5(text)))


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
