"""Opening and making files: the rights, the version that is pinned, O_TRUNC and O_EXCL."""

from __future__ import annotations

import os
import time

from xnatfs.errors import AlreadyExists, IsAFolder, NotFound, Protected
from xnatfs.fs.appearance import Mark
from xnatfs.fs.names import NameClass, classify
from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.parts import Parts
from xnatfs.fs.rename import reclaim
from xnatfs.fs.values import Caller, Kind, Opened
from xnatfs.model.paths import join, server_name
from xnatfs.rest.addresses import check_new_file
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


class Opening:
    """Opens the files of one mount. Flags are os.O_* bits.

    Threading: no state of its own.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def open(self, node: Node, flags: int, caller: Caller, waiter: Waiter) -> Opened:
        """Open a file that is there; pins the version that the kernel was told of.

        Raises: IsAFolder, NotFound; with the right to write ReadOnly, NotPermitted, Protected.
        """
        if node.kind is not Kind.FILE:
            raise IsAFolder(f"{node.path} is not a file")
        files = self._parts.files

        def make() -> OpenFile:
            if node.file is None:
                raise NotFound(f"{node.path} is gone")
            # It may have been open here, changed, and have arrived since it was looked up.
            latest = self._parts.listings.latest(node.item, node.file)
            row = files.row_to_pin(node.path, latest)
            version = self._parts.version(node.item, row, waiter)
            return OpenFile(self._parts, node.item, node.inner, node.path, version)

        file = files.hold(node.item, node.inner, make)
        try:
            if flags & os.O_ACCMODE != os.O_RDONLY:
                self._open_for_writing(file, node, flags, waiter)
            return files.open_handle(file, node.path, flags, caller)
        finally:
            files.let_go(file)

    def create(
        self, parent: Node, name: str, flags: int, mode: int, caller: Caller, waiter: Waiter
    ) -> Opened:
        """Make the file ``name`` in ``parent`` and open it.

        Raises: AlreadyExists (O_EXCL), Protected (not below ``files``), BadName, ReadOnly,
            NotPermitted, NoSpace.
        """
        try:
            there = self._parts.names.child(parent, name, waiter)
        except NotFound:
            pass
        else:
            if flags & os.O_EXCL:
                raise AlreadyExists(f"{there.path} exists")
            return self.open(there, flags, caller, waiter)
        path = f"{parent.path.rstrip('/')}/{name}"
        if not parent.in_files:
            raise Protected(f"{path}: files live below the files/ folder of a resource")
        self._parts.rights.require_create(parent, waiter)
        node = Node(Kind.FILE, path, parent.chain, "files", join(parent.inner, server_name(name)))
        mkstemp = bool(flags & os.O_EXCL) and mode & 0o777 == 0o600
        local_only = classify(name, made_by_mkstemp=mkstemp) is not NameClass.REAL
        if not local_only:
            check_new_file(node.inner)
        return self._make(node, flags, mode, caller, waiter, local_only=local_only)

    def _make(
        self,
        node: Node,
        flags: int,
        mode: int,
        caller: Caller,
        waiter: Waiter,
        *,
        local_only: bool,
    ) -> Opened:
        parts = self._parts
        gone = reclaim(parts, node.item, node.inner, waiter)
        base = gone.base if gone is not None else None
        # What the kernel was told of a file that had this name before is no version to pin.
        parts.files.replaced(node.path)

        made: list[OpenFile] = []

        def make() -> OpenFile:
            new = OpenFile(parts, node.item, node.inner, node.path, base, local_only=local_only)
            made.append(new)
            if base is not None:
                new.begin_empty(waiter)
            if gone is not None:
                new.succeed(gone)
            return new

        file = parts.files.hold(node.item, node.inner, make)
        try:
            if file not in made:
                # What a mount that is gone has left under this name is faster.
                if flags & os.O_EXCL:
                    raise AlreadyExists(f"{node.path} exists")
                return self.open(node, flags, caller, waiter)
            file.held = self._held(node, waiter)
            if base is None:
                parts.overlay.add_file(node.item, node.inner)
            parts.appearance.mark(node, Mark(mode=mode & 0o7777, mtime=time.time()))
            return parts.files.open_handle(file, node.path, flags, caller)
        finally:
            parts.files.let_go(file)

    def _open_for_writing(self, file: OpenFile, node: Node, flags: int, waiter: Waiter) -> None:
        if file.base is not None:
            self._parts.rights.require_change(node, file.base, waiter)
        else:
            self._parts.rights.require_create(node, waiter)
        file.held = self._held(node, waiter)
        if flags & os.O_TRUNC:
            file.begin_empty(waiter)
            self._parts.changed(file)

    def _held(self, node: Node, waiter: Waiter) -> bool:
        """Whether nothing may be sent before the end: it could not be taken back."""
        parts = self._parts
        return parts.write_back and not parts.rights.seems("delete", node, waiter)
