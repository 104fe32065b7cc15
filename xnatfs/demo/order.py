"""Data on order: a project of any size, which exists only as far as somebody looks at it.

Sessions and subjects are made when the site opens, scans and resources when they are asked for,
catalogs and bytes at each request. Everything follows from the order, the seed and the number of
the object, so that two servers with one order are alike. What is changed lies on disk like
anything else (`Archive.settle`).
"""

from __future__ import annotations

import hashlib
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

from xnatfs.demo.catalog import Catalog, Entry
from xnatfs.demo.objects import Object, Resource, Tables

PROJECT = "ORDER000"
_FIRST = 1_000_001  # of all numbers given here: far from those that the journal gives
_STAMP = "2021-04-08 19:28:45.0"
_SCAN_TYPES = ("localizer", "T1", "T2", "FLAIR", "DWI", "BOLD")
_TAIL = 32  # bytes in which the files differ


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """How much: scans per session, files per scan, bytes per file."""

    sessions: int
    scans: int = 4
    files: int = 100
    file_size: int = 128 << 10
    seed: int = 1


class Ordered:
    """The objects, catalogs and bytes of an order.

    Threading: only the cache of catalogs changes, which guards itself.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self.file_size = order.file_size
        self._common = random.Random(order.seed).randbytes(max(0, order.file_size - _TAIL))
        # All files begin alike, so that the MD5 of a file costs its tail only.
        self._begun = hashlib.md5(self._common, usedforsecurity=False)
        self.catalog = lru_cache(maxsize=64)(self._catalog)

    def plant(self, tables: Tables) -> None:
        """Let the tables know the project and what is in it."""
        roles = (("admin", "owner"), ("member", "member"), ("reader", "collaborator"))
        about = (("name", "Data on order"), ("secondary_ID", PROJECT), ("access", "private"))
        project = _object("project", PROJECT, PROJECT, fields=about, roles=roles)
        numbers = range(self._order.sessions)
        tables.objects.grow([project])
        tables.objects.grow(
            _object("subject", f"XNAT_S{_FIRST + it}", _label(it), parent=project.key)
            for it in numbers
        )
        tables.objects.grow(self._session(it) for it in numbers)
        tables.objects.source = self._scans
        tables.resources.source = self._resources

    def _session(self, number: int) -> Object:
        day = date(2015, 1, 1) + timedelta(days=number % 3650)
        return _object(
            "experiment", f"XNAT_E{_FIRST + number}", f"{_label(number)}_MR", "mrSession",
            parent=f"subject:XNAT_S{_FIRST + number}", fields=(("date", day.isoformat()),),
        )  # fmt: skip

    def _scans(self, question: str) -> Iterable[Object]:
        """The scans of a session that the key of a scan, or the place of all, asks for."""
        asked = re.fullmatch(r"scan:(\d+)|scan@experiment:XNAT_E(\d+)", question)
        if asked is None or (asked[1] and asked[1] not in self):
            return
        session = (
            (int(asked[1]) - _FIRST) // self._order.scans if asked[1] else int(asked[2]) - _FIRST
        )
        if not 0 <= session < self._order.sessions:
            return
        first = _FIRST + session * self._order.scans
        for place in range(self._order.scans):
            kind = _SCAN_TYPES[place % len(_SCAN_TYPES)]
            fields = (("type", kind), ("quality", "usable"), ("series_description", kind))
            yield _object(
                "scan", str(first + place), str(place + 1), "mrScan",
                parent=f"experiment:XNAT_E{_FIRST + session}", fields=fields,
            )  # fmt: skip

    def __contains__(self, number: str) -> bool:
        """Whether this is the number of an ordered scan, and so of its one resource."""
        scans = self._order.sessions * self._order.scans
        return number.isdigit() and 0 <= int(number) - _FIRST < scans

    def _resources(self, question: str) -> Iterable[Resource]:
        """The resource that its number or its scan asks for."""
        number = question.removeprefix("scan:").removesuffix(":")
        if number in self:
            session, place = divmod(int(number) - _FIRST, self._order.scans)
            folder = f"archive/{PROJECT}/arc001/{_label(session)}_MR/SCANS/{place + 1}/DICOM"
            size = self._order.files * self.file_size
            yield Resource(
                id=number, owner=f"scan:{number}:", label="DICOM", directory=folder,
                format="DICOM", content="RAW", file_count=str(self._order.files),
                file_size=str(size), insert_date=_STAMP,
            )  # fmt: skip

    def _catalog(self, number: str) -> Catalog:
        """The catalog of a resource."""
        names = (f"IM{it + 1:06}.dcm" for it in range(self._order.files))
        return Catalog(tuple(self._entry(number, name) for name in names))

    def _entry(self, number: str, name: str) -> Entry:
        digest = self._begun.copy()
        digest.update(self._tail(number, name))
        return Entry(uri=name, id=name, name=name, size=str(self.file_size),
                     digest=digest.hexdigest(), format="DICOM", content="RAW",
                     created_time=_STAMP, created_by="admin", created_event="1")  # fmt: skip

    def reader(self, number: str, name: str) -> Callable[[int, int], bytes]:
        """What gives the bytes of a file, by start and count."""
        common, tail = self._common, self._tail(number, name)

        def read(start: int, count: int) -> bytes:
            end, at = start + count, max(0, start - len(common))
            return common[start:end] + tail[at : max(0, end - len(common))]

        return read

    def _tail(self, number: str, name: str) -> bytes:
        told = f"{self._order.seed}/{number}/{name}".encode()
        return hashlib.sha256(told).digest()[: self.file_size - len(self._common)]


def _label(number: int) -> str:
    """The label of a subject, by its number from 0; its session's is followed by `_MR`."""
    return f"S{number + 1:05d}"


def _object(
    kind: str,
    name: str,
    label: str,
    data_type: str = "",
    *,
    parent: str = "",
    fields: tuple[tuple[str, str], ...] = (),
    roles: tuple[tuple[str, str], ...] = (),
) -> Object:
    return Object(
        kind=kind, id=name, label=label, project=PROJECT, parent=parent, fields=fields,
        roles=roles, xsi_type=f"xnat:{data_type or kind}Data", insert_date=_STAMP,
        last_modified=_STAMP,
    )  # fmt: skip
