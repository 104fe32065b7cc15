"""The record of an upload: what its bytes are, where they go, and how far they have come.

One small JSON file beside the bytes, readable with ``cat`` and replaced as a whole, so that a
process that dies at any moment leaves either the old record or the new one. ``spool`` and
``queue`` read and write it; it knows neither folders of mounts nor the server.

Version 1 grows by fields that have a default: a reader ignores what it does not know.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path
from typing import Any

from xnatfs.errors import DiskFault
from xnatfs.model.entities import Item
from xnatfs.model.levels import RESOURCE
from xnatfs.model.versions import Version
from xnatfs.upload.disk import local_disk, replace_file

VERSION = 1
RECORD_NAME = "record.json"


class Kind(Enum):
    """What is on its way."""

    FILE = "file"
    FOLDER = "folder"


class State(Enum):
    """How far an upload has come. There is no "done": a done upload is gone."""

    # Somebody may still write; after a crash it is kept and shown, never sent by itself.
    OPEN = "open"
    # Complete, size and MD5 known; after a crash: look whether the server has it, else send.
    SEALED = "sealed"
    # Given up, ``last_error`` says why; sent again only when a person asks for it.
    FAILED = "failed"
    # Somebody else's version stands where it should go; never sent over it.
    CONFLICT = "conflict"


@dataclass(frozen=True, slots=True)
class Target:
    """Where an upload goes."""

    # Base URL of the server.
    server: str
    # Login name there.
    account: str
    # Path in a mount, by names: for people ("/projects/P/…/resources/NIFTI/files/a.nii").
    labels: str
    # Address of the resource below /data, by ids ("/experiments/E/scans/4/resources/123"); by its
    # label at the end when it is still to be made.
    resource: str
    # Numeric id of the resource; the address again when it is still to be made.
    resource_id: str
    # Path below the resource's ``files``, exactly as the server shall store it.
    path: str

    def item(self) -> Item:
        """The resource as an Item, for a process that has no listing at hand."""
        label = "" if self.is_made else self.resource.rpartition("/")[2]
        return Item(RESOURCE, self.resource_id, label, self.resource, {})

    @property
    def is_made(self) -> bool:
        """Whether the server had the resource when the upload began."""
        return self.resource_id.isdecimal()


@dataclass(frozen=True, slots=True)
class Base:
    """The version on the server that an upload replaces."""

    # MD5 in lower-case hex, or "" where the server has none.
    digest: str
    # Bytes.
    size: int
    # ``Last-Modified``, where there is no digest.
    modified: str = ""

    @classmethod
    def of(cls, version: Version) -> Base:
        """The base that stands for a pinned version."""
        return cls(version.digest, version.size, "" if version.digest else version.modified)


@dataclass(frozen=True, slots=True)
class Record:
    """One upload."""

    # Name of its folder in the spool, unique among all mounts.
    id: str
    target: Target
    # What it replaces; None: the name must not exist on the server.
    base: Base | None
    # When it was begun or got its name, in seconds since the epoch: of two for one name, in the
    # spool of one process, the later counts.
    created: float
    state: State = State.OPEN
    kind: Kind = Kind.FILE
    # Bytes, and MD5 in lower-case hex; as of the last seal, "" and 0 before it.
    size: int = 0
    md5: str = ""
    # How often it was sent in vain, and why the last time.
    attempts: int = 0
    last_error: str = ""
    # Versions of it that were sent and may have arrived: the answer was lost, or was an error.
    perhaps: tuple[Base, ...] = ()

    @property
    def version(self) -> Base:
        """What it is on the server once it has arrived."""
        return Base(self.md5, self.size)

    def to_json(self) -> str:
        """The text that stands on disk."""
        cells = {
            "version": VERSION,
            "id": self.id,
            "target": _cells(self.target),
            "base": None if self.base is None else _cells(self.base),
            "created": self.created,
            "state": self.state.value,
            "kind": self.kind.value,
            "size": self.size,
            "md5": self.md5,
            "attempts": self.attempts,
            "last_error": self.last_error,
            "perhaps": [_cells(version) for version in self.perhaps],
        }
        # A line for each field, for who reads it with ``cat``; json's own indent is ten times
        # slower, and there are thousands of these.
        return json.dumps(cells, separators=(",\n ", ": ")) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Record:
        """Read a record.

        Raises: ValueError: it is none, or one of a later version.
        """
        try:
            cells: dict[str, Any] = json.loads(text)
            if cells["version"] != VERSION:
                raise ValueError(f"written by a later xnatfs (version {cells['version']})")
            base = cells["base"]
            perhaps = cells.get("perhaps", [])
            return cls(
                id=str(cells["id"]),
                target=Target(**{name: str(cells["target"][name]) for name in Target.__slots__}),
                base=None if base is None else _base(base),
                created=float(cells["created"]),
                state=State(cells["state"]),
                kind=Kind(cells["kind"]),
                size=int(cells["size"]),
                md5=str(cells["md5"]),
                attempts=int(cells["attempts"]),
                last_error=str(cells["last_error"]),
                perhaps=tuple(_base(version) for version in perhaps),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no record of an upload ({error!r})") from error

    def replaced(self, **changes: Any) -> Record:
        """A copy with some fields changed."""
        return replace(self, **changes)


def _cells(value: Target | Base) -> dict[str, object]:
    return {name: getattr(value, name) for name in value.__slots__}


def _base(cells: dict[str, Any]) -> Base:
    return Base(str(cells["digest"]), int(cells["size"]), str(cells.get("modified", "")))


def read_record(folder: Path) -> Record:
    """The record in an upload's folder.

    Raises: DiskFault: it is missing, unreadable, or of a later version.
    """
    with local_disk(f"the record of {folder}"):
        text = (folder / RECORD_NAME).read_text(encoding="utf-8", errors="surrogateescape")
    try:
        return Record.from_json(text)
    except ValueError as error:
        raise DiskFault(f"cannot read {folder / RECORD_NAME}: {error}") from error


def write_record(folder: Path, record: Record, *, durable: bool) -> None:
    """Replace the record in an upload's folder in one step.

    Args:
        folder: the upload's folder.
        record: what shall stand there.
        durable: return only when it survives a power loss. A record that was durable once must
            stay so: a rename without fsync may lose both the new and the old one.

    Raises: NoSpace, QuotaExceeded, DiskFault; the old record then still stands.
    """
    replace_file(folder / RECORD_NAME, record.to_json().encode(), durable=durable)
