"""What the server's listings hold: objects of the hierarchy and files of a resource."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from xnatfs.model.levels import Level


class Kind(Enum):
    """What a name in the archive stands for."""

    FOLDER = "folder"
    FILE = "file"
    LINK = "link"


@dataclass(frozen=True, slots=True)
class Item:
    """One object of the hierarchy: a project, a scan, a resource.

    Two items are equal when they stand for the same object: cells do not count.
    """

    level: Level = field(hash=False)
    # Accession, scan id or numeric resource id: what addresses use.
    id: str
    # Label as the server has it; "" where it has none.
    label: str = field(compare=False)
    # Address below /data, percent-encoded: "/experiments/XNAT_E00001/scans/4".
    address: str
    # The row of the listing: column → text, every cell a string (R§2.1).
    cells: Mapping[str, str] = field(compare=False, repr=False)
    # Shown, but never written to: what an assessor or reconstruction was made from.
    read_only: bool = field(default=False, compare=False)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """One file of a resource, as a listing of files shows it (R§2.6)."""

    # Numeric id of the resource.
    resource_id: str
    # Path below the resource's ``files``, exactly as the server stores it.
    path: str
    # Bytes; None when the server does not know.
    size: int | None
    # MD5 in lower-case hex; "" when the server has none.
    digest: str
    format: str = ""
    content: str = ""
    tags: str = ""
    # ``Last-Modified`` as the server said it once; "" as long as nobody asked. No listing has it.
    modified: str = ""


@dataclass(frozen=True, slots=True)
class LocalFile:
    """A file that exists on this machine only so far; ``path`` as with ``RemoteFile``."""

    path: str


@dataclass(frozen=True, slots=True)
class Head:
    """What the header of a file's reply tells (R§3.1)."""

    # Bytes; None when the reply had no length.
    size: int | None
    # ``Last-Modified`` as received; "" when missing.
    modified: str
