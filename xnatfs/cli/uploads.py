"""What has not reached the server yet: the data is on this disk.

xnatfs uploads [list]          what waits, and why
xnatfs uploads send [ID…]      send what a mount that is gone has left
xnatfs uploads export DIR [ID…]  copy the data to a folder
xnatfs uploads drop ID…        remove it for good (--all: everything)
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from xnatfs import options
from xnatfs.cli import exits
from xnatfs.cli.connecting import connector, waiter_for
from xnatfs.cli.shown import FORMATS, age_text, bytes_text, count_text, printable, render
from xnatfs.config import Settings
from xnatfs.configuration import choose, normal_url
from xnatfs.errors import UsageError, WaitEnded, XnatfsError
from xnatfs.upload.queue import Queue, Row
from xnatfs.waiting import Waiter

_COLUMNS = ("id", "state", "size", "age", "path", "server", "held by", "problem")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``uploads``."""
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "send", "export", "drop")
    )
    parser.add_argument("words", nargs="*", metavar="ID")
    parser.add_argument("--all", action="store_true", help="drop everything")
    parser.add_argument(
        "--take",
        action="append",
        default=[],
        metavar="ID",
        help="even if it is not known whether its mount, on another machine, still works on it",
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="how it is written")
    options.add_to(parser, "uploads")


def run(args: argparse.Namespace) -> int:
    """Do what was asked with what waits in the spool."""
    settings = choose(args, os.environ, needs_server=False).settings
    actions: dict[str, Callable[[argparse.Namespace, Settings, Queue], int]] = {
        "list": _list,
        "send": _send,
        "export": _export,
        "drop": _drop,
    }
    return actions[args.action](args, settings, Queue(settings.spool))


def _list(args: argparse.Namespace, _settings: Settings, queue: Queue) -> int:
    rows = queue.rows(args.words)
    if rows or args.format != "table":
        print(render([_cells(row, args.format) for row in rows], _COLUMNS, args.format), end="")
    else:
        print("nothing waits: everything has arrived")
    return exits.OK


def _cells(row: Row, form: str) -> dict[str, str]:
    record = row.record
    for_people = form == "table"
    return {
        "id": row.id,
        "state": record.state.value if record else "unreadable",
        "size": bytes_text(row.size) if for_people else str(row.size),
        "age": age_text(row.age_s) if for_people else str(int(row.age_s)),
        "path": record.target.labels if record else "",
        "server": record.target.server if record else "",
        "held by": row.owner if row.standing.value != "free" else "",
        "problem": row.problem or (record.last_error if record else ""),
    }


def _send(args: argparse.Namespace, settings: Settings, queue: Queue) -> int:
    rows = queue.rows([*args.words, *args.take] if args.words or args.take else ())
    if settings.server.url:
        rows = [row for row in rows if row.record and row.record.target.server == _url(settings)]
    failed = [_report(row, row.problem) for row in rows if row.record is None]
    for (server, account), group in groupby(sorted(rows, key=_address), key=_address):
        if server:
            failed += _send_to(server, account, list(group), set(args.take), settings)
    sent = len(rows) - len(failed)
    if sent and not args.quiet:
        print(f"{count_text(sent, 'file')} arrived")
    elif not rows and not args.quiet:
        print("nothing waits")
    return exits.NOT_ARRIVED if failed else exits.OK


def _url(settings: Settings) -> str:
    return normal_url(settings.server.url)


def _address(row: Row) -> tuple[str, str]:
    return (row.record.target.server, row.record.target.account) if row.record else ("", "")


def _send_to(
    server: str, account: str, rows: list[Row], taken: set[str], settings: Settings
) -> list[str]:
    """Send rows of one server and account; returns the ids of those that did not arrive."""
    there = replace(settings, server=replace(settings.server, url=server, user=account))
    fs = connector(there)(waiter_for(there))
    failed = []
    try:
        fs.adopt(waiter_for(there))
        left = rows
        while left:
            later = []
            for row in left:
                try:
                    if not fs.take_left(row, force=row.id in taken):
                        later.append(row)
                except XnatfsError as error:
                    failed.append(_report(row, str(error)))
            # As long as bytes move, however many there are.
            with suppress(WaitEnded):
                fs.drain(Waiter(idle_s=there.limits.io_timeout_s))
            left = later if len(later) < len(left) else []
        why = {str(pending["id"]): str(pending["error"]) for pending in fs.pending()}
        failed += [_report(row, why[row.id]) for row in rows if row.id in why]
    finally:
        fs.close()
    return failed


def _report(row: Row, problem: str) -> str:
    print(f"xnatfs: {row.id}: {problem}", file=sys.stderr)
    return row.id


def _export(args: argparse.Namespace, _settings: Settings, queue: Queue) -> int:
    if not args.words:
        raise UsageError("uploads export needs a folder")
    folder, *ids = args.words
    for row in queue.rows(ids):
        print(printable(str(queue.export(row, Path(folder)))))
    return exits.OK


def _drop(args: argparse.Namespace, _settings: Settings, queue: Queue) -> int:
    ids = [*args.words, *args.take]
    if not ids and not args.all:
        raise UsageError("uploads drop needs the ids of what shall be lost for good, or --all")
    for row in queue.rows(ids):
        queue.drop(row, force=row.id in args.take)
        if not args.quiet:
            print(f"{row.id} is dropped")
    return exits.OK
