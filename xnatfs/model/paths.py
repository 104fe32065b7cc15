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
# Slash, NUL and the other control characters (C0, DEL), and lone surrogates, which stand for
# bytes that are no UTF-8; "%" only where it would be read as an escape.
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
    """One folder below ``files``: its sub-folders and files by file name."""

    # Path of this folder below ``files`` as the server has it; "" for the root.
    path: str = ""
    folders: dict[str, FolderTree] = field(default_factory=dict)
    files: dict[str, RemoteFile] = field(default_factory=dict)

    def folder(self, part: str) -> FolderTree:
        """The sub-folder that the server calls ``part``; made when it is not there yet."""
        name = encode_name(part)
        if name not in self.folders:
            self.folders[name] = FolderTree(join(self.path, part))
        return self.folders[name]

    def at(self, parts: Iterable[str]) -> FolderTree | None:
        """The folder that the parts lead to, or None."""
        folder: FolderTree | None = self
        for part in parts:
            folder = folder.folders.get(part) if folder is not None else None
        return folder


def folder_tree(rows: Iterable[RemoteFile]) -> FolderTree:
    """Build the folders of a resource from the paths of its files, in the order received.

    Empty path segments (``a//b``) cannot be shown as folders; such a file is shown in the root
    of the resource under its encoded full path.
    """
    root = FolderTree()
    for row in rows:
        parts = row.path.split("/")
        if not all(parts):
            parts = [row.path]
        folder = root
        for part in parts[:-1]:
            folder = folder.folder(part)
        name = encode_name(parts[-1])
        while name in folder.files:
            name = encode_name(f"{name}~")
        folder.files[name] = row
    _part_files_from_folders(root)
    return root


def _part_files_from_folders(folder: FolderTree) -> None:
    for name in folder.files.keys() & folder.folders.keys():
        row = folder.files.pop(name)
        other = encode_name(f"{name}~file")
        while other in folder.files or other in folder.folders:
            other = encode_name(f"{other}~")
        folder.files[other] = row
    for child in folder.folders.values():
        _part_files_from_folders(child)
