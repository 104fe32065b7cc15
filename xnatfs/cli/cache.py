"""The store of downloaded data: how much is in it, whether it is sound, empty it.

xnatfs cache [info]    what is kept, for which server and account
xnatfs cache verify    read everything again; what is damaged goes
xnatfs cache clear     remove it (with -s only that of one server); mounts go on reading
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from xnatfs import options
from xnatfs.cli import exits
from xnatfs.cli.shown import bytes_text, count_text
from xnatfs.configuration import choose
from xnatfs.transfer.stores import Kept, kept_stores


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``cache``."""
    parser.add_argument("action", nargs="?", default="info", choices=("info", "verify", "clear"))
    parser.add_argument("--json", action="store_true", help="for programs")
    options.add_to(parser, "cache")


def run(args: argparse.Namespace) -> int:
    """Do what was asked with every store of the folder, or of the server that was named."""
    named = hasattr(args, "server")
    settings = choose(args, os.environ, needs_server=False).settings
    stores = [
        kept
        for kept in kept_stores(settings.store)
        if not named or kept.server == settings.server.url.rstrip("/")
    ]
    rows = [_do(args.action, kept) for kept in stores]
    if args.json:
        print(json.dumps(rows, indent=1))
    elif not rows:
        print(f"{settings.store.folder}: nothing is kept")
    for row in [] if args.json else rows:
        print(_line(args.action, row))
    return exits.FAILED if any(row.get("damaged") for row in rows) else exits.OK


def _do(action: str, kept: Kept) -> dict[str, Any]:
    row: dict[str, Any] = {"server": kept.server, "account": kept.account}
    if action == "verify":
        checked, damaged = kept.store.verify()
        return row | {"checked": checked, "damaged": damaged}
    stats = kept.store.stats()
    row |= {"bytes": stats.bytes, "files": stats.files, "folder": str(kept.folder)}
    if action == "clear":
        kept.store.clear()
    return row


def _line(action: str, row: dict[str, Any]) -> str:
    whose = f"{row['server']} as {row['account']}"
    if action == "verify":
        return f"{whose}: {count_text(row['checked'], 'file')}, {row['damaged']} damaged"
    size = f"{count_text(row['files'], 'file')}, {bytes_text(row['bytes'])}"
    return f"{whose}: {size}{' removed' if action == 'clear' else ''}"
