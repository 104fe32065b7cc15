"""The objects of an archive, from projects down to resources, and what tells their levels apart.

Values are frozen; a change replaces the row. Neither files (`archive.py`) nor users (`site.py`)
are known here.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from xnatfs.demo.rows import Journal, Rows

Pairs = tuple[tuple[str, str], ...]


def timestamp(moment: float | None = None) -> str:
    """A moment as `java.sql.Timestamp` prints it: at least one digit of a fraction (R§2.1)."""
    text = datetime.fromtimestamp(time.time() if moment is None else moment, UTC)
    digits = text.strftime("%f")[:3].rstrip("0") or "0"
    return f"{text:%Y-%m-%d %H:%M:%S}.{digits}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Object:
    """A project, subject, experiment (a session), assessor, scan or reconstruction.

    `id` is a project's id, an accession id, or the row number of a scan or reconstruction, which
    users know by its `label`. `project` is the owning one, a project's own id too; `parent` the
    key of what it is part of; `shares` are pairs of another project and the label there, `roles`
    pairs of user and role; `fields` whatever else its columns show.
    """

    kind: str
    id: str
    label: str
    project: str
    parent: str = ""
    xsi_type: str = ""
    fields: Pairs = ()
    shares: Pairs = ()
    roles: Pairs = ()
    aliases: tuple[str, ...] = ()
    insert_user: str = "admin"
    insert_date: str = ""
    last_modified: str = ""
    quarantined: bool = False

    @property
    def key(self) -> str:
        """What it is found by."""
        return f"{self.kind}:{self.id}"

    @property
    def name(self) -> str:
        """Its label as a name on disk."""
        return self.label.replace("/", "_")

    @property
    def homes(self) -> tuple[str, ...]:
        """The projects that show it, the owner first."""
        return (self.project, *(home for home, _label in self.shares))

    def field(self, name: str, default: str = "") -> str:
        """One of its fields."""
        return next((value for key, value in self.fields if key == name), default)

    def label_in(self, project: str) -> str:
        """Its label as seen in a project; sharing may change it (R§2.3)."""
        return next((it or self.label for home, it in self.shares if home == project), self.label)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resource:
    """A folder of files with a catalog.

    `owner` says what it hangs on (`Holder.owner`); `directory` lies below the archive's root;
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


@dataclass(frozen=True, slots=True)
class Level:
    """How the objects of a level show; templates over the object `o` and its session `s`.

    `uri` is the address of its resources below /data (R§2.6), `folder` its place in the archive
    (R§4.4), `entry` the start of names in a bulk download (R§3.4); `roles` are what resources may
    be to it, each with its folder (R§1.2); `category` and `cat_id` stand in lists of resources.
    """

    uri: str
    folder: str
    entry: str
    roles: Mapping[str, str]
    category: str = "resources"
    cat_id: str = ""
    children: tuple[str, ...] = ()


_SESSION = "archive/{s.project}/arc001/{s.name}"
LEVELS: Mapping[str, Level] = {
    "project": Level(
        "/projects/{o.id}", "archive/{o.id}", "{o.id}", {"": "/resources"}, children=("subject",)
    ),
    "subject": Level(
        "/projects/{o.project}/subjects/{o.id}", "archive/{o.project}/subjects/{o.name}",
        "{o.label}", {"": ""}, children=("experiment",),
    ),
    "experiment": Level(
        "/experiments/{o.id}", "archive/{o.project}/arc001/{o.name}", "{o.label}",
        {"": "/RESOURCES"}, cat_id="{o.id}", children=("scan", "reconstruction", "assessor"),
    ),
    "scan": Level(
        "/experiments/{s.id}/scans/{o.label}", _SESSION + "/SCANS/{o.name}",
        "{s.label}/scans/{o.label}", {"": ""}, "scans", "{o.label}",
    ),
    "reconstruction": Level(
        "/experiments/{s.id}/reconstructions/{o.label}", _SESSION + "/PROCESSED/{o.name}",
        "{s.label}/reconstructions/{o.label}", {"out": "", "in": "/in"}, "reconstructions",
        "{o.label}",
    ),
    "assessor": Level(
        "/experiments/{s.id}/assessors/{o.id}", _SESSION + "/ASSESSORS/{o.name}",
        "{s.label}/assessors/{o.label}", {"out": "/out", "in": "/in", "": "/RESOURCES"},
        "assessors", "{o.id}",
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Holder:
    """An object as what resources hang on, in one of its roles; `session` is that of a part."""

    object: Object
    role: str = ""
    session: Object | None = None

    @property
    def level(self) -> Level:
        """What its level says."""
        return LEVELS[self.object.kind]

    @property
    def owner(self) -> str:
        """The key that its resources carry."""
        return f"{self.object.key}:{self.role}"

    @property
    def guard(self) -> Object:
        """The object whose rights count."""
        is_own = self.object.kind not in ("scan", "reconstruction")
        return self.object if is_own else self.session or self.object

    def _filled(self, template: str) -> str:
        return template.format(o=self.object, s=self.session)

    @property
    def uri(self) -> str:
        """Its canonical address."""
        return "/data" + self._filled(self.level.uri) + (self.role and f"/{self.role}")

    @property
    def folder(self) -> str:
        """Where the object lies below the archive's root; its resources are in `roles` of it."""
        return self._filled(self.level.folder)

    @property
    def entry(self) -> str:
        """The start of the names in a bulk download."""
        return self._filled(self.level.entry) + (self.role and f"/{self.role}")

    @property
    def entry_suffix(self) -> str:
        """What is added to it where the request went through `scans/`."""
        kind = self.object.field("type") if self.object.kind == "scan" else ""
        clean = "".join(it if it.isalnum() or it in "_-" else "_" for it in kind)
        return clean and f"-{clean}"

    @property
    def cat_id(self) -> str:
        """The column of that name."""
        return self._filled(self.level.cat_id)

    @property
    def cat_desc(self) -> str:
        """The column of that name: a type, or for sessions a blank (recorded bodies)."""
        kinds = {"experiment": " ", "assessor": self.object.xsi_type}
        return kinds.get(self.object.kind, self.object.field("type"))


def _places(row: Object) -> Iterator[str]:
    """Where an object is found: in its parent, in projects, and by its names there."""
    yield f"{row.kind}@"
    yield f"{row.kind}@{row.parent}"
    for project in row.homes:
        yield f"{row.kind}@{project}"
        yield f"{row.kind}@{project}/{row.label_in(project)}"
    for name in row.aliases:
        yield f"{row.kind}@/{name}"


class Tables:
    """All objects of one site. Threading: `lock` is the journal's."""

    def __init__(self, path: Path) -> None:
        self.journal = Journal(path)
        self.lock = self.journal.lock
        self.objects: Rows[Object] = Rows(
            self.journal, Object, "object", lambda row: row.key, _places
        )
        self.resources: Rows[Resource] = Rows(
            self.journal, Resource, "resource", lambda row: row.id, lambda row: [row.owner]
        )

    def accession(self, letter: str) -> str:
        """A new accession id: letter S for subjects, E for experiments."""
        return f"XNAT_{letter}{self.journal.next_number(letter):05d}"

    def number(self, counter: str) -> str:
        """A new database id."""
        return str(self.journal.next_number(counter))

    def of(self, kind: str, place: str = "") -> list[Object]:
        """The objects of a kind: all, those with a parent's key, or those in a project."""
        return self.objects.of(f"{kind}@{place}")

    def project(self, name: str) -> Object | None:
        """A project by id or alias."""
        return self.objects.get(f"project:{name}") or next(
            iter(self.of("project", f"/{name}")), None
        )

    def experiment(self, accession: str) -> Object | None:
        """A session or assessor by its accession id."""
        return self.objects.get(f"experiment:{accession}") or self.objects.get(
            f"assessor:{accession}"
        )

    def find(self, kind: str, project: str, name: str) -> Object | None:
        """A subject or session in a project, owned or shared.

        Subjects go by label first, then by id; sessions the other way round (R§8).
        """
        row = self.objects.get(f"{kind}:{name}")
        by_id = [row] if row and project in row.homes else []
        by_label = self.of(kind, f"{project}/{name}")
        found = by_label + by_id if kind == "subject" else by_id + by_label
        return found[0] if found else None

    def parent(self, row: Object) -> Object | None:
        """What an object is part of."""
        return self.objects.get(row.parent) if row.parent else None

    def holder(self, row: Object, role: str = "") -> Holder:
        """An object as a holder."""
        has_session = row.parent.startswith("experiment:")
        return Holder(row, role, self.parent(row) if has_session else None)

    def holders(self, row: Object) -> list[Holder]:
        """An object in each of its roles."""
        return [self.holder(row, role) for role in LEVELS[row.kind].roles]

    def children(self, row: Object) -> Iterator[Object]:
        """What is part of an object, kind by kind."""
        for kind in LEVELS[row.kind].children:
            yield from self.of(kind, row.key)

    def below(self, row: Object) -> list[Holder]:
        """An object and everything below it."""
        found = self.holders(row)
        for child in self.children(row):
            found += self.below(child)
        return found

    def holder_of(self, resource: Resource) -> Holder | None:
        """What a resource hangs on; None when that is gone."""
        key, _, role = resource.owner.rpartition(":")
        row = self.objects.get(key)
        return self.holder(row, role) if row else None

    def resources_of(self, holders: Iterable[Holder]) -> list[tuple[Holder, Resource]]:
        """The resources of holders, with those."""
        return [(it, resource) for it in holders for resource in self.resources.of(it.owner)]
