"""Catalog files: the XML beside a resource's files that says which of them exist (R§7).

A catalog is read with the MD5 of its text and rewritten only if that is still the text on disk;
otherwise `CatalogConflictError`, and the file that was just stored is an orphan (R§4.6).
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
import xml.etree.ElementTree as ET
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape, quoteattr

NAMESPACE = "http://nrg.wustl.edu/catalog"


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


@dataclass(frozen=True)
class Catalog:
    """What a catalog said when it was read; `md5` of its text, "" if there was none."""

    entries: tuple[Entry, ...] = ()
    md5: str = ""

    @cached_property
    def _by_uri(self) -> dict[str, Entry]:
        return {entry.uri: entry for entry in reversed(self.entries)}

    def find(self, path: str) -> Entry | None:
        """The entry that a path means: as it is, form-decoded, or as an ID (R§3.3)."""
        found = self._by_uri.get(path) or self._by_uri.get(unquote_plus(path))
        return found or next((entry for entry in self.entries if entry.id == path), None)


_ATTRIBUTES = {
    "id": "ID", "uri": "URI", "name": "name", "digest": "digest", "format": "format",
    "content": "content", "created_time": "createdTime", "created_by": "createdBy",
    "created_event": "createdEventId", "modified_time": "modifiedTime",
    "modified_by": "modifiedBy", "modified_event": "modifiedEventId",
}  # fmt: skip
_META_FIELDS = {"relative_path": "RELATIVE_PATH", "size": "SIZE"}


def parse(text: bytes) -> tuple[Entry, ...]:
    """The entries of a catalog's XML."""
    entries = []
    for element in ET.fromstring(text).iter(f"{{{NAMESPACE}}}entry"):  # noqa: S314 - our own
        fields = {field: element.get(attribute, "") for field, attribute in _ATTRIBUTES.items()}
        meta = {it.get("name"): it.text or "" for it in element.iter(f"{{{NAMESPACE}}}metaField")}
        tags = tuple(tag.text or "" for tag in element.iter(f"{{{NAMESPACE}}}tag"))
        entries.append(Entry(**fields, size=meta.get("SIZE", ""), tags=tags))
    return tuple(entries)


def matching(entries: Iterable[Entry], path: str) -> list[Entry]:
    """The entries that a path ending in `*` means: a regular expression over whole paths (R§5.2).

    Its last `*` stands for `.*`. What is no expression matches nothing.
    """
    try:
        pattern = re.compile(path[:-1] + ".*")
    except re.error:
        return []
    return [it for it in entries if pattern.fullmatch(it.uri)]


def render(label: str, entries: Iterable[Entry]) -> bytes:
    """The XML of a catalog."""
    lines = (
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<cat:Catalog ID={quoteattr(label)} xmlns:cat="{NAMESPACE}" '
        'xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance">',
        "\t<cat:entries>",
        *(_entry(it) for it in entries),
        "\t</cat:entries>\n</cat:Catalog>\n",
    )
    return "\n".join(lines).encode()


@lru_cache(maxsize=1 << 16)  # a change rewrites every entry
def _entry(entry: Entry) -> str:
    attributes = "".join(
        f" {attribute}={quoteattr(value)}"
        for field, attribute in _ATTRIBUTES.items()
        if (value := getattr(entry, field))
    )
    meta = "".join(
        f'<cat:metaField name="{name}">{escape(value)}</cat:metaField>'
        for field, name in _META_FIELDS.items()
        if (value := getattr(entry, field))
    )
    tags = "".join(f"<cat:tag>{escape(tag)}</cat:tag>" for tag in entry.tags)
    inner = f"\n\t\t\t<cat:metaFields>{meta}</cat:metaFields>" if meta else ""
    inner += f"\n\t\t\t<cat:tags>{tags}</cat:tags>" if tags else ""
    return f"\t\t<cat:entry{attributes} cachePath={quoteattr(entry.uri)}>{inner}</cat:entry>"


class CatalogStore:
    """Reads and rewrites catalog files; what was parsed is kept until the file changes.

    Threading: `_lock` guards what was parsed, and the compare-and-replace of writes.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._parsed: dict[Path, tuple[tuple[int, int], Catalog]] = {}

    def read(self, path: Path) -> Catalog:
        """The catalog of that file; an empty one when there is no file."""
        try:
            stamp = _stamp(path)
        except FileNotFoundError:
            return Catalog()
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
            if (_md5(path.read_bytes()) if path.exists() else "") != base.md5:
                raise CatalogConflictError(
                    f"Another thread or process modified {path} since I last read it. "
                    "To avoid overwriting changes, I'm throwing an exception."
                )
            path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_bytes(text)
            os.replace(fresh, path)
            self._parsed[path] = (_stamp(path), Catalog(entries, _md5(text)))


def _stamp(path: Path) -> tuple[int, int]:
    state = path.stat()
    return state.st_mtime_ns, state.st_ino


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
