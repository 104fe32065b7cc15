"""Names: from what the server calls things to file names and back, reversibly.

Rules (docs/SEMANTICS.md, "Names"): what a file system cannot hold becomes ``%XX``; ``%`` itself
only where two hex digits follow, so that ordinary names stay as they are; over 255 bytes a name
is cut and gets ``~`` and 8 hex digits; equal names get ``~ID``, the lowest id keeps the name; a
file ``a`` beside a folder ``a`` becomes ``a~file``.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeVar

from xnatfs.errors import BadName
from xnatfs.model.entities import RemoteFile

T = TypeVar("T")

NAME_MAX = 255  # bytes, the limit of every Linux file system

_ESCAPED = re.compile(r"%([0-9A-F]{2})")
# NUL and the other control characters (C0, DEL), and lone surrogates, which stand for bytes that
# are no UTF-8.
_UNSTORABLE = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
# Those and the slash; "%" only where it would be read as an escape.
_UNSAFE = re.compile("[\x00-\x1f\x7f/\ud800-\udfff]|%(?=[0-9A-Fa-f]{2})")


def encode_name(label: str) -> str:
    """Make a label of the server into a file name; never empty, at most 255 bytes."""
    if label in (".", ".."):
        return label.replace(".", "%2E")
    name = _UNSAFE.sub(
        lambda found: "".join(f"%{byte:02X}" for byte in found[0].encode("utf-8", "surrogatepass")),
        label,
    )
    raw = name.encode()
    if len(raw) <= NAME_MAX:
        return name
    mark = "~" + hashlib.sha256(label.encode("utf-8", "surrogatepass")).hexdigest()[:8]
    return raw[: NAME_MAX - len(mark)].decode(errors="ignore") + mark


def decode_name(name: str) -> str:
    """Undo ``encode_name`` (for names that were not cut)."""
    raw = re.sub(
        rb"%([0-9A-F]{2})",
        lambda found: bytes([int(found[1], 16)]),
        name.encode("utf-8", "surrogatepass"),
    )
    return raw.decode("utf-8", "surrogatepass")


def server_name(name: str) -> str:
    """What a new file or folder of this file name is called on the server.

    Raises: BadName: the name would not come back from there as it is.
    """
    if _UNSTORABLE.search(name):
        raise BadName(f"{name!r}: no control characters, and nothing but UTF-8, in a name")
    if name in (".", ".."):
        raise BadName(f"{name!r} is no name here")
    label = decode_name(name)
    if encode_name(label) != name:
        raise BadName(f"{name!r}: '%' and two hex digits stand for a character here")
    return label


def _id_order(id_: str) -> tuple[int, int, str]:
    return (0, int(id_), "") if id_.isdigit() else (1, 0, id_)


def unique_names(entries: Iterable[tuple[str, str, T]]) -> dict[str, T]:
    """Give every entry of one folder a name of its own.

    Args:
        entries: (id, wanted name as the server calls it, value) in listing order.

    Returns:
        file name → value, in listing order.
    """
    rows = [(id_, encode_name(wanted or id_), value) for id_, wanted, value in entries]
    keeper: dict[str, str] = {}
    for id_, name, _ in rows:
        if name not in keeper or _id_order(id_) < _id_order(keeper[name]):
            keeper[name] = id_
    names: dict[str, T] = {}
    for id_, name, value in rows:
        if keeper[name] != id_:
            name = encode_name(f"{name}~{id_}")
        while name in names:  # only when a label looks like another's "LABEL~ID"
            name += "~"
        names[name] = value
    return names


def join(folder: str, name: str) -> str:
    """Path of ``name`` in ``folder``, both below ``files``, as the server has them."""
    return f"{folder}/{name}" if folder else name


def parent_of(path: str) -> str:
    """The folder that holds ``path``; "" for the root of the resource."""
    return path.rpartition("/")[0]


@dataclass(slots=True)
class FolderTree:
    """One folder below ``files``: its sub-folders and files by file name.

    A file ``a`` beside a folder ``a`` is ``a~file``. A change costs what the path is long, not
    what the folder holds, unless such names are among it.
    """

    # Path of this folder below ``files`` as the server has it; "" for the root.
    path: str = ""
    folders: dict[str, FolderTree] = field(default_factory=dict)
    files: dict[str, RemoteFile] = field(default_factory=dict)
    # How many files have another name than their own, which somebody else has.
    _displaced: int = 0

    def put(self, row: RemoteFile) -> None:
        """Add a file to the root of a resource, or replace the one of the same path."""
        *above, name = _parts_of(row)
        folder = self
        for part in above:
            folder = folder._folder(part)
        folder._place(name, row)

    def remove(self, row: RemoteFile) -> None:
        """Take a file away from the root of a resource, with the folders that it leaves empty."""
        *above, part = _parts_of(row)
        way = [self]
        for name in above:
            below = way[-1].folders.get(encode_name(name))
            if below is None:
                return
            way.append(below)
        folder = way.pop()
        name = folder._name_of(part, row)
        if folder.files.pop(name, None) is not None:
            folder._settle()
        while way and not folder.files and not folder.folders:
            del way[-1].folders[encode_name(above.pop())]
            folder = way.pop()
            folder._settle()

    def at(self, parts: Iterable[str]) -> FolderTree | None:
        """The folder that the parts, as file names, lead to, or None."""
        folder: FolderTree | None = self
        for part in parts:
            folder = folder.folders.get(part) if folder is not None else None
        return folder

    def _folder(self, part: str) -> FolderTree:
        """The sub-folder that the server calls ``part``; made when it is not there yet."""
        name = encode_name(part)
        folder = self.folders.get(name)
        if folder is None:
            folder = self.folders[name] = FolderTree(join(self.path, part))
            if (row := self.files.pop(name, None)) is not None:
                self._place(_parts_of(row)[-1], row)
        return folder

    def _name_of(self, part: str, row: RemoteFile) -> str:
        """The name that a file has here, or would get."""
        name = encode_name(part)
        there = self.files.get(name)
        if name not in self.folders and (there is None or there.path == row.path):
            return name
        if self._displaced:
            for other, file in self.files.items():
                if file.path == row.path:
                    return other
        if name in self.folders:
            name = encode_name(f"{name}~file")
        while name in self.files or name in self.folders:
            name = encode_name(f"{name}~")
        return name

    def _place(self, part: str, row: RemoteFile) -> None:
        name = self._name_of(part, row)
        if name not in self.files and name != encode_name(part):
            self._displaced += 1
        self.files[name] = row

    def _settle(self) -> None:
        """A name has become free: who would have it gets it."""
        if not self._displaced:
            return
        rows, self.files, self._displaced = list(self.files.values()), {}, 0
        for row in rows:
            self._place(_parts_of(row)[-1], row)


def folder_tree(rows: Iterable[RemoteFile]) -> FolderTree:
    """Build the folders of a resource from the paths of its files, in the order received."""
    root = FolderTree()
    for row in rows:
        root.put(row)
    return root


def _parts_of(row: RemoteFile) -> list[str]:
    """The parts of a path; one with empty parts (``a//b``) is shown in the root, under it all."""
    parts = row.path.split("/")
    return parts if all(parts) else [row.path]
