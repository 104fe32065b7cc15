"""The archive on disk, in XNAT's own layout: directories of resources with their catalogs (R§4.4).

    archive/PROJ/arc001/SESSION/{SCANS/4/DICOM, RESOURCES/QC, ASSESSORS/A/out/R, PROCESSED/X/R}
    archive/PROJ/subjects/SUBJECT/R, archive/PROJ/resources/R

Knows resources and catalogs, not users.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import threading
import time
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

from xnatfs.demo.catalog import Catalog, CatalogStore, Entry
from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Resource, Tables, timestamp
from xnatfs.demo.order import Ordered
from xnatfs.demo.wire import Request

_ORDERED_AT = 1617910125.0  # mtime of files on order: 2021-04-08 19:28:45 UTC
REFRESH_STEPS = ("append", "delete", "checksum", "populateStats")


class Archive:
    """Resources as directories.

    `entry_cost_s` is waited per catalog entry at each reading of a catalog: the real server
    parses the whole catalog for every request on a resource (R§3.3).

    Threading: rows are guarded by the tables' lock, catalogs by their store's optimistic check;
    `_settling` lets one thread at a time put ordered files on disk;
    the files themselves are not locked, as in XNAT.
    """

    def __init__(
        self,
        root: Path,
        tables: Tables,
        *,
        checksums: bool,
        entry_cost_s: float = 0.0,
        ordered: Ordered | None = None,
    ) -> None:
        self.root = root
        self.spool = root / "tmp"
        self.spool.mkdir(parents=True, exist_ok=True)
        self.checksums = checksums
        self._tables = tables
        self._catalogs = CatalogStore()
        self._entry_cost_s = entry_cost_s
        self._ordered = ordered
        self._settling = threading.RLock()

    def directory(self, resource: Resource) -> Path:
        """Where a resource's files lie."""
        return self.root / resource.directory

    def catalog_path(self, resource: Resource) -> Path:
        """The catalog file of a resource."""
        return self.directory(resource) / f"{resource.label or resource.id}_catalog.xml"

    def catalog(self, resource: Resource) -> Catalog:
        """The catalog as it is on disk now."""
        ordered = self._virtual(resource)
        if ordered is not None:
            catalog = Catalog(ordered.entries(resource.id))
        else:
            catalog = self._catalogs.read(self.catalog_path(resource))
        if self._entry_cost_s:
            time.sleep(self._entry_cost_s * len(catalog.entries))
        return catalog

    def base(self, resource: Resource, request: Request) -> Catalog:
        """The catalog that a change starts from; on a scripted conflict no rewrite will fit it."""
        self.settle(resource)
        catalog = self.catalog(resource)
        return replace(catalog, md5="rewritten by another") if request.conflict else catalog

    def rewrite(self, resource: Resource, entries: Iterable[Entry], base: Catalog) -> None:
        """Replace the catalog that was read as `base`. Raises CatalogConflictError."""
        self._catalogs.write(self.catalog_path(resource), resource.label, entries, base)

    def file(self, resource: Resource, path: str) -> Path:
        """Where a file of a resource lies."""
        return self.directory(resource) / path

    def stored(self, resource: Resource, path: str) -> Path | None:
        """The file with the bytes of an entry; `NAME.gz` stands in for a missing NAME (R§3.3)."""
        place = self.file(resource, path)
        for it in (place, place.with_name(place.name + ".gz")):
            if it.is_file():
                return it
        with self._settling:  # nobody may write there meanwhile
            ordered = self._virtual(resource)
            if ordered is None:
                return None
            return self._made(place, ordered.content(resource.id, path))

    def _virtual(self, resource: Resource) -> Ordered | None:
        """Where catalog and files come from as long as nobody changed the resource."""
        if self._ordered is None or resource.id not in self._ordered:
            return None
        return None if self.catalog_path(resource).exists() else self._ordered

    def _made(self, place: Path, content: bytes) -> Path:
        place.parent.mkdir(parents=True, exist_ok=True)
        fresh = place.with_name(f".~new-{threading.get_ident()}-{place.name}")
        fresh.write_bytes(content)
        os.utime(fresh, (_ORDERED_AT, _ORDERED_AT))
        return fresh.rename(place)

    def settle(self, resource: Resource) -> None:
        """Put all of an ordered resource on disk, before something of it changes."""
        with self._settling:
            ordered = self._virtual(resource)
            if ordered is None:
                return
            entries = ordered.entries(resource.id)
            for entry in entries:
                self.stored(resource, entry.uri)
            self._tables.resources.put(resource)
            self.rewrite(resource, entries, Catalog())

    def size(self, resource: Resource, entry: Entry) -> str:
        """SIZE of the catalog, else the length on disk, else "" (R§2.6)."""
        if entry.size:
            return entry.size
        try:
            return str(self.file(resource, entry.uri).stat().st_size)
        except OSError:
            return ""

    def create(
        self, holder: Holder, label: str, user: str, *, folder_name: str = "", **details: str
    ) -> Resource:
        """A new, empty resource with its directory and catalog.

        The directory is called like the label, else `folder_name`, else after the time.
        """
        with self._tables.lock:
            number = self._tables.number("resource")
            name = label or folder_name or datetime.now(UTC).strftime("%Y%m%d_%H%M%S%f")[:-3]
            folder = f"{holder.folder}/{name}"
            if (self.root / folder).exists():
                folder += f"_{number}"
            resource = Resource(
                id=number,
                owner=holder.owner,
                label=label,
                directory=folder,
                insert_user=user,
                insert_date=timestamp(),
                **details,
            )
            self.directory(resource).mkdir(parents=True, exist_ok=True)
            self.rewrite(resource, (), self.catalog(resource))
            return self._tables.resources.put(resource)

    def remove(self, resource: Resource) -> None:
        """Drop a resource with its files."""
        self._tables.resources.drop(resource.id)
        shutil.rmtree(self.directory(resource), ignore_errors=True)

    def measure(self, resource: Resource) -> None:
        """Count files and bytes of a resource into its row (`update-stats`, R§4.6)."""
        entries = self.catalog(resource).entries
        total = sum(int(self.size(resource, entry) or 0) for entry in entries)
        with self._tables.lock:
            current = self._tables.resources.get(resource.id)
            if current is not None:
                self._tables.resources.put(
                    replace(current, file_count=str(len(entries)), file_size=str(total))
                )

    def entry_for(self, resource: Resource, path: str, user: str, event: str = "") -> Entry:
        """A catalog entry for a file that lies in place, with size and (if on) MD5."""
        place = self.file(resource, path)
        now = timestamp()
        return Entry(
            uri=path,
            id=path,
            name=place.name,
            size=str(place.stat().st_size),
            digest=md5_of(place) if self.checksums else "",
            created_time=now,
            created_by=user,
            created_event=event,
        )

    def refresh(self, resource: Resource, steps: Iterable[str], user: str) -> None:
        """Bring catalog and disk together: append, delete, checksum, populateStats (R§7)."""
        steps = tuple(steps)
        self.settle(resource)
        base = self.catalog(resource)
        entries = list(base.entries)
        if "delete" in steps:
            entries = [it for it in entries if self.file(resource, it.uri).is_file()]
        if "append" in steps:
            known = {entry.uri for entry in entries}
            entries += [
                self.entry_for(resource, path, user)
                for path in self._paths_on_disk(resource)
                if path not in known
            ]
        if "checksum" in steps:
            entries = [self._checked(resource, entry) for entry in entries]
        self.rewrite(resource, entries, base)
        if "populateStats" in steps:
            self.measure(resource)

    def _checked(self, resource: Resource, entry: Entry) -> Entry:
        place = self.file(resource, entry.uri)
        if not place.is_file():
            return entry
        return replace(entry, digest=md5_of(place), size=str(place.stat().st_size))

    def _paths_on_disk(self, resource: Resource) -> list[str]:
        folder = self.directory(resource)
        return sorted(
            str(place.relative_to(folder))
            for place in folder.rglob("*")
            if place.is_file()
            and not place.name.endswith("_catalog.xml")
            and not place.name.startswith(".~")
        )

    def move(self, before: str, after: str, concerned: Iterable[Holder]) -> None:
        """Rename a directory below the root and point the holders' resources to it.

        Raises FileExistsError when the new place is taken.
        """
        old, new = self.root / before, self.root / after
        if new.exists():
            raise FileExistsError(str(new))
        with self._tables.database.batch():
            if old.exists():
                new.parent.mkdir(parents=True, exist_ok=True)
                old.rename(new)
            for holder in concerned:
                for row in self._tables.resources.of(holder.owner):
                    if row.directory.startswith(f"{before}/"):
                        moved = after + row.directory[len(before) :]
                        self._tables.resources.put(replace(row, directory=moved))

    def remove_holders(self, concerned: Iterable[Holder]) -> None:
        """Drop all resources of these holders."""
        for holder in concerned:
            for resource in self._tables.resources.of(holder.owner):
                self.remove(resource)


def md5_of(path: Path) -> str:
    """The MD5 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
