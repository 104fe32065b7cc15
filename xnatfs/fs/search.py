"""Finding things for the commands: what a text means, and all scans of a project."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from xnatfs.errors import NotAFolder
from xnatfs.fs.parts import Parts
from xnatfs.fs.unstored import Unstored
from xnatfs.model.entities import Item, Kind
from xnatfs.model.levels import EXPERIMENT, PROJECT, SCAN, SUBJECT
from xnatfs.rest import addresses, survey
from xnatfs.tree import places
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


@dataclass(frozen=True, slots=True)
class FoundSession:
    """A session in the place where a project shows it."""

    # Path in the archive.
    path: str
    accession: str
    subject: str
    label: str
    date: str


@dataclass(frozen=True, slots=True)
class FoundScan:
    """A scan."""

    path: str
    session: FoundSession
    id: str
    type: str
    quality: str
    description: str
    # Labels of its resources.
    resources: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Seen:
    """One entry, as Python's libraries look at it."""

    # By names.
    path: str
    kind: Kind
    # Bytes; None where only a HEAD would tell. 0 for folders and links.
    size: int | None
    # MD5 in lower-case hex; "" where the server has none.
    digest: str
    # Whether it is a resource's ``files`` or lies below it.
    in_files: bool


class Search:
    """What commands ask beside the operations of a file system.

    Args:
        parts: of the file system.

    Threading: holds no state of its own.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._unstored = Unstored(parts)

    def resolve(self, path: str, waiter: Waiter) -> str:
        """The path by names of what ``path`` means by names, ids or an accession.

        Raises: NotFound, with the nearest name; NotAFolder.
        """
        return places.resolve(self._parts.names, path, waiter).path

    def node(self, path: str, waiter: Waiter) -> Node:
        """What ``path`` means, for who looks once and asks for little. Raises: as ``resolve``."""
        return places.resolve_once(self._parts.names, self._parts.listings, path, waiter)

    def below(self, node: Node, waiter: Waiter) -> list[Node]:
        """The entries of a folder, in the server's order."""
        return list(self._parts.names.children(node, waiter))

    def collection(self, node: Node, name: str, waiter: Waiter) -> Node:
        """A collection of an object: its resources, say."""
        return self._parts.names.child(node, name, waiter, ahead=False)

    def cells(self, node: Node) -> dict[str, str]:
        """What ``ls -l`` tells of an entry: ``level`` and the extended attributes."""
        level = "file" if node.kind is Kind.FILE else node.collection or node.item.level.name
        return {"level": level, **self._unstored.extended(node)}

    def file_size(self, node: Node, waiter: Waiter) -> int:
        """Bytes of a file."""
        return self._parts.size(node, waiter)

    def address(self, path: str, waiter: Waiter, *, page: bool) -> str:
        """The web address of what a path means, below the server's.

        Args:
            path: as with ``resolve``.
            waiter: limits of the wait.
            page: the browser's page of the nearest project, subject or session; else what the
                REST interface calls it.

        Raises: NotFound, with the nearest name; BadName: no address leads there.
        """
        node = places.resolve(self._parts.names, path, waiter)
        if page:
            return _page(node)
        address = f"/data{node.item.address}"
        if node.in_files:
            inner = addresses.readable(node.inner) if node.inner else ""
            return f"{address}/files" + (f"/{inner}" if inner else "")
        return f"{address}/{node.collection}" if node.collection else address

    def look(self, path: str, waiter: Waiter, *, now: bool = False) -> Seen:
        """What ``path`` means, links followed.

        Args:
            path: by names or ids.
            waiter: limits of the wait.
            now: that there is no such name is said by a listing made from now on.

        Raises: NotFound; NotAFolder.
        """
        node = places.resolve(self._parts.names, path, waiter, now=now)
        size = self._parts.size(node, waiter) if node.kind is Kind.FILE else 0
        return replace(self._seen(node), size=size)

    def forget(self, path: str, waiter: Waiter) -> None:
        """Let the next look at a folder and what is below it ask the server."""
        self._parts.listings.forget(self._parts.names.lookup(path, waiter).item)

    def entries(self, path: str, waiter: Waiter) -> list[Seen]:
        """The entries of a folder (its path by names), in the server's order."""
        names = self._parts.names
        return [self._seen(node) for node in names.children(names.lookup(path, waiter), waiter)]

    def size(self, handle: int) -> int:
        """Bytes of an open file."""
        return self._parts.files.by_handle(handle)[0].size

    def _seen(self, node: Node) -> Seen:
        if node.kind is not Kind.FILE:
            return Seen(node.path, node.kind, 0, "", node.in_files)
        file = self._parts.files.find(node.item, node.inner)
        row = node.file
        if file is not None:
            return Seen(node.path, node.kind, file.size, "", in_files=True)
        size, digest = (row.size, row.digest) if row is not None else (None, "")
        return Seen(node.path, node.kind, size, digest, in_files=True)

    def scans(self, project: str, waiter: Waiter) -> list[FoundScan]:
        """All scans of a project, shared sessions included.

        The sessions come in the order of their places, the scans of one in the server's.

        Args:
            project: its path.
            waiter: limits of the wait.

        Raises: NotFound; NotAFolder: no project.
        """
        parts = self._parts
        node = places.resolve(parts.names, project, waiter)
        if node.collection or node.item.level is not PROJECT:
            raise NotAFolder(f"{node.path} is not a project")
        sessions = list(self._sessions(node, waiter))
        rows = self._survey(node.item, waiter, shared=False)
        if any(session.item.id not in rows for session in sessions):
            # Shared ones are another query (R§1.3), and no column of a listing tells them.
            rows |= self._survey(node.item, waiter, shared=True)
        return [
            scan
            for session in sessions
            for scan in self._scans(session, rows.get(session.item.id, []))
        ]

    def _sessions(self, project: Node, waiter: Waiter) -> Iterator[Node]:
        """The sessions of a project in their one place there."""
        names = self._parts.names
        subjects = names.child(project, "subjects", waiter)
        for subject in names.children(subjects, waiter):
            yield from names.children(names.child(subject, "experiments", waiter), waiter)

    def _survey(
        self, project: Item, waiter: Waiter, *, shared: bool
    ) -> dict[str, list[survey.ScanRow]]:
        return self._parts.run(
            lambda worker: survey.scans(self._parts.session, project.id, worker, shared=shared),
            f"the scans of {project.id}",
            waiter,
        )

    def _scans(self, place: Node, rows: list[survey.ScanRow]) -> Iterator[FoundScan]:
        cells = place.item.cells
        subject = place.path.split("/")[-3]
        session = FoundSession(
            place.path, place.item.id, subject, place.name, cells.get("date", "")
        )
        resources = {row.cells[SCAN.key]: row.resources for row in rows}
        items = [_item(place.item, row) for row in rows]
        for name, item in self._parts.names.named(items).items():
            yield FoundScan(
                path=f"{place.path}/{SCAN.collection}/{name}",
                session=session,
                id=item.id,
                type=item.cells["type"],
                quality=item.cells["quality"],
                description=item.cells["series_description"],
                resources=tuple(resources[item.id]),
            )


def _page(node: Node) -> str:
    """The page of the innermost object that has one."""
    elements = {PROJECT.name: "xnat:projectData", SUBJECT.name: "xnat:subjectData"}
    for item in reversed(node.chain):
        kind = elements.get(item.level.name, "")
        if item.level is EXPERIMENT:
            kind = item.cells.get("xsiType", "")
        if kind:
            project = f"/project/{node.chain[0].id}" if node.chain[0].level is PROJECT else ""
            return (
                f"/app/action/DisplayItemAction/search_value/{addresses.segment(item.id)}"
                f"/search_element/{kind}/search_field/{kind}.ID{project}"
            )
    return "/"


def _item(session: Item, row: survey.ScanRow) -> Item:
    id_ = row.cells[SCAN.key]
    address = addresses.object_address(SCAN, id_, session.address)
    return Item(SCAN, id_, row.cells[SCAN.label], address, row.cells)
