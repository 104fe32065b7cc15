"""What exists on this machine only.

Folders below ``files`` that are still empty, files that are being written, and names that are
gone here before they are gone on the server.

``namespace`` merges it over the server's listings; ``fs`` fills it.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field

from xnatfs.model.entities import Item
from xnatfs.model.paths import parent_of


@dataclass(slots=True)
class _Local:
    folders: set[str] = field(default_factory=set)
    files: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)


@dataclass(frozen=True, slots=True)
class LocalNames:
    """What is local directly in one folder; full paths below ``files``."""

    folders: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


class Overlay:
    """The local part of the names, by resource; paths are below ``files``, as the server's.

    Threading: ``_mu`` guards everything; methods return copies.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._local: dict[str, _Local] = {}
        # Resources that are still to be made, by address.
        self._resources: dict[str, Item] = {}

    def _at(self, resource: Item) -> _Local:
        return self._local.setdefault(resource.address, _Local())

    def add_resource(self, resource: Item) -> None:
        """A resource that lives here until the server is asked to make it."""
        with self._mu:
            self._resources[resource.address] = resource

    def has_resource(self, resource: Item) -> bool:
        """Whether a resource lives only here."""
        with self._mu:
            return resource.address in self._resources

    def resources_of(self, owner: Item) -> list[Item]:
        """The resources of an object that live only here."""
        with self._mu:
            return [
                item
                for address, item in self._resources.items()
                if address.rpartition("/resources/")[0] == owner.address
            ]

    def add_folder(self, resource: Item, path: str) -> None:
        """A folder that lives here, whether the server has files in it or not."""
        with self._mu:
            self._at(resource).folders.add(path)

    def remove_folder(self, resource: Item, path: str) -> None:
        """Take a local folder away; nothing happens when there is none."""
        with self._mu:
            self._at(resource).folders.discard(path)

    def add_file(self, resource: Item, path: str) -> None:
        """A file that is being written here. Its folders live on when it goes."""
        with self._mu:
            local = self._at(resource)
            local.files.add(path)
            local.gone.discard(path)
        self.keep_folders(resource, path)

    def keep_folders(self, resource: Item, path: str) -> None:
        """The folders of a file stay when it goes, as everywhere."""
        with self._mu:
            folders = self._at(resource).folders
            while path := parent_of(path):
                folders.add(path)

    def remove_file(self, resource: Item, path: str) -> None:
        """The file is on the server now, or given up."""
        with self._mu:
            local = self._local.get(resource.address)
            if local is not None:
                local.files.discard(path)

    def hide(self, resource: Item, path: str) -> None:
        """Show no file at ``path`` although the server has one (a whiteout)."""
        with self._mu:
            self._at(resource).gone.add(path)

    def unhide(self, resource: Item, path: str) -> None:
        """Show what the server has at ``path`` again."""
        with self._mu:
            self._at(resource).gone.discard(path)

    def forget_resource(self, resource: Item) -> None:
        """The resource itself is gone."""
        with self._mu:
            self._local.pop(resource.address, None)
            self._resources.pop(resource.address, None)

    def has_folder(self, resource: Item, path: str) -> bool:
        """Whether a local folder is there."""
        with self._mu:
            local = self._local.get(resource.address)
            return local is not None and path in local.folders

    def has_file(self, resource: Item, path: str) -> bool:
        """Whether a local file is there."""
        with self._mu:
            local = self._local.get(resource.address)
            return local is not None and path in local.files

    def has_name(self, name: str) -> bool:
        """Whether any local file has this name."""
        with self._mu:
            return any(
                path.rpartition("/")[2] == name
                for local in self._local.values()
                for path in local.files
            )

    def is_hidden(self, resource: Item, path: str) -> bool:
        """Whether the server's file is not to be shown."""
        with self._mu:
            local = self._local.get(resource.address)
            return local is not None and path in local.gone

    def names_in(self, resource: Item, folder: str) -> LocalNames:
        """The local folders and files directly in ``folder``."""
        with self._mu:
            local = self._local.get(resource.address)
            if local is None:
                return LocalNames()
            return LocalNames(
                tuple(sorted(path for path in local.folders if parent_of(path) == folder)),
                tuple(sorted(path for path in local.files if parent_of(path) == folder)),
            )
