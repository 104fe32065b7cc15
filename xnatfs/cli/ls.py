"""List a folder of the archive; needs neither a mount nor FUSE.

xnatfs ls -l /projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1/scans
"""

from __future__ import annotations

import argparse
import posixpath
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING

from xnatfs import options
from xnatfs.cli.connecting import connected, waiter_for
from xnatfs.cli.exits import OK
from xnatfs.cli.places import parse
from xnatfs.cli.shown import FORMATS, Row, bytes_text, printable, render
from xnatfs.fs.values import Kind

if TYPE_CHECKING:
    from xnatfs.config import Settings
    from xnatfs.fs.filesystem import FileSystem
    from xnatfs.tree.node import Node
    from xnatfs.waiting import Waiter

# The columns of ``-l``, by what an entry is. A folder of several kinds shows them all.
_COLUMNS: dict[str, tuple[str, ...]] = {
    "project": ("title", "pi"),
    "subject": ("id", "time"),
    "experiment": ("id", "type", "date"),
    "scan": ("type", "description", "quality", "files", "size"),
    "assessor": ("id", "type", "date", "files", "size"),
    "reconstruction": ("type", "files", "size"),
    "resource": ("format", "content", "files", "size"),
    "file": ("size", "format", "content", "digest"),
}

# Levels whose files and bytes are those of their resources, which one request lists for a whole
# session.
_SUMMED = frozenset({"scan", "assessor", "reconstruction"})


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``ls``."""
    # Not "path": that is the option for the part of the archive that is mounted.
    parser.add_argument(
        "where",
        metavar="PATH",
        nargs="?",
        default="/",
        help="a path of the archive, a session's accession, or an address from the browser",
    )
    parser.add_argument("-l", "--long", action="store_true", help="type, quality, counts, sizes")
    parser.add_argument("-R", "--recursive", action="store_true", help="everything below, too")
    parser.add_argument("--format", choices=FORMATS, default="table", help="how it is written")
    options.add_to(parser, "ls")


def run(args: argparse.Namespace) -> int:
    """List, in the form that was asked for."""
    place = parse(args.where)
    with connected(args, place.server) as (fs, chosen):
        listing = _Listing(fs, chosen.settings, long=args.long)
        folders = listing.folders(place.path, recursive=args.recursive)
        if args.format == "table":
            _print_folders(folders, args)
        else:
            rows = [row for path, rows in folders for row in _with_path(path, rows)]
            columns = _columns(rows, args)
            print(render(rows, columns, args.format), end="")
    return OK


def _with_path(path: str, rows: list[Row]) -> list[Row]:
    return [{**row, "path": posixpath.join(path, row["name"])} for row in rows]


def _columns(rows: list[Row], args: argparse.Namespace) -> list[str]:
    columns = ["path"] if args.recursive else []
    columns += ["name", "kind"]
    return columns + _long_columns(rows) if args.long else columns


def _long_columns(rows: list[Row]) -> list[str]:
    levels = {row["level"] for row in rows}
    found: dict[str, None] = {}
    for level, columns in _COLUMNS.items():
        if level in levels:
            found |= dict.fromkeys(columns)
    return list(found)


def _print_folders(folders: Iterator[tuple[str, list[Row]]], args: argparse.Namespace) -> None:
    first = True
    for path, rows in folders:
        if args.recursive:
            print(f"{'' if first else chr(10)}{printable(path)}:")
        first = False
        if args.long and (columns := _long_columns(rows)):
            print(render(_readable(rows), ["name", *columns], "table"), end="")
        else:
            for row in rows:
                print(printable(row["name"]))
        sys.stdout.flush()


def _readable(rows: list[Row]) -> list[Row]:
    """Sizes for people; the other formats keep the bytes."""
    return [
        {**row, "size": bytes_text(int(row["size"]))} if row.get("size", "").isdigit() else row
        for row in rows
    ]


class _Listing:
    """The folders below a place, one after the other."""

    def __init__(self, fs: FileSystem, settings: Settings, *, long: bool) -> None:
        self._search = fs.search
        self._settings = settings
        self._long = long

    def folders(self, place: str, *, recursive: bool) -> Iterator[tuple[str, list[Row]]]:
        """(path, rows) of a folder, and with ``recursive`` of those below it; links excepted."""
        top = self._search.node(place, self._waiter())
        if top.kind is not Kind.FOLDER:
            yield posixpath.dirname(top.path), [self._row(top)]
            return
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            nodes = self._search.below(folder, self._waiter())
            yield folder.path, [self._row(node) for node in nodes]
            if recursive:
                waiting += reversed([node for node in nodes if node.kind is Kind.FOLDER])

    def _waiter(self) -> Waiter:
        return waiter_for(self._settings)

    def _row(self, node: Node) -> Row:
        row = {"name": node.name, "kind": node.kind.value, "level": ""}
        if not self._long or node.kind is Kind.LINK:
            return row
        cells = self._search.cells(node)
        level = cells.get("level", "")
        row |= {"level": level, **_shown(cells)}
        if node.kind is Kind.FILE:
            row |= {"size": str(self._search.file_size(node, self._waiter()))}
        elif level in _SUMMED:
            row |= self._sums(self._search.collection(node, "resources", self._waiter()))
        return row

    def _sums(self, folder: Node) -> Row:
        """Files and bytes of all resources in a folder, as the server counts them."""
        nodes = self._search.below(folder, self._waiter())
        resources = [self._search.cells(node) for node in nodes]
        files = sum(_number(cells.get("file_count", "")) for cells in resources)
        size = sum(_number(cells.get("file_size", "")) for cells in resources)
        return {"files": str(files), "size": str(size)}


def _shown(cells: dict[str, str]) -> Row:
    """The cells of an entry under the names of the columns."""
    return {
        "id": cells.get("id", ""),
        "title": cells.get("title", ""),
        "pi": " ".join(filter(None, (cells.get("pi_firstname"), cells.get("pi_lastname")))),
        "type": cells.get("type") or cells.get("xsi_type", ""),
        "description": cells.get("series_description", ""),
        "quality": cells.get("quality", ""),
        "date": cells.get("date", ""),
        # To the second, in the server's zone, as it is written there (R§2.1).
        "time": cells.get("insert_date", "").partition(".")[0],
        "format": cells.get("format", ""),
        "content": cells.get("content", ""),
        "digest": cells.get("digest", ""),
        "files": cells.get("file_count", ""),
        "size": cells.get("file_size", ""),
    }


def _number(text: str) -> int:
    return int(text) if text.isdecimal() else 0
