"""The table of open files: which file a handle means, which version an open pins."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from cachetools import LRUCache

from xnatfs.errors import DiskFault
from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.states import Handle, Reading
from xnatfs.fs.values import Caller, Opened
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.waiting import Waiter

# Files whose last told attributes, or whose kept pages, are remembered.
REMEMBERED = 200_000

Key = tuple[str, str]


@dataclass(frozen=True, slots=True)
class _Told:
    row: RemoteFile
    at: float


class Files:
    """The open files of one mount, by identity (resource and path) and by handle.

    Args:
        told_s: how long the kernel believes attributes that it was told (seconds).

    Threading: ``_mu`` guards all tables, and the counts in the files; nothing is waited for under
    it. One entry is looked up without it.
    """

    def __init__(self, told_s: float) -> None:
        self._told_s = told_s
        self._mu = threading.Lock()
        self._by_key: dict[Key, OpenFile] = {}
        self._handles: dict[int, tuple[OpenFile, Handle]] = {}
        self._numbers = itertools.count(1)
        # In the order in which the kernel was told.
        self._told: dict[str, _Told] = {}
        # Path → the version whose pages the kernel may hold. By path, not by identity: the
        # kernel keeps pages for each of the places where a shared session is shown.
        self._pages: LRUCache[str, str] = LRUCache(REMEMBERED)

    # -- what the kernel was told

    def told(self, path: str, row: RemoteFile) -> None:
        """The kernel is being told the size of this row for ``path``."""
        now = time.monotonic()
        with self._mu:
            told = self._told
            told.pop(path, None)
            told[path] = _Told(row, now)
            oldest = next(iter(told))
            while len(told) > REMEMBERED or told[oldest].at < now - self._told_s:
                del told[oldest]
                oldest = next(iter(told))

    def row_to_pin(self, path: str, row: RemoteFile) -> RemoteFile:
        """The row whose size the kernel still believes, else the newest one.

        Never new bytes under an old size: when the server has another version meanwhile, the
        reads of the pinned one say so (Stale).
        """
        told = self._told.get(path)
        if told is not None and time.monotonic() - told.at < self._told_s:
            return told.row
        return row

    # -- files

    def find(self, resource: Item, path: str) -> OpenFile | None:
        """The open (or local) file of this identity, if any."""
        return self._by_key.get((resource.address, path))

    def hold(self, resource: Item, path: str, make: Callable[[], OpenFile]) -> OpenFile:
        """The file of this identity, made if need be; it stays until ``let_go``.

        Between the look-up and the descriptor the last release of somebody else may come: what
        is held does not end with it.
        """
        key = (resource.address, path)
        with self._mu:
            file = self._by_key.get(key)
            if file is not None:
                file.holds += 1
                return file
        made = make()
        with self._mu:
            file = self._by_key.setdefault(key, made)
            file.holds += 1
        if file is not made:
            made.not_needed()
        return file

    def hold_if_there(self, resource: Item, path: str) -> OpenFile | None:
        """As ``hold``, of what is in the table: it stays there until ``let_go``."""
        with self._mu:
            file = self._by_key.get((resource.address, path))
            if file is not None:
                file.holds += 1
            return file

    def let_go(self, file: OpenFile) -> bool:
        """A held file is needed no more; without a descriptor it ends, and pins nothing.

        Returns: whether it has ended.
        """
        with self._mu:
            file.holds -= 1
            ends = self._ends(file)
        if ends:
            file.close()
        return ends

    def decided(self, file: OpenFile) -> bool:
        """A file was sent in the background, or not; whether it ends with that."""
        with self._mu:
            ends = self._ends(file)
        if ends:
            file.close()
        return ends

    def written_to(self, file: OpenFile) -> bool:
        """Whether somebody may still write: releases come late, after the close."""
        with self._mu:
            return any(
                other is file and handle.writes and not handle.closed
                for other, handle in self._handles.values()
            )

    def _ends(self, file: OpenFile) -> bool:
        """Take a file out of the table unless somebody needs it. Called with ``_mu``."""
        if file.handles or file.holds:
            return False
        if (file.local_only or file.waits) and not file.given_up:
            return False
        key = (file.resource.address, file.path)
        if self._by_key.get(key) is file:
            del self._by_key[key]
        return True

    def move(self, file: OpenFile, path: str, label: str) -> None:
        """The file is called ``path`` from now on."""
        with self._mu:
            self._by_key.pop((file.resource.address, file.path), None)
            self._pages.pop(file.label, None)
            self._pages.pop(label, None)
            self._told.pop(file.label, None)
            self._told.pop(label, None)
            file.path, file.label = path, label
            self._by_key[(file.resource.address, path)] = file

    def drop(self, file: OpenFile) -> None:
        """Take a file that nobody has open out of the table."""
        with self._mu:
            key = (file.resource.address, file.path)
            if self._by_key.get(key) is file:
                del self._by_key[key]
        file.close()

    def supplanted(self, resource: Item, path: str) -> None:
        """The server has another version under this name: who reads the old one keeps it alone."""
        with self._mu:
            file = self._by_key.get((resource.address, path))
            if file is not None and isinstance(file.state, Reading):
                del self._by_key[(resource.address, path)]

    def all(self) -> list[OpenFile]:
        """Every file of the table."""
        with self._mu:
            return list(self._by_key.values())

    # -- handles

    def open_handle(self, file: OpenFile, path: str, flags: int, caller: Caller) -> Opened:
        """A new descriptor of a held file, opened as ``path``."""
        with self._mu:
            number = next(self._numbers)
            self._handles[number] = (file, Handle(flags & ~os.O_CREAT, caller.pid))
            file.handles += 1
            state = file.state
            keep = False
            if isinstance(state, Reading):
                key = state.version.key
                keep = self._pages.get(path) == key
                if not keep:
                    self._pages[path] = key
            else:
                self._pages.pop(path, None)
            return Opened(number, keep)

    def by_handle(self, handle: int) -> tuple[OpenFile, Handle]:
        """The file and the descriptor behind a handle.

        Raises: DiskFault: the kernel uses a handle that was released (never seen).
        """
        found = self._handles.get(handle)
        if found is None:
            raise DiskFault(f"handle {handle} is not open")
        return found

    def note(self, handle: int, *, closed: bool) -> None:
        """A descriptor was closed by its opener, or is written through."""
        with self._mu:
            file, descriptor = self._handles[handle]
            if descriptor.closed != closed:
                self._handles[handle] = (file, replace(descriptor, closed=closed))

    def changed(self, file: OpenFile) -> None:
        """The content changed: neither pages nor told attributes count any more."""
        self.replaced(file.label)

    def replaced(self, path: str) -> None:
        """Another content is called ``path``: neither its pages nor told attributes count."""
        with self._mu:
            self._pages.pop(path, None)
            self._told.pop(path, None)

    def release(self, handle: int, waiter: Waiter) -> OpenFile:
        """A descriptor is gone; with the last one the file ends, unless it lives here only.

        Returns: the file.
        """
        file, _ = self.by_handle(handle)
        with self._mu:
            file.handles -= 1
            # Of several that are released at once one is the last.
            last = not file.handles
            # Still in the table while it is being sent: look-ups find it.
            file.holds += last
        try:
            if last:
                file.finish(waiter)
        finally:
            with self._mu:
                del self._handles[handle]
                file.holds -= last
                ends = self._ends(file)
        if ends:
            file.close()
        return file

    def is_open(self, file: OpenFile) -> bool:
        """Whether a descriptor of the file exists, or is being released."""
        with self._mu:
            return any(other is file for other, _ in self._handles.values())
