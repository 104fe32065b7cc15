"""How listings are written down: rows to JSON and back, by the kind of listing."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from sys import intern
from typing import Any

from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.levels import BY_NAME

# The files of one resource; the files of all resources of a session, by resource.
FILES, SESSION = "files", "session"
# What kinds of plain texts begin with: the user's rights.
RIGHTS = "rights-"

# Rows of files that are read and written at once.
_ROWS_A_LINE = 1000

# What a damaged record raises.
UNREADABLE = (ValueError, TypeError, KeyError, AttributeError)


@dataclass(frozen=True, slots=True)
class Sheet:
    """How one kind of listing is written down."""

    encode: Callable[[Any], bytes]
    # Raises one of UNREADABLE.
    decode: Callable[[bytes], Any]


def of(kind: str) -> Sheet:
    """How a kind is written: objects of the hierarchy, unless it is one of those above."""
    if kind.startswith(RIGHTS):
        return _WORDS
    return {FILES: _FILES, SESSION: _SESSION}.get(kind, _ITEMS)


def _dump(rows: object) -> bytes:
    # ASCII: names may hold lone surrogates, which stand for bytes that are no UTF-8.
    return json.dumps(rows, ensure_ascii=True, separators=(",", ":")).encode()


def _items_to_json(rows: Iterable[Item]) -> bytes:
    return _dump(
        [
            [row.level.name, row.id, row.label, row.address, dict(row.cells), row.read_only]
            for row in rows
        ]
    )


def _items_from_json(body: bytes) -> list[Item]:
    return [
        Item(BY_NAME[level], id_, label, address, cells, read_only)
        for level, id_, label, address, cells, read_only in json.loads(body)
    ]


def _words_to_json(rows: Iterable[str]) -> bytes:
    return _dump(list(rows))


def _words_from_json(body: bytes) -> list[str]:
    return [str(word) for word in json.loads(body)]


def _files_to_json(rows: Iterable[RemoteFile]) -> bytes:
    """Lines of some rows each: what stands between rows and bytes stays small."""
    left = iter(rows)
    lines = []
    while part := [_file_cells(row) for row in islice(left, _ROWS_A_LINE)]:
        lines.append(_dump(part))
    return b"\n".join(lines)


def _files_from_json(body: bytes) -> list[RemoteFile]:
    lines = io.BytesIO(body)
    return [_file(cells) for line in lines for cells in json.loads(line)]


def _session_to_json(resources: Mapping[str, Sequence[RemoteFile]]) -> bytes:
    return _dump(
        {address: [_file_cells(row) for row in rows] for address, rows in resources.items()}
    )


def _session_from_json(body: bytes) -> dict[str, list[RemoteFile]]:
    return {address: [_file(cells) for cells in rows] for address, rows in json.loads(body).items()}


def _file_cells(row: RemoteFile) -> list[Any]:
    return [row.resource_id, row.path, row.size, row.digest, row.format, row.content, row.tags,
            row.modified]  # fmt: skip


def _file(cells: list[Any]) -> RemoteFile:
    resource_id, path, size, digest, form, content, tags, modified = cells
    # A resource has many files and few of these.
    return RemoteFile(intern(resource_id), path, size, digest, intern(form), intern(content),
                      intern(tags), modified)  # fmt: skip


_ITEMS = Sheet(_items_to_json, _items_from_json)
_WORDS = Sheet(_words_to_json, _words_from_json)
_FILES = Sheet(_files_to_json, _files_from_json)
_SESSION = Sheet(_session_to_json, _session_from_json)
