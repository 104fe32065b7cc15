"""What a path of the archive means: an object, a folder or file in it, or a collection of them."""

from __future__ import annotations

from dataclasses import dataclass

from xnatfs.model.entities import Item, Kind, RemoteFile
from xnatfs.model.levels import ARCHIVE, RESOURCE, Level

_ROOT = Item(ARCHIVE, "", "", "", {})


@dataclass(frozen=True, slots=True)
class Node:
    """What one path means."""

    kind: Kind
    # Path in the archive, by file names.
    path: str
    # The objects on the way: project, subject, … down to the one this node is or lies in.
    chain: tuple[Item, ...] = ()
    # Set when the node is a collection's folder ("scans" of the last object) or lies in "files".
    collection: str = ""
    # Below "files": the path as the server has it; "" for "files" itself.
    inner: str = ""
    # The file as the server's listing has it; None for one that exists only here.
    file: RemoteFile | None = None

    @property
    def item(self) -> Item:
        """The innermost object."""
        return self.chain[-1] if self.chain else _ROOT

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2]

    def above(self, level: Level) -> Item | None:
        """The object of ``level`` that this node is or lies in."""
        return next((item for item in self.chain if item.level is level), None)

    @property
    def resource(self) -> Item | None:
        """The resource that this node is or lies in."""
        return self.item if self.item.level is RESOURCE else None

    @property
    def in_files(self) -> bool:
        """Whether this is a resource's ``files`` folder or something below it."""
        return self.collection == "files"
