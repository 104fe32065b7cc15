"""What lies below ``files``: the server's files without those hidden here, and our own."""

from __future__ import annotations

from xnatfs.errors import IsAFolder, NotFound
from xnatfs.model.entities import LocalFile, RemoteFile
from xnatfs.model.levels import EXPERIMENT
from xnatfs.model.paths import decode_name, encode_name, join
from xnatfs.tree.catalog import Catalog, Folder
from xnatfs.tree.listings import Listings
from xnatfs.tree.node import Node
from xnatfs.tree.overlay import Overlay
from xnatfs.tree.sheets import FILES
from xnatfs.tree.walks import Walks
from xnatfs.waiting import Waiter

# What a name below ``files`` stands for.
Content = Folder | RemoteFile | LocalFile


class Contents:
    """The files of the resources of one archive.

    Threading: holds no state; listings and overlay guard themselves.
    """

    def __init__(self, listings: Listings, overlay: Overlay, walks: Walks) -> None:
        self._listings = listings
        self._walks = walks
        self._overlay = overlay

    def find(self, node: Node, name: str, waiter: Waiter, not_before: float) -> Content | None:
        """The entry ``name`` of a folder; ``not_before`` as with ``Listings.items``."""
        catalog = self._catalog(node, waiter, not_before)
        found: Content | None = catalog.entry(node.inner, name)
        if isinstance(found, RemoteFile) and self._overlay.is_hidden(node.item, found.path):
            found = None
        if found is None:
            path = join(node.inner, decode_name(name))
            if self._overlay.has_file(node.item, path):
                found = LocalFile(path)
            elif self._overlay.has_folder(node.item, path):
                found = Folder(path)
        return found

    def entries(self, node: Node, waiter: Waiter, not_before: float) -> dict[str, Content]:
        """All entries of a folder, in the server's order, our own at the end.

        Raises: NotFound: the folder is gone.
        """
        shown = self._catalog(node, waiter, not_before).entries(node.inner)
        # The root of a resource is there without files too; another folder may be local only.
        if shown is None and not self._overlay.has_folder(node.item, node.inner):
            raise NotFound(f"{node.path} is gone")
        entries: dict[str, Content] = {
            name: found
            for name, found in (shown or {}).items()
            if isinstance(found, Folder) or not self._overlay.is_hidden(node.item, found.path)
        }
        local = self._overlay.names_in(node.item, node.inner)
        for path in local.folders:
            entries.setdefault(encode_name(path.rpartition("/")[2]), Folder(path))
        for path in local.files:
            entries.setdefault(encode_name(path.rpartition("/")[2]), LocalFile(path))
        return entries

    def below(self, node: Node, waiter: Waiter, not_before: float) -> list[RemoteFile]:
        """The server's files at or below a folder.

        Raises: IsAFolder: not inside ``files``.
        """
        if node.resource is None:
            raise IsAFolder(f"{node.path} is no folder of files")
        rows = self._catalog(node, waiter, not_before).rows()
        prefix = node.inner + "/" if node.inner else ""
        return [row for row in rows if row.path.startswith(prefix)]

    def _catalog(self, node: Node, waiter: Waiter, not_before: float) -> Catalog:
        if self._overlay.has_resource(node.item):
            return Catalog(())
        session = node.above(EXPERIMENT)
        if session is not None:
            self._walks.visits(FILES, session, node.chain[0])
        return self._listings.files(node.item, session, waiter, not_before).catalog
