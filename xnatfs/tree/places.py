"""Finding what a person means: names, ids and accessions, links followed, near misses named.

A mount knows names only; commands take what stands in a browser's address as well, where XNAT
writes ids (R§2.6).
"""

from __future__ import annotations

import difflib
import posixpath
import re
from collections.abc import Sequence
from contextlib import suppress

from xnatfs.errors import BadName, BadReply, NotFound, XnatfsError
from xnatfs.model.entities import Item, Kind
from xnatfs.model.levels import EXPERIMENT, PROJECT, SUBJECT
from xnatfs.model.paths import decode_name, encode_name
from xnatfs.rest.addresses import object_address
from xnatfs.tree.listings import Listings
from xnatfs.tree.namespace import Namespace
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter

# A link leads to its session's one place, which is none; anything longer is a mistake of ours.
_MOST_LINKS = 4


# The site's id, "_E", and a number of at least five digits.
_ACCESSION = re.compile(r".+_E\d{4,}")


def resolve(names: Namespace, path: str, waiter: Waiter, *, now: bool = False) -> Node:
    """The one place that ``path`` means; each part is a name or an id.

    Args:
        names: of the archive.
        path: may begin with a session's accession.
        waiter: limits of the wait.
        now: what is not found is looked for in a listing that is made from now on.

    Raises: NotFound, with the nearest name; NotAFolder.
    """
    return _down(names, names.root(), _parts(path), waiter, now=now)


def resolve_once(names: Namespace, listings: Listings, path: str, waiter: Waiter) -> Node:
    """As ``resolve``, for who looks once: with the fewest requests, not the fewest round trips.

    Raises: as ``resolve``.
    """
    parts = _parts(path)
    if (subject := _subject(listings, parts, waiter)) is not None:
        return _down(names, subject, parts[4:], waiter, ahead=False)
    return _down(names, names.root(), parts, waiter, ahead=False)


def _parts(path: str) -> list[str]:
    parts = [part for part in path.split("/") if part]
    return ["experiments", *parts] if parts and _ACCESSION.fullmatch(parts[0]) else parts


def _subject(listings: Listings, parts: Sequence[str], waiter: Waiter) -> Node | None:
    """A subject by the listing of its project's sessions, which tells project and subject too.

    None where that listing does not say beyond doubt that this is the place.
    """
    if len(parts) < 4 or (parts[0], parts[2]) != (PROJECT.collection, SUBJECT.collection):
        return None
    id_ = decode_name(parts[1])
    project = Item(PROJECT, id_, id_, object_address(PROJECT, id_, ""), {PROJECT.key: id_})
    try:
        rows = [row.cells for row in listings.items(EXPERIMENT, project, waiter).rows]
    except (NotFound, BadReply, BadName):
        return None
    # A project answers to its aliases, too, and the names of a mount are its id only.
    if any(row.get("project") != id_ for row in rows):
        return None
    found = {
        row[EXPERIMENT.parent_column]: row["subject_label"]
        for row in rows
        if encode_name(row.get("subject_label", "")) == parts[3]
    }
    if len(found) != 1:
        return None
    ((key, label),) = found.items()
    cells = {SUBJECT.key: key, SUBJECT.label: label, "project": id_}
    subject = Item(SUBJECT, key, label, object_address(SUBJECT, key, ""), cells)
    return Node(Kind.FOLDER, "/" + "/".join(parts[:4]), (project, subject))


def _down(
    names: Namespace,
    node: Node,
    parts: Sequence[str],
    waiter: Waiter,
    *,
    now: bool = False,
    ahead: bool = True,
) -> Node:
    for part in parts:
        try:
            node = names.child(node, part, waiter, now=now, ahead=ahead)
        except NotFound as error:
            found = names.by_id(node, part, waiter) if names.holds_objects(node) else None
            if found is None:
                raise NotFound(f"{error}{_near(names, node, part, waiter)}") from None
            node = found
        node = _follow(names, node, waiter)
    return node


def _follow(names: Namespace, node: Node, waiter: Waiter) -> Node:
    for _ in range(_MOST_LINKS):
        if node.kind is not Kind.LINK:
            break
        target = names.link_target(node, waiter)
        folder = posixpath.dirname(node.path)
        node = names.lookup(posixpath.normpath(posixpath.join(folder, target)), waiter)
    return node


def _near(names: Namespace, node: Node, part: str, waiter: Waiter) -> str:
    known = {child.name.lower(): child.name for child in names.children(node, waiter)}
    if node.path == "/":
        # A project's name alone; that they cannot be listed is not what is to be told here.
        with suppress(XnatfsError):
            projects = names.child(node, PROJECT.collection, waiter)
            known |= {each.name.lower(): each.path for each in names.children(projects, waiter)}
    near = difflib.get_close_matches(part.lower(), known, 1)
    return f"; did you mean {known[near[0]]}?" if near else ""
