"""How an entry looks: attributes, inode numbers, extended attributes."""

from __future__ import annotations

import functools
import hashlib
import threading
import time
from dataclasses import dataclass, replace
from datetime import datetime

from xnatfs.config import View
from xnatfs.fs.values import Attributes, Kind
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.tree.node import Node

PREFIX = "user.xnat."


@dataclass(frozen=True, slots=True)
class Mark:
    """What was set on an entry here and XNAT cannot store; lasts as long as the mount."""

    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    mtime: float | None = None


_UNMARKED = Mark()


class Appearance:
    """Attributes of the entries of one mount.

    Threading: ``_mu`` guards changes of the marks.
    """

    def __init__(self, view: View) -> None:
        self._view = view
        self._mu = threading.Lock()
        self._marks: dict[int, Mark] = {}
        self._started = time.time()

    def attributes(self, node: Node, *, size: int, writable: bool) -> Attributes:
        """The attributes of a node.

        Args:
            node: the entry.
            size: bytes; for folders and links what is to be shown.
            writable: whether the user may write there.
        """
        ino = inode(node)
        mark = self._marks.get(ino, _UNMARKED)
        bits = 0o777 if node.kind is not Kind.FILE else 0o666
        if not writable and node.kind is not Kind.LINK:
            bits &= 0o555
        mode = bits & ~self._view.umask if node.kind is not Kind.LINK else 0o777
        return Attributes(
            kind=node.kind,
            mode=mode if mark.mode is None else mark.mode,
            size=size,
            ino=ino,
            uid=self._view.uid if mark.uid is None else mark.uid,
            gid=self._view.gid if mark.gid is None else mark.gid,
            mtime=self._time(node) if mark.mtime is None else mark.mtime,
        )

    def mark(self, node: Node, change: Mark) -> None:
        """Remember what XNAT cannot store, for the mount's life."""
        self._mark(inode(node), change)

    def touched(self, resource: Item, path: str, at: float) -> None:
        """A file of our own was written at ``at`` (seconds since the epoch)."""
        self._mark(file_inode(resource.id, path), Mark(mtime=at))

    def move(self, resource: Item, old: str, new: str) -> None:
        """A file got a new name: its marks go with it."""
        with self._mu:
            mark = self._marks.pop(file_inode(resource.id, old), None)
            if mark is not None:
                self._marks[file_inode(resource.id, new)] = mark

    def _mark(self, ino: int, change: Mark) -> None:
        with self._mu:
            mark = self._marks.get(ino, _UNMARKED)
            set_ = {
                name: getattr(change, name)
                for name in ("mode", "uid", "gid", "mtime")
                if getattr(change, name) is not None
            }
            self._marks[ino] = replace(mark, **set_)

    def _time(self, node: Node) -> float:
        """When the innermost object that has a time was made; never refined later."""
        for item in reversed(node.chain):
            column = item.level.time_column
            if column and (seconds := _seconds(item.cells.get(column, ""))) is not None:
                return seconds
        return self._started


def inode(node: Node) -> int:
    """A stable inode number: files by resource and path, everything else by its place."""
    if node.kind is Kind.FILE:
        return file_inode(node.item.id, node.inner)
    return _number(f"{node.kind.value}\0{node.path}")


def file_inode(resource_id: str, path: str) -> int:
    """The inode number of a file; the same wherever a shared session shows it."""
    return _number(f"file\0{resource_id}\0{path}")


def _number(identity: str) -> int:
    raw = hashlib.blake2b(identity.encode("utf-8", "surrogatepass"), digest_size=8).digest()
    # 63 bits: some programs keep inode numbers in a signed integer. 0 hides an entry, 1 is the
    # root of libfuse.
    return (int.from_bytes(raw, "big") >> 1) | 2


@functools.lru_cache(maxsize=256)
def _seconds(text: str) -> float | None:
    """Seconds since the epoch of a database time, which carries no zone (R§7): taken as local."""
    try:
        return datetime.fromisoformat(text.strip()).timestamp()
    except ValueError:
        return None


def extended(node: Node, verified: str) -> dict[str, str]:
    """The extended attributes of a node, by their name below ``user.xnat.``."""
    if node.kind is Kind.FILE:
        row = node.file or RemoteFile(node.item.id, node.inner, None, "")
        shown = {
            "id": node.item.id,
            "uri": f"/data{node.item.address}/files/{node.inner}",
            "format": row.format,
            "content": row.content,
            "tags": row.tags,
            "digest": row.digest,
            "verified": verified,
        }
    elif node.chain and not node.collection:
        item = node.item
        shown = {"id": item.id, "uri": f"/data{item.address}", "label": item.label}
        shown |= {
            name: item.cells.get(column, "").strip()
            for name, column in item.level.attributes.items()
        }
    else:
        shown = {}
    return {name: text for name, text in shown.items() if text}
