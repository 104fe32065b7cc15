"""Everything below a path, for those who want all of it: where it lies, what it is, its bytes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xnatfs.config import MIB
from xnatfs.download.reader import Reader
from xnatfs.download.siblings import version_of
from xnatfs.fs.parts import Parts
from xnatfs.fs.values import Kind
from xnatfs.model.entities import RemoteFile
from xnatfs.model.levels import EXPERIMENT, PROJECT, SUBJECT
from xnatfs.model.paths import encode_name
from xnatfs.model.versions import Version
from xnatfs.tree import places
from xnatfs.tree.namespace import long_name
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


@dataclass(frozen=True, slots=True)
class Below:
    """One file below a path."""

    node: Node
    # What the listing tells of it.
    row: RemoteFile
    # As in the archive's own zip, with file names that every disk takes (R§3.4):
    # "SESSION/scans/4-TYPE/resources/R/files/…".
    place: str

    @property
    def path(self) -> str:
        """In the archive, by names."""
        return self.node.path

    @property
    def resource(self) -> str:
        """The path of its resource."""
        return self.path.partition("/files/")[0]

    @property
    def label(self) -> str:
        """The label of its resource, as the server has it; "" where it has none."""
        return self.node.item.label


class Open:
    """A version that is open for being read from its beginning to its end."""

    def __init__(self, version: Version, reader: Reader) -> None:
        self.version = version
        self._reader = reader

    @property
    def here(self) -> bool:
        """Whether all of it is in the store, and was compared with the catalog."""
        return self._reader.here

    @property
    def kept(self) -> bool:
        """Whether the store has it on disk."""
        return self._reader.kept

    def pieces(self, waiter: Waiter) -> Iterator[bytes]:
        """The bytes, at most 1 MiB at a time. Raises what a read raises."""
        for offset in range(0, self.version.size, MIB):
            yield self._reader.read(offset, MIB, waiter)
            waiter.progress()


class Depth:
    """Looks below paths.

    Args:
        parts: of the file system.

    Threading: holds no state of its own.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def files(self, path: str, waiter: Waiter) -> Iterator[Below]:
        """Every file at or below a path, resource by resource, in the server's order.

        A file that is meant itself has its name alone as its place.

        Raises: NotFound, with the nearest name.
        """
        node = places.resolve(self._parts.names, path, waiter)
        if node.file is not None:
            yield Below(node, node.file, node.name)
        else:
            yield from self._files(node, waiter)

    def _files(self, node: Node, waiter: Waiter) -> Iterator[Below]:
        if node.kind is Kind.FILE and node.file is not None:
            yield Below(node, node.file, _place(node))
        elif node.kind is Kind.FOLDER:
            for child in self._parts.names.children(node, waiter):
                waiter.progress()
                yield from self._files(child, waiter)

    def may_be_here(self, file: Below) -> bool:
        """False when a stream of its resource would bring the file before anybody opens it."""
        version = version_of(file.row)
        return version is None or self._parts.store.has(version)

    @contextmanager
    def open(self, file: Below, waiter: Waiter) -> Iterator[Open]:
        """Open a file's present version.

        Raises: Stale; what a HEAD raises, where the listing has no digest.
        """
        resource = file.node.item
        version = self._parts.version(resource, file.row, waiter)
        reader = self._parts.open_source(resource, version, file.path)
        try:
            yield Open(version, reader)
        finally:
            reader.close()

    def keep(self, file: Below, waiter: Waiter) -> None:
        """Write down what was learned of the files of its resource, for use without a network."""
        self._parts.listings.keep(file.node.item, waiter)

    def prepare(self, waiter: Waiter) -> None:
        """List what a mount without a network asks for besides the names on the way."""
        for right in ("edit", "delete"):
            self._parts.listings.rights(right, waiter)


def _place(node: Node) -> str:
    names = node.path.strip("/").split("/")
    start = 0
    for level in (PROJECT, SUBJECT, EXPERIMENT):
        if node.above(level) is not None:
            start = names.index(level.collection, start) + 1
    for item in node.chain:
        if item.level.long_name:
            at = names.index(item.level.collection, start) + 1
            names[at] = encode_name(long_name(item))
    return "/".join(names[start:])
