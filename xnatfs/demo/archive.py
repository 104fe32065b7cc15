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
from xnatfs.demo.objects import Holder, Resource, Tables, timestamp
from xnatfs.demo.order import Ordered
from xnatfs.demo.wire import FileSlice

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
        self._checksums = checksums
        self._tables = tables
        self._catalogs = CatalogStore()
        self._entry_cost_s = entry_cost_s
        self._ordered = ordered
        self._settling = threading.Lock()

    def directory(self, resource: Resource) -> Path:
        """Where a resource's files lie."""
        return self.root / resource.directory

    def file(self, resource: Resource, path: str) -> Path:
        """Where a file of a resource lies."""
        return self.directory(resource) / path

    def _catalog_path(self, resource: Resource) -> Path:
        return self.file(resource, f"{resource.label or resource.id}_catalog.xml")

    def _virtual(self, resource: Resource) -> Ordered | None:
        """Where catalog and files come from as long as nobody changed the resource."""
        if self._ordered is None or resource.id not in self._ordered:
            return None
        return None if self._catalog_path(resource).exists() else self._ordered

    def catalog(self, resource: Resource) -> Catalog:
        """The catalog as it is now."""
        ordered = self._virtual(resource)
        if ordered is not None:
            catalog = ordered.catalog(resource.id)
        else:
            catalog = self._catalogs.read(self._catalog_path(resource))
        if self._entry_cost_s:
            time.sleep(self._entry_cost_s * len(catalog.entries))
        return catalog

    def base(self, resource: Resource, *, conflict: bool = False) -> Catalog:
        """The catalog that a change starts from; with a `conflict` no rewrite will fit it."""
        self.settle(resource)
        catalog = self.catalog(resource)
        return replace(catalog, md5="rewritten by another") if conflict else catalog

    def rewrite(self, resource: Resource, entries: Iterable[Entry], base: Catalog) -> None:
        """Replace the catalog that was read as `base`. Raises CatalogConflictError."""
        self._catalogs.write(self._catalog_path(resource), resource.label, entries, base)

    def stored(self, resource: Resource, path: str) -> FileSlice | None:
        """The bytes of an entry; `NAME.gz` stands in for a missing NAME (R§3.3)."""
        ordered = self._virtual(resource)
        if ordered is not None:
            size = ordered.file_size
            return FileSlice(ordered.reader(resource.id, path), 0, size, size, _ORDERED_AT)
        place = self.file(resource, path)
        for it in (place, place.with_name(place.name + ".gz")):
            if it.is_file():
                return FileSlice.of(it)
        return None

    def settle(self, resource: Resource) -> None:
        """Put what is on order on disk, before something of it changes."""
        with self._settling:
            ordered = self._virtual(resource)
            if ordered is None:
                return
            entries = ordered.catalog(resource.id).entries
            self.directory(resource).mkdir(parents=True, exist_ok=True)
            for entry in entries:
                place = self.file(resource, entry.uri)
                place.write_bytes(ordered.reader(resource.id, entry.uri)(0, ordered.file_size))
                os.utime(place, (_ORDERED_AT, _ORDERED_AT))
            self._tables.resources.put(resource)
            self.rewrite(resource, entries, Catalog())

    def size(self, resource: Resource, entry: Entry) -> str:
        """SIZE of the catalog, else the length on disk, else "" (R§2.6)."""
        place = self.file(resource, entry.uri) if not entry.size else None
        return str(place.stat().st_size) if place and place.exists() else entry.size

    def create(
        self, holder: Holder, label: str, user: str, *, folder_name: str = "", **details: str
    ) -> Resource:
        """A new, empty resource with its directory and catalog.

        The directory is called like the label, else `folder_name`, else after the time.
        """
        with self._tables.lock:
            number = self._tables.number("resource")
            name = label or folder_name or datetime.now(UTC).strftime("%Y%m%d_%H%M%S%f")[:-3]
            folder = f"{holder.folder}{holder.level.roles[holder.role]}/{name}"
            if (self.root / folder).exists():
                folder += f"_{number}"
            resource = Resource(
                id=number, owner=holder.owner, label=label, directory=folder, insert_user=user,
                insert_date=timestamp(), **details,
            )  # fmt: skip
            self.rewrite(resource, (), self.catalog(resource))
            return self._tables.resources.put(resource)

    def measure(self, resource: Resource) -> None:
        """Count files and bytes of a resource into its row (`update-stats`, R§4.6)."""
        entries = self.catalog(resource).entries
        total = sum(int(self.size(resource, entry) or 0) for entry in entries)
        with self._tables.lock:
            current = self._tables.resources.get(resource.id)
            if current is not None:
                counted = replace(current, file_count=str(len(entries)), file_size=str(total))
                self._tables.resources.put(counted)

    def entry(
        self, resource: Resource, path: str, user: str, event: str, known: Entry | None = None
    ) -> Entry:
        """The entry of a file that lies in place, with size and MD5; `known` is the former one.

        Without checksums a new file has no digest, an overwritten one the stale one (R§7).
        """
        place = self.file(resource, path)
        found = known or Entry(
            uri=path, id=path, name=place.name, created_time=timestamp(), created_by=user,
            created_event=event,
        )  # fmt: skip
        if known:
            found = replace(
                known, modified_time=timestamp(), modified_by=user, modified_event=event
            )
        digest = md5_of(place) if self._checksums else found.digest
        return replace(found, size=str(place.stat().st_size), digest=digest)

    def refresh(self, resource: Resource, steps: Iterable[str], user: str) -> None:
        """Bring catalog and disk together by `REFRESH_STEPS` (R§7)."""
        steps = tuple(steps)
        base = self.base(resource)
        entries = list(base.entries)
        if "delete" in steps:
            entries = [it for it in entries if self.file(resource, it.uri).is_file()]
        if "append" in steps:
            known = {entry.uri for entry in entries}
            lost = [it for it in self._paths_on_disk(resource) if it not in known]
            entries += [self.entry(resource, it, user, "") for it in lost]
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
        found = (it for it in folder.rglob("*") if it.is_file() and not it.name.startswith(".~"))
        own = (it for it in found if not it.name.endswith("_catalog.xml"))
        return sorted(str(it.relative_to(folder)) for it in own)

    def unlink(self, resource: Resource, path: str) -> None:
        """Remove a file and the folders that it leaves empty."""
        place, top = self.file(resource, path), self.directory(resource)
        place.unlink(missing_ok=True)
        for folder in place.parents:
            if folder == top or any(folder.iterdir()):
                return
            folder.rmdir()

    def move(self, before: str, after: str, concerned: Iterable[Holder]) -> None:
        """Rename a directory below the root and point the holders' resources to it.

        Raises FileExistsError when the new place is taken.
        """
        old, new = self.root / before, self.root / after
        if new.exists():
            raise FileExistsError(f"Target directory exists: {new}")
        with self._tables.lock:
            if old.exists():
                new.parent.mkdir(parents=True, exist_ok=True)
                old.rename(new)
            for _holder, row in self._tables.resources_of(concerned):
                if row.directory.startswith(f"{before}/"):
                    moved = after + row.directory[len(before) :]
                    self._tables.resources.put(replace(row, directory=moved))

    def remove(self, resource: Resource) -> None:
        """Drop a resource with its files."""
        self._tables.resources.drop(resource.id)
        shutil.rmtree(self.directory(resource), ignore_errors=True)


def md5_of(path: Path) -> str:
    """The MD5 of a file, hex."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
