"""Data on order: a project of any size, which exists only as far as somebody looks at it.

Sessions and subjects are made when the site opens, scans and resources when they are asked for,
catalogs at each request, and a file's bytes when it is first read. Everything follows from the
order, the seed and the number of the object, so that two servers with one order are alike. What
is written lies on disk like anything else (`Archive.settle`).
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, timedelta
from functools import lru_cache

from xnatfs.demo.catalog import Entry
from xnatfs.demo.objects import Experiment, Project, Resource, Scan, Subject, Tables

PROJECT = "ORDER000"
_FIRST = 1_000_001  # of all numbers given here: far from those that the database gives
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


def session_label(number: int) -> str:
    """The label of a session, by its number from 0; its subject's is the part before `_`."""
    return f"S{number + 1:05d}_MR"


class Ordered:
    """The objects, catalogs and bytes of an order.

    Threading: only the cache of catalogs changes, which guards itself.
    """

    def __init__(self, order: Order) -> None:
        self._order = order
        self._scan_count = order.sessions * order.scans
        common = random.Random(order.seed).randbytes(max(0, order.file_size - _TAIL))
        self._common = common
        # All files begin alike, so that the MD5 of a file costs its tail only.
        self._begun = hashlib.md5(common, usedforsecurity=False)
        self.entries = lru_cache(maxsize=64)(self._entries)

    def plant(self, tables: Tables) -> None:
        """Let the tables know the project and what is in it."""
        roles = (("admin", "owner"), ("member", "member"), ("reader", "collaborator"))
        project = Project(id=PROJECT, name="Data on order", secondary_id=PROJECT, roles=roles,
                          insert_date=_STAMP)  # fmt: skip
        tables.projects.grow([project])
        numbers = range(self._order.sessions)
        tables.subjects.grow(self._subject(it) for it in numbers)
        tables.experiments.grow(self._session(it) for it in numbers)
        tables.scans.grow_later(self._scans, self._session_of)
        tables.resources.grow_later(self._resources, lambda number: f"scan:{number}")

    def _subject(self, number: int) -> Subject:
        label = session_label(number).partition("_")[0]
        return Subject(id=f"XNAT_S{_FIRST + number}", project=PROJECT, label=label,
                       insert_date=_STAMP, last_modified=_STAMP)  # fmt: skip

    def _session(self, number: int) -> Experiment:
        day = date(2015, 1, 1) + timedelta(days=number % 3650)
        return Experiment(
            id=f"XNAT_E{_FIRST + number}", project=PROJECT, label=session_label(number),
            xsi_type="xnat:mrSessionData", subject=f"XNAT_S{_FIRST + number}",
            date=day.isoformat(), insert_date=_STAMP, last_modified=_STAMP,
        )  # fmt: skip

    def _session_of(self, scan: str) -> str:
        return f"XNAT_E{_FIRST + (int(scan) - _FIRST) // self._order.scans}" if scan in self else ""

    def _scans(self, session: str) -> Iterable[Scan]:
        """The scans of a session, by its accession id."""
        number = session.removeprefix("XNAT_E")
        if not number.isdigit() or not 0 <= int(number) - _FIRST < self._order.sessions:
            return
        first = _FIRST + (int(number) - _FIRST) * self._order.scans
        for place in range(self._order.scans):
            kind = _SCAN_TYPES[place % len(_SCAN_TYPES)]
            yield Scan(key=str(first + place), session=session, id=str(place + 1),
                       xsi_type="xnat:mrScanData", type=kind, series_description=kind,
                       insert_date=_STAMP)  # fmt: skip

    def __contains__(self, number: str) -> bool:
        """Whether this is the number of an ordered scan, and so of its one resource."""
        return number.isdigit() and 0 <= int(number) - _FIRST < self._scan_count

    def _resources(self, owner: str) -> Iterable[Resource]:
        """The resource of a scan; nothing else has one."""
        kind, _, number = owner.partition(":")
        if kind == "scan" and number in self:
            session, place = divmod(int(number) - _FIRST, self._order.scans)
            folder = f"archive/{PROJECT}/arc001/{session_label(session)}/SCANS/{place + 1}/DICOM"
            size = self._order.files * self._order.file_size
            yield Resource(
                id=number, owner=owner, label="DICOM", directory=folder, format="DICOM",
                content="RAW", file_count=str(self._order.files), file_size=str(size),
                insert_date=_STAMP,
            )  # fmt: skip

    def _entries(self, number: str) -> tuple[Entry, ...]:
        """The catalog of a resource (`entries` keeps the latest)."""
        return tuple(self._entry(number, it) for it in range(self._order.files))

    def _entry(self, number: str, place: int) -> Entry:
        name = f"IM{place + 1:06d}.dcm"
        digest = self._begun.copy()
        digest.update(self._tail(number, name))
        return Entry(uri=name, id=name, name=name, size=str(self._order.file_size),
                     digest=digest.hexdigest(), format="DICOM", content="RAW",
                     created_time=_STAMP, created_by="admin", created_event="1")  # fmt: skip

    def content(self, number: str, name: str) -> bytes:
        """The bytes of a file."""
        return self._common + self._tail(number, name)

    def _tail(self, number: str, name: str) -> bytes:
        told = f"{self._order.seed}/{number}/{name}".encode()
        return hashlib.sha256(told).digest()[: self._order.file_size - len(self._common)]
