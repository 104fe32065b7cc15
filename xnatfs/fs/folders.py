"""Folders: objects and resources are made on the server, folders below ``files`` here.

Such a folder becomes real with its first file: XNAT knows no empty ones (R§5.1).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import suppress

from xnatfs.errors import AlreadyExists, FolderNotEmpty, NotFound, Protected
from xnatfs.fs.parts import Parts
from xnatfs.fs.values import Kind
from xnatfs.model.entities import Item
from xnatfs.model.levels import BY_COLLECTION, RESOURCE, Level
from xnatfs.model.paths import join, server_name
from xnatfs.rest.addresses import check_new_file, check_new_label, check_new_object
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


class Folders:
    """Makes and removes the folders of one mount.

    Threading: ``_made`` is only added to and taken from, each of which is atomic.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # Addresses of the resources that this mount made: only those may be removed again.
        self._made: set[str] = set()

    def make(self, parent: Node, name: str, waiter: Waiter) -> None:
        """Make the folder ``name`` in ``parent``.

        Raises: AlreadyExists, NotPermitted, ReadOnly, BadName, Protected (not here).
        """
        try:
            self._parts.names.child(parent, name, waiter)
        except NotFound:
            pass
        else:
            raise AlreadyExists(f"{parent.path}/{name} exists")
        level = BY_COLLECTION.get(parent.collection)
        linked = parent.collection in parent.item.level.links
        if level is RESOURCE:
            self._make_resource(parent, name, waiter)
        elif level is not None and level.made_at and not linked:
            self._make_object(level, parent, name, waiter)
        elif parent.in_files:
            self._parts.rights.require_create(parent, waiter)
            folder = join(parent.inner, server_name(name))
            check_new_file(folder)
            self._parts.overlay.add_folder(parent.item, folder)
        else:
            raise Protected(
                f"{parent.path}/{name}: make folders below files/, or resources below resources/"
            )

    def remove(self, node: Node, waiter: Waiter) -> None:
        """Remove an empty folder.

        Raises: FolderNotEmpty, NotPermitted, Protected (not one that may be removed).
        """
        if node.in_files and node.inner:
            if self._holds_files(node, waiter):
                raise FolderNotEmpty(f"{node.path} is not empty")
            self._parts.overlay.remove_folder(node.item, node.inner)
        elif node.item.level is RESOURCE and not node.collection:
            self._remove_resource(node, waiter)
        else:
            raise Protected(f"{node.path}: only empty folders below files/ can be removed")

    def _make_resource(self, parent: Node, name: str, waiter: Waiter) -> None:
        parts = self._parts
        parts.rights.require_writable(parent)
        label = server_name(name)
        check_new_label(label)
        owner = parent.item
        if parts.settings.offline:
            parts.rights.require_create(parent, waiter)
            address = f"{owner.address}{RESOURCE.listing}/{label}"
            parts.overlay.add_resource(Item(RESOURCE, address, label, address, {}))
            self._made.add(address)
            return
        made = self._ask_for(
            lambda worker: parts.archive.create_resource(owner, label, worker), parent, name, waiter
        )
        self._made.add(made.item.address)
        parts.rights.made(made.item)

    def _make_object(self, level: Level, parent: Node, name: str, waiter: Waiter) -> None:
        parts = self._parts
        parts.rights.require_writable(parent)
        parts.rights.require_creation(level, parent, name)
        label = server_name(name)
        check_new_object(label)
        # The server would take the name of another for a change of that one (R§5.3), also when
        # it belongs to another subject.
        if label in parts.names.taken_now(parent, waiter):
            raise AlreadyExists(f"{parent.path}/{name}: there is such a {level.name} already")
        policy = parts.settings.policy
        type_ = getattr(policy, level.made_as) if level.made_as else ""
        owner, project = parent.item, parent.chain[0]
        self._ask_for(
            lambda worker: parts.archive.create(level, label, owner, project, type_, worker),
            parent,
            name,
            waiter,
        )

    def _ask_for(
        self, make: Callable[[Waiter], None], parent: Node, name: str, waiter: Waiter
    ) -> Node:
        """Have the server make an object; what it lists then.

        Raises: AlreadyExists: somebody else was faster; the next look finds what he made.
        """
        parts = self._parts
        try:
            parts.run(make, f"{parent.path}/{name}", waiter)
        except AlreadyExists:
            with suppress(NotFound):
                parts.names.child_now(parent, name, waiter)
            raise
        return parts.names.child_now(parent, name, waiter)

    def _remove_resource(self, node: Node, waiter: Waiter) -> None:
        resource = node.item
        if resource.address not in self._made:
            raise Protected(f"{node.path}: only a resource that this mount made can be removed")
        files = Node(Kind.FOLDER, node.path + "/files", node.chain, "files")
        if self._holds_files(files, waiter):
            raise FolderNotEmpty(f"{node.path} is not empty")
        parts = self._parts
        if not parts.overlay.has_resource(resource):
            self._delete_resource(node, waiter)
        self._made.discard(resource.address)
        parts.overlay.forget_resource(resource)

    def _delete_resource(self, node: Node, waiter: Waiter) -> None:
        parts, resource = self._parts, node.resource
        assert resource is not None
        parts.run(
            lambda worker: parts.archive.delete_resource(resource, worker),
            f"the removal of {node.path}",
            waiter,
        )
        parts.listings.forget(None)

    def _holds_files(self, node: Node, waiter: Waiter) -> bool:
        names = self._parts.names
        if names.files_below(node, waiter, time.monotonic()):
            return True
        return any(True for _ in names.children(node, waiter))
