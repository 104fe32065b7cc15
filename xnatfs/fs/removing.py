"""Removals: of what is only here for free, of what the server has exactly that file."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack

from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.parts import Parts
from xnatfs.model.versions import Version
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


def remove(parts: Parts, node: Node, look_again: Callable[[], Node], waiter: Waiter) -> None:
    """Remove a file.

    Args:
        parts: the mount.
        node: the file.
        look_again: finds the node anew: what is only here may arrive at the server meanwhile.
        waiter: the limits of the caller's wait.

    Raises: NotPermitted, Protected, and what ``Parts.delete`` raises.
    """
    while True:
        file = parts.files.find(node.item, node.inner)
        if node.file is not None:
            done = _remove_remote(parts, node, file, waiter)
        else:
            done = file is not None and _remove_local(parts, node, file, waiter)
        if done:
            break
        waiter.check(f"the removal of {node.path}")
        node = look_again()
    if file is not None and not parts.files.is_open(file):
        parts.files.drop(file)


def _remove_local(parts: Parts, node: Node, file: OpenFile, waiter: Waiter) -> bool:
    """Give up what is only here; False: it is not only here any more."""
    if not file.removed:
        with file.stepping_aside(waiter) as only_here:
            if not only_here:
                return False
            file.give_up()
        parts.overlay.remove_file(node.item, node.inner)
        return True

    # Removed while it was open: this is the last release.
    def delete(inner: str, base: Version | None) -> None:
        try:
            if base is not None:
                parts.delete(node.item, inner, base, node.path, waiter)
        finally:
            # When the server did not remove it, it is to be seen again under its own name.
            parts.overlay.unhide(node.item, inner)

    try:
        file.remove_for_good(delete, waiter)
    finally:
        file.give_up()
        parts.overlay.remove_file(node.item, node.inner)
    return True


def _remove_remote(parts: Parts, node: Node, file: OpenFile | None, waiter: Waiter) -> bool:
    """Remove what the server has; False: by now it has something else of ours."""
    assert node.file is not None
    # What waits to replace it shall neither arrive after it is gone nor be lost if it stays.
    with ExitStack() as turn:
        waits = file is not None and file.waits
        if file is not None and waits and not turn.enter_context(file.stepping_aside(waiter)):
            return False
        version = parts.version(node.item, parts.listings.latest(node.item, node.file), waiter)
        parts.rights.require_remove(node, version, waiter)
        parts.delete(node.item, node.inner, version, node.path, waiter)
        if file is not None and waits:
            file.give_up()
    parts.files.replaced(node.path)
    return True
