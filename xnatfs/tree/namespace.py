"""The archive's names: from a path to the object, folder or file that it means, and back.

A child exists only if the listing of its parent has it (R§1.4). Which collections an object has
and where they are asked for is in ``model.levels``; nothing here knows a level by name.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

from cachetools import LRUCache

from xnatfs.config import Limits
from xnatfs.errors import NotAFolder, NotALink, NotFound
from xnatfs.model.entities import Item, Kind, RemoteFile
from xnatfs.model.levels import BY_COLLECTION, EXPERIMENT, RESOURCE, Level
from xnatfs.model.paths import encode_name, unique_names
from xnatfs.tree.catalog import Folder
from xnatfs.tree.contents import Content, Contents
from xnatfs.tree.foresight import Foresight
from xnatfs.tree.held import Listing
from xnatfs.tree.listings import Listings
from xnatfs.tree.node import Node
from xnatfs.tree.overlay import Overlay
from xnatfs.tree.walks import Walks
from xnatfs.waiting import Waiter

# A resource that an assessor or reconstruction was made from: "LABEL~in".
INPUT_MARK = "~in"

# A folder that was looked up is looked up again after this long, whatever changed. Seconds.
_FRESH_S = 1.0

# What is made from a listing and remembered with it.
Names = Mapping[str, Item] | Mapping[str, str] | Mapping[str, list[Item]]

Found = str | Item | Content


@dataclass(frozen=True, slots=True)
class _Known:
    """A folder that was looked up, and after how many changes and when (time.monotonic())."""

    node: Node
    changes: int
    at: float


class Namespace:
    """Names of one archive.

    Threading: ``_mu`` guards what is remembered; listings and overlay guard themselves.
    """

    def __init__(
        self, listings: Listings, overlay: Overlay, limits: Limits, scan_names: str
    ) -> None:
        self._listings = listings
        self._overlay = overlay
        self._limits = limits
        self._long = scan_names == "id-type"
        self._mu = threading.Lock()
        # Names made from a listing, valid as long as that very listing is the cached one.
        self._memo: LRUCache[object, tuple[object, Names]]
        self._memo = LRUCache(4096)
        self._folders: LRUCache[str, _Known] = LRUCache(256)
        self._fresh_s = min(_FRESH_S, limits.listing_ttl_s)
        self._foresight = Foresight(listings)
        # What is asked for ahead is to be wanted long before its time is over.
        self._walks = Walks(listings, limits.listing_ttl_s / 4)
        self._contents = Contents(listings, overlay, self._walks)

    # -- questions

    def root(self) -> Node:
        """The archive."""
        return Node(Kind.FOLDER, "/")

    def lookup(self, path: str, waiter: Waiter) -> Node:
        """What ``path`` means.

        Raises: NotFound, NotAFolder (something on the way is a file).
        """
        folder, _, name = path.rstrip("/").rpartition("/")
        if not name:
            return self.root()
        return self.child(self._known_folder(folder, waiter), name, waiter)

    def _known_folder(self, path: str, waiter: Waiter) -> Node:
        """A folder, from memory if nothing was listed since it was looked up.

        Programs open one file of a folder after the other; the way there is most of a look-up.
        """
        now, changes = time.monotonic(), self._listings.changes
        with self._mu:
            known = self._folders.get(path)
        if known is not None and known.changes == changes and now - known.at < self._fresh_s:
            return known.node
        node = self.lookup(path, waiter)
        with self._mu:
            self._folders[path] = _Known(node, changes, now)
        return node

    def child(
        self, node: Node, name: str, waiter: Waiter, *, now: bool = False, ahead: bool = True
    ) -> Node:
        """The entry ``name`` of a folder; a listing that is not quite new is asked again.

        Args:
            node: the folder.
            name: of the entry.
            waiter: limits of the wait.
            now: no listing of before now is new enough to say that there is no such name.
            ahead: ask at once for what is wanted next on the way down.
        """
        if node.kind is not Kind.FOLDER:
            raise NotAFolder(f"{node.path} is not a folder")
        if ahead:
            self._foresight.looking_for(node.path, node.collection, node.item, name)
        found = self._find(node, name, waiter, 0.0)
        if found is None and node.collection:
            not_before = time.monotonic() - (0.0 if now else self._limits.negative_ttl_s)
            found = self._find(node, name, waiter, not_before)
        if found is None:
            raise NotFound(f"no {name} in {node.path}")
        if isinstance(found, Item) and ahead:
            self._foresight.found(node.path, found)
        return self._node(node, name, found)

    def child_now(self, node: Node, name: str, waiter: Waiter) -> Node:
        """The entry ``name`` as the server has it from now on (something was just made)."""
        found = self._find(node, name, waiter, time.monotonic())
        if found is None:
            raise NotFound(f"no {name} in {node.path}")
        return self._node(node, name, found)

    def taken_now(self, node: Node, waiter: Waiter) -> set[str]:
        """Labels and ids of all that the server lists where a collection's objects come from."""
        rows = self._listing(node, waiter, time.monotonic()).rows
        return {name for item in rows for name in (item.id, item.label)}

    def children(self, node: Node, waiter: Waiter) -> Iterator[Node]:
        """The entries of a folder, in the server's order."""
        if node.kind is not Kind.FOLDER:
            raise NotAFolder(f"{node.path} is not a folder")
        self._foresight.listed(node.path)
        for name, found in self._entries(node, waiter, 0.0).items():
            yield self._node(node, name, found)

    def was_listed(self, folder: str) -> bool:
        """Whether somebody has listed a folder (its path) within the last minute."""
        return self._foresight.was_listed(folder)

    def forget(self, node: Node, waiter: Waiter) -> None:
        """Forget what is known of an object and of all below it; of the root: everything."""
        item = node.item
        if not node.chain:
            self._listings.forget(None)
            return
        # The listing of a session tells of all that is below it.
        at = next((it for it in node.chain if it.level.name == item.level.resources_at), item)
        sessions = self._sessions_of(item, node.chain[0], waiter)
        for one in (at, *sessions):
            self._listings.forget(one)

    def _sessions_of(self, item: Item, project: Item, waiter: Waiter) -> list[Item]:
        """The sessions of a project or subject, whose addresses are not below its own."""
        if EXPERIMENT.collection not in item.level.holds:
            return []
        rows = self._listings.items(EXPERIMENT, project, waiter).rows
        whole = item.level.name == EXPERIMENT.listed_at
        return [row for row in rows if whole or row.cells.get(EXPERIMENT.parent_column) == item.id]

    def link_target(self, node: Node, waiter: Waiter) -> str:
        """Where a link leads, relative to the folder that holds it.

        Raises: NotALink; NotFound when the session has no place that this user can see.
        """
        if node.kind is not Kind.LINK:
            raise NotALink(f"{node.path} is not a link")
        *above, session = node.chain
        up = "../"
        project_id = above[0].id if above else session.cells.get("project", "")
        projects = self._listings.items(BY_COLLECTION["projects"], None, waiter).rows
        project = next((item for item in projects if item.id == project_id), None)
        if project is None:
            raise NotFound(f"{node.path}: its project {project_id} is not visible")
        root = Node(Kind.FOLDER, "/projects", (), "projects")
        place = self._node(root, encode_name(project.id), project)
        subjects = self._node(place, "subjects", "subjects")
        subject = self.by_id(subjects, session.cells.get(session.level.parent_column, ""), waiter)
        if subject is None:
            raise NotFound(f"{node.path}: its subject is not shown in project {project_id}")
        experiments = self._node(subject, "experiments", "experiments")
        experiment = self.by_id(experiments, session.id, waiter)
        if experiment is None:
            raise NotFound(f"{node.path}: not shown in project {project_id}")
        return up + (
            experiment.path.removeprefix(place.path + "/") if above else experiment.path[1:]
        )

    def holds_objects(self, node: Node) -> bool:
        """Whether this is the folder of a collection: of scans, say, and not of files."""
        return bool(node.collection) and not node.in_files

    def by_id(self, node: Node, id_: str, waiter: Waiter) -> Node | None:
        """The entry of a folder of objects that stands for the object with this id."""
        named = self._objects(node, waiter, 0.0)
        key = (node.item.address, node.collection, "by id")
        index = self._remembered(key, named)
        if index is None:
            index = {item.id: name for name, item in named.items()}
            self._remember(key, named, index)
        name = index.get(id_) if isinstance(index, dict) else None
        return self._node(node, str(name), named[str(name)]) if name is not None else None

    def files_below(self, node: Node, waiter: Waiter, not_before: float) -> list[RemoteFile]:
        """The server's files at or below a folder inside ``files``."""
        return self._contents.below(node, waiter, not_before)

    # -- from listings to names

    def _node(self, parent: Node, name: str, found: Found) -> Node:
        path = f"{parent.path.rstrip('/')}/{name}"
        if isinstance(found, str):
            return Node(Kind.FOLDER, path, parent.chain, found)
        if isinstance(found, Item):
            linked = parent.collection in parent.item.level.links
            kind = Kind.LINK if linked else Kind.FOLDER
            return Node(kind, path, (*parent.chain, found))
        if isinstance(found, Folder):
            return replace(parent, path=path, inner=found.path)
        file = found if isinstance(found, RemoteFile) else None
        return Node(Kind.FILE, path, parent.chain, "files", found.path, file)

    def _find(self, node: Node, name: str, waiter: Waiter, not_before: float) -> Found | None:
        if not node.collection:
            return name if name in node.item.level.holds else None
        if node.in_files:
            return self._contents.find(node, name, waiter, not_before)
        found = self._objects(node, waiter, not_before).get(name)
        if found is None:
            found = self._other_name(node, name, waiter)
        return found

    def _entries(self, node: Node, waiter: Waiter, not_before: float) -> Mapping[str, Found]:
        if not node.collection:
            return {name: name for name in node.item.level.holds}
        if node.in_files:
            return self._contents.entries(node, waiter, not_before)
        return self._objects(node, waiter, not_before)

    def _listing(self, node: Node, waiter: Waiter, not_before: float) -> Listing[Item]:
        level = BY_COLLECTION[node.collection]
        if level is RESOURCE:
            at = self._resources_at(node)
            self._walks.visits(node.collection, at, node.chain[0])
            return self._listings.resources(at, waiter, not_before)
        if not node.chain and level.listed_at:
            return self._listings.experiments(waiter, not_before)
        asked = next((i for i in node.chain if i.level.name == level.listed_at), None)
        if asked is not None:
            self._walks.visits(node.collection, asked, node.chain[0])
        return self._listings.items(level, asked, waiter, not_before)

    def _resources_at(self, node: Node) -> Item:
        wanted = node.item.level.resources_at
        return next(item for item in node.chain if item.level.name == wanted)

    def _objects(self, node: Node, waiter: Waiter, not_before: float) -> Mapping[str, Item]:
        listing = self._listing(node, waiter, not_before)
        key = (node.item.address, node.collection)
        known = self._remembered(key, listing.rows)
        if known is None:
            known = self._named(node, listing.rows)
            self._remember(key, listing.rows, known)
        named = cast("Mapping[str, Item]", known)
        if BY_COLLECTION[node.collection] is RESOURCE:
            local = self._overlay.resources_of(node.item)
            named = {encode_name(item.label): item for item in local} | dict(named)
        return named

    def _named(self, node: Node, rows: tuple[Item, ...]) -> dict[str, Item]:
        level = BY_COLLECTION[node.collection]
        mine = self._mine(node, level, rows)
        if not node.chain and level.listed_at:  # all experiments: by accession
            return unique_names((item.id, item.id, item) for item in mine)
        return self.named(mine)

    def named(self, items: Iterable[Item]) -> dict[str, Item]:
        """The names of objects that one folder shows; all of them, for clashes are told apart."""
        return unique_names((item.id, self._shown(item), item) for item in items)

    def _mine(self, node: Node, level: Level, rows: tuple[Item, ...]) -> Sequence[Item]:
        """The rows that are this parent's, of a listing that may cover many parents."""
        column = level.parent_column
        if level is RESOURCE:
            at, mine = self._resources_at(node), node.item.address
        elif column and node.chain and node.item.level.name != level.listed_at:
            at, mine = node.chain[0], node.item.id
        else:
            return rows
        # Sorted once for all parents: a project has thousands.
        key = (at.address, level.name, "by parent")
        sorted_ = self._remembered(key, rows)
        if sorted_ is None:
            groups: dict[str, list[Item]] = {}
            for item in rows:
                parent = item.cells.get(column, "") if column else _owner(item)
                groups.setdefault(parent, []).append(item)
            sorted_ = groups
            self._remember(key, rows, sorted_)
        return cast("Mapping[str, Sequence[Item]]", sorted_).get(mine, ())

    def _shown(self, item: Item) -> str:
        return long_name(item) if self._long and item.level.long_name else item.label

    def _other_name(self, node: Node, name: str, waiter: Waiter) -> Item | None:
        """The name in its other form: 4 or 4-Ax_3D_T1; an input resource asked for by name."""
        rows = self._listing(node, waiter, 0.0).rows
        level = BY_COLLECTION[node.collection]
        if level.long_name:
            for item in rows:
                if name in (encode_name(item.id), encode_name(long_name(item))):
                    return item
        if level is RESOURCE and name.endswith(INPUT_MARK) and node.item.level.inputs:
            session = node.above(EXPERIMENT)
            if session is not None:
                inputs = self._listings.inputs(session, node.item, waiter).rows
                wanted = (
                    (item.id, f"{item.label or item.id}{INPUT_MARK}", item) for item in inputs
                )
                return unique_names(wanted).get(name)
        return None

    # -- the memo

    def _remembered(self, key: object, rows: object) -> Names | None:
        with self._mu:
            known = self._memo.get(key)
        return known[1] if known is not None and known[0] is rows else None

    def _remember(self, key: object, rows: object, names: Names) -> None:
        with self._mu:
            self._memo[key] = (rows, names)


def _owner(resource: Item) -> str:
    """The address of the object that a resource belongs to."""
    return resource.address.rpartition("/resources/")[0]


def long_name(item: Item) -> str:
    """A scan's name in its long form: id and type, as XNAT's own archives call it (R§3.4)."""
    text = "-".join(filter(None, (item.cells.get(column, "") for column in item.level.long_name)))
    return "".join(c if c.isalnum() or c in "._-" else "_" for c in text)
