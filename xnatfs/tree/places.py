"""Finding what a person means: names, ids and accessions, links followed, near misses named.

A mount knows names only; commands take what stands in a browser's address as well, where XNAT
writes ids (R§2.6).
"""

from __future__ import annotations

import difflib
import posixpath
import re

from xnatfs.errors import NotFound
from xnatfs.model.entities import Kind
from xnatfs.tree.namespace import Namespace, Node
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
    parts = [part for part in path.split("/") if part]
    if parts and _ACCESSION.fullmatch(parts[0]):
        parts = ["experiments", *parts]
    node = names.root()
    for part in parts:
        node = _follow(names, _child(names, node, part, waiter, now=now), waiter)
    return node


def _child(names: Namespace, node: Node, part: str, waiter: Waiter, *, now: bool) -> Node:
    try:
        return names.child(node, part, waiter, now=now)
    except NotFound as error:
        found = names.by_id(node, part, waiter) if names.holds_objects(node) else None
        if found is None:
            raise NotFound(f"{error}{_near(names, node, part, waiter)}") from None
        return found


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
    near = difflib.get_close_matches(part.lower(), known, 1)
    return f"; did you mean {known[near[0]]}?" if near else ""
