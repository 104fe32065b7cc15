"""The objects of an archive and their tables: projects down to resources.

Values are frozen; a change replaces the row. Files are not known here (`archive.py`), rights
neither (`rights.py`).
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from xnatfs.demo.database import Database, Rows

Pairs = tuple[tuple[str, str], ...]


def timestamp(moment: float | None = None) -> str:
    """A moment as `java.sql.Timestamp` prints it: at least one digit of a fraction (R§2.1)."""
    text = datetime.fromtimestamp(time.time() if moment is None else moment, UTC)
    digits = text.strftime("%f")[:3].rstrip("0") or "0"
    return f"{text:%Y-%m-%d %H:%M:%S}.{digits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Project:
    """A project; `access` is private, protected or public; `roles` pairs of user and role."""

    id: str
    name: str = ""
    secondary_id: str = ""
    description: str = ""
    keywords: str = ""
    pi_firstname: str = ""
    pi_lastname: str = ""
    access: str = "private"
    aliases: tuple[str, ...] = ()
    roles: Pairs = ()
    insert_user: str = "admin"
    insert_date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A subject; `shares` are pairs of another project and the label there."""

    id: str
    project: str
    label: str
    shares: Pairs = ()
    fields: Pairs = ()
    insert_user: str = "admin"
    insert_date: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Experiment:
    """A session (of a subject) or an assessor (then `session` is the session's accession id)."""

    id: str
    project: str
    label: str
    xsi_type: str
    subject: str
    session: str = ""
    date: str = ""
    time: str = ""
    shares: Pairs = ()
    fields: Pairs = ()
    insert_user: str = "admin"
    insert_date: str = ""
    last_modified: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scan:
    """A scan of a session; `key` is its row number, `id` what users call it."""

    key: str
    session: str
    id: str
    xsi_type: str
    type: str = ""
    quality: str = "usable"
    note: str = ""
    series_description: str = ""
    fields: Pairs = ()
    insert_user: str = "admin"
    insert_date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reconstruction:
    """A reconstruction of a session."""

    key: str
    session: str
    id: str
    type: str = ""
    base_scan_type: str = ""
    fields: Pairs = ()
    insert_user: str = "admin"
    insert_date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A resource: a folder of files with a catalog.

    `owner` says what it hangs on (`holders.py`); `directory` lies below the archive's root;
    `file_count` and `file_size` are what the database believes, which may be stale (R§2.6).
    """

    id: str
    owner: str
    label: str
    directory: str
    format: str = ""
    content: str = ""
    description: str = ""
    tags: str = ""
    file_count: str = "0"
    file_size: str = "0"
    insert_user: str = "admin"
    insert_date: str = ""


def _homes(project: str, shares: Pairs) -> Iterable[str]:
    return (project, *(other for other, _label in shares))


def _experiment_owners(row: Experiment) -> Iterable[str]:
    if row.session:
        return [f"assessors-of:{row.session}"]
    return [f"subject:{row.subject}", *_places(row)]


def _places(row: Subject | Experiment) -> Iterable[str]:
    """Where a row is found: in projects, and by its label in each."""
    for project in _homes(row.project, row.shares):
        yield f"in:{project}"
        yield f"in:{project}:{label_in(row, project)}"


def label_in(row: Subject | Experiment, project: str) -> str:
    """The label of a subject or experiment as seen in a project; sharing may change it (R§2.3)."""
    return next((label or row.label for home, label in row.shares if home == project), row.label)


class Tables:
    """All objects of one site.

    Threading: `lock` is the database's; hold it around read-decide-write.
    """

    def __init__(self, path: Path) -> None:
        self.database = Database(path)
        self.lock = self.database.lock
        database = self.database
        self.projects: Rows[Project] = Rows(database, Project, "project", lambda row: row.id)
        self.subjects: Rows[Subject] = Rows(
            database, Subject, "subject", lambda row: row.id, _places
        )
        self.experiments: Rows[Experiment] = Rows(
            database, Experiment, "experiment", lambda row: row.id, _experiment_owners
        )
        self.scans: Rows[Scan] = Rows(
            database, Scan, "scan", lambda row: row.key, lambda row: [row.session]
        )
        self.reconstructions: Rows[Reconstruction] = Rows(
            database, Reconstruction, "recon", lambda row: row.key, lambda row: [row.session]
        )
        self.resources: Rows[Resource] = Rows(
            database, Resource, "resource", lambda row: row.id, lambda row: [row.owner]
        )

    def close(self) -> None:
        """Close the database."""
        self.database.close()

    def accession(self, letter: str) -> str:
        """A new accession id: letter S for subjects, E for experiments."""
        return f"XNAT_{letter}{self.database.next_number(letter):05d}"

    def number(self, counter: str) -> str:
        """A new database id."""
        return str(self.database.next_number(counter))

    def project(self, name: str) -> Project | None:
        """A project by id or alias."""
        found = self.projects.get(name)
        if found is not None:
            return found
        return next((row for row in self.projects.all() if name in row.aliases), None)

    def subject(self, project: str, name: str) -> Subject | None:
        """A subject in a project (owned or shared): by label first, then by id (R§8)."""
        row = self.subjects.get(name)
        by_id = [row] if row and project in _homes(row.project, row.shares) else []
        return next(iter([*self.subjects.of(f"in:{project}:{name}"), *by_id]), None)

    def experiment(self, project: str, name: str) -> Experiment | None:
        """A session in a project: by accession id first, then by label (R§8)."""
        row = self.experiments.get(name)
        is_here = row and not row.session and project in _homes(row.project, row.shares)
        by_id = [row] if row and is_here else []
        return next(iter([*by_id, *self.experiments.of(f"in:{project}:{name}")]), None)

    def assessor(self, session: str, project: str, name: str) -> Experiment | None:
        """An assessor of a session: by accession id first, then by label."""
        rows = self.experiments.of(f"assessors-of:{session}")
        by_id = next((row for row in rows if row.id == name), None)
        return by_id or next((row for row in rows if label_in(row, project) == name), None)
