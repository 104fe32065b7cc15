"""The files of one resource: in the order of the server's listing, by path, and as folders."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from operator import eq

from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.paths import FolderTree, encode_name, folder_tree


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder below ``files``; the path as the server has it."""

    path: str


Entry = Folder | RemoteFile


class Catalog:
    """The files of one resource as a listing showed them, corrected by our own changes.

    A change costs what its path is long, not what the resource holds.

    Threading: ``_mu`` guards everything; methods return copies.
    """

    def __init__(self, rows: Iterable[RemoteFile]) -> None:
        self._mu = threading.Lock()
        self._rows = {row.path: row for row in rows}
        # Made when somebody looks into a folder.
        self._tree: FolderTree | None = None

    def __len__(self) -> int:
        return len(self._rows)

    def rows(self) -> list[RemoteFile]:
        """All files, in the order of the listing; own new ones at the end."""
        with self._mu:
            return list(self._rows.values())

    def shows(self, rows: Sequence[RemoteFile]) -> bool:
        """Whether these are all files, in this order."""
        with self._mu:
            return len(rows) == len(self._rows) and all(map(eq, self._rows.values(), rows))

    def get(self, path: str) -> RemoteFile | None:
        """The file with this path below ``files``, or None."""
        return self._rows.get(path)

    def change(self, path: str, row: RemoteFile | None) -> None:
        """``row`` stands at ``path`` now, or nothing (None)."""
        with self._mu:
            before = self._rows.get(path)
            if row is not None:
                self._rows[path] = row
                if self._tree is not None:
                    self._tree.put(row)
            elif before is not None:
                del self._rows[path]
                if self._tree is not None:
                    self._tree.remove(before)

    def entry(self, folder: str, name: str) -> Entry | None:
        """What is called ``name`` in a folder (its path as the server has it), or None."""
        with self._mu:
            tree = self._at(folder)
            if tree is None:
                return None
            below = tree.folders.get(name)
            return Folder(below.path) if below is not None else tree.files.get(name)

    def entries(self, folder: str) -> dict[str, Entry] | None:
        """What is in a folder, folders first; None when there is no such folder."""
        with self._mu:
            tree = self._at(folder)
            if tree is None:
                return None
            found: dict[str, Entry] = {
                name: Folder(below.path) for name, below in tree.folders.items()
            }
            return found | tree.files

    def _at(self, folder: str) -> FolderTree | None:
        if self._tree is None:
            self._tree = folder_tree(self._rows.values())
        return self._tree.at(encode_name(part) for part in folder.split("/") if part)


def file_count(resources: Sequence[Item]) -> int:
    """Files of resources, as the server counts them; 0 where it did not (R§2.6)."""
    counts = (item.cells.get("file_count", "") for item in resources)
    return sum(int(count) for count in counts if count.isdigit())
