"""What XNAT does not store, or stores as columns: modes, owners, times, extended attributes."""

from __future__ import annotations

from xnatfs.errors import Protected
from xnatfs.fs.appearance import Mark, extended
from xnatfs.fs.parts import Parts
from xnatfs.fs.states import Reading
from xnatfs.fs.values import Kind
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


class Unstored:
    """Marks for the life of one mount, and the attributes shown beside the usual ones.

    Threading: no state of its own.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def mark(self, node: Node, mark: Mark, waiter: Waiter) -> None:
        """Remember a mode, owner or time, on own files and on folders that may be written to.

        Raises: Protected: it is somebody else's.
        """
        if node.kind is Kind.FILE:
            own = node.file is None or self._own(node, waiter)
        else:
            own = self._parts.rights.seems("edit", node, waiter)
        if not own:
            raise Protected(f"{node.path}: XNAT stores no modes, owners and times")
        self._parts.appearance.mark(node, mark)

    def extended(self, node: Node) -> dict[str, str]:
        """The extended attributes, by their name below ``user.xnat.``."""
        return extended(node, self._verified(node))

    def _own(self, node: Node, waiter: Waiter) -> bool:
        assert node.file is not None
        file = self._parts.files.find(node.item, node.inner)
        if file is not None and not isinstance(file.state, Reading):
            return True
        version = self._parts.version(node.item, node.file, waiter)
        return self._parts.rights.may_change(version)

    def _verified(self, node: Node) -> str:
        if node.kind is not Kind.FILE:
            return ""
        file = self._parts.files.find(node.item, node.inner)
        state = file.state if file is not None else None
        if isinstance(state, Reading):
            return str(getattr(state.source, "verified", "md5"))
        return ""
