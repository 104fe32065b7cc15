"""What has not reached the server yet: the data is on this disk.

xnatfs uploads [list]            what waits, and why
xnatfs uploads wait              let the mounts that live send now, and wait for it
xnatfs uploads send [ID…]        send what mounts that are gone have left
xnatfs uploads export DIR [ID…]  copy the data to a folder
xnatfs uploads drop ID…          remove it for good (--all: everything)
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from itertools import groupby
from pathlib import Path

from xnatfs import options
from xnatfs.cli import exits
from xnatfs.cli.connecting import connector, waiter_for
from xnatfs.cli.parting import Progress
from xnatfs.cli.shown import FORMATS, age_text, bytes_text, count_text, printable, render
from xnatfs.config import Settings
from xnatfs.configuration import choose, normal_url
from xnatfs.errors import ServerProblem, UsageError, WaitEnded, XnatfsError
from xnatfs.upload.queue import Queue, Row, Standing
from xnatfs.upload.record import State
from xnatfs.waiting import Waiter

_COLUMNS = ("id", "state", "size", "age", "path", "server", "held by", "problem")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``uploads``."""
    parser.add_argument(
        "action", nargs="?", default="list", choices=("list", "wait", "send", "export", "drop")
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
    parser.add_argument("--wait", metavar="TIME", help="wait at most so long (until all is sent)")
    parser.add_argument(
        "-n", "--dry-run", action="store_true", help="say what would be done, and do nothing"
    )
    parser.add_argument("--format", choices=FORMATS, default="table", help="how it is written")
    parser.add_argument(
        "--json", action="store_const", const="json", dest="format", help="--format json"
    )
    options.add_to(parser, "uploads")


def run(args: argparse.Namespace) -> int:
    """Do what was asked with what waits in the spool."""
    settings = choose(args, os.environ, needs_server=False).settings
    actions: dict[str, Callable[[argparse.Namespace, Settings, Queue], int]] = {
        "list": _list,
        "wait": _wait,
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


def _wait(args: argparse.Namespace, settings: Settings, queue: Queue) -> int:
    """Ask every mount of this machine to send; what is left then did not arrive."""
    from xnatfs.fuse import control

    try:
        wait_s = None if args.wait is None else options.duration(args.wait)
    except ValueError as error:
        raise UsageError(f"--wait: {error}") from error
    ends = None if wait_s is None else time.monotonic() + wait_s
    with Progress(wanted=sys.stderr.isatty() and not args.quiet) as shown:
        for record in control.records(settings.state_folder):
            if record.ended or not record.here or not control.is_alive(record):
                continue
            left_s = None if ends is None else max(0.0, ends - time.monotonic())
            with suppress(ServerProblem, WaitEnded):  # it ended, or hangs: its uploads are below
                for reply in control.ask(record, {"verb": "send", "wait": left_s}):
                    shown.update(int(reply.get("pending", 0)))
    failed = [_report(row, _problem(row)) for row in queue.rows(args.words) if not _is_open(row)]
    if not failed and not args.quiet:
        print("everything has arrived")
    return exits.NOT_ARRIVED if failed else exits.OK


def _is_open(row: Row) -> bool:
    """Whether somebody still writes it, in a mount that lives."""
    is_open = row.record is not None and row.record.state is State.OPEN
    return is_open and row.standing is Standing.LIVE


def _problem(row: Row) -> str:
    if row.problem or row.record is None:
        return row.problem
    return row.record.last_error or f"{row.record.target.labels} is {row.record.state.value}"


def _send(args: argparse.Namespace, settings: Settings, queue: Queue) -> int:
    named = [*args.words, *args.take]
    rows = queue.rows(named)
    if not named:
        # Theirs to send: ``wait`` asks them to.
        rows = [row for row in rows if row.standing is not Standing.LIVE]
    if settings.server.url:
        rows = [row for row in rows if row.record and row.record.target.server == _url(settings)]
    if args.dry_run:
        return _would(rows, "sent")
    rows = queue.latest(rows)
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


def _would(rows: list[Row], done: str) -> int:
    for row in rows:
        path = row.record.target.labels if row.record else row.problem
        print(printable(f"{row.id} would be {done}: {path}"))
    return exits.OK


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
            if len(later) == len(left):
                failed += [_report(row, "another upload has the same name") for row in later]
                break
            left = later
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
    if args.dry_run:
        return _would(queue.rows(ids), f"copied to {folder}")
    for row in queue.rows(ids):
        print(printable(str(queue.export(row, Path(folder)))))
    return exits.OK


def _drop(args: argparse.Namespace, _settings: Settings, queue: Queue) -> int:
    ids = [*args.words, *args.take]
    if not ids and not args.all:
        raise UsageError("uploads drop needs the ids of what shall be lost for good, or --all")
    if args.dry_run:
        return _would(queue.rows(ids), "lost for good")
    for row in queue.rows(ids):
        queue.drop(row, force=row.id in args.take)
        if not args.quiet:
            print(f"{row.id} is dropped")
    return exits.OK
