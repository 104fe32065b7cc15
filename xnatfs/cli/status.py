"""What is mounted here, and how it is doing."""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xnatfs import options
from xnatfs.cli.exits import OK
from xnatfs.cli.shown import age_text, bytes_text, count_text, expiry_text
from xnatfs.configuration import choose
from xnatfs.errors import NotFound, ServerProblem, WaitEnded
from xnatfs.rest.login import stored_logins

# A login that ends within this time is worth a line. Seconds.
_ENDS_SOON_S = 12 * 3600.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``status``."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", nargs="?", type=Path)
    parser.add_argument("--json", action="store_true", help="everything, for programs")
    options.add_to(parser, "status")


def run(args: argparse.Namespace) -> int:
    """Ask every mount of this user, and show what the dead ones left."""
    from xnatfs.fuse import control, mounts

    state_folder = choose(args, os.environ, needs_server=False).settings.state_folder
    found = control.records(state_folder)
    if args.mountpoint is not None:
        place = str(mounts.absolute(args.mountpoint))
        found = [record for record in found if record.seen and record.mountpoint == place]
        if not found:
            raise NotFound(f"{args.mountpoint}: nothing is mounted here by xnatfs")
    rows = [asked(record) for record in found]
    logins = [] if args.mountpoint is not None else stored_logins(state_folder)
    if args.json:
        told = [
            {"server": server, "user": login.name, "expires": login.expires}
            for server, login in logins
        ]
        print(json.dumps({"mounts": rows, "logins": told}, indent=1))
        return OK
    if not rows:
        print("nothing is mounted")
    for row in rows:
        _print(row)
    for server, login in logins:
        print(f"stored login: {server} as {login.name}: {expiry_text(login.expires)}")
    return OK


def asked(record: Any) -> dict[str, Any]:
    """A record and what its mount says; ``state``: live, hangs, ended, dead or elsewhere."""
    from xnatfs.fuse import control

    row: dict[str, Any] = {**asdict(record), "state": "live", "status": {}}
    if not record.here:
        return row | {"state": "elsewhere"}
    if record.ended:
        return row | {"state": "ended"}
    try:
        for reply in control.ask(record, {"verb": "status"}):
            row["status"] = row["status"] or reply.get("status", {})
    except ServerProblem:
        return row | {"state": "dead"}
    except WaitEnded:
        return row | {"state": "hangs"}
    return row


def _print(row: dict[str, Any]) -> None:
    says = {
        "live": f"mounted for {age_text(time.time() - row['started'])}",
        "hangs": f"process {row['pid']} does not answer",
        "ended": "unmounted",
        "dead": f"dead: its process {row['pid']} is gone; `xnatfs umount` or a mount cleans up",
        "elsewhere": f"on {row['host']}",
    }
    whose = " (of `xnatfs run`)" if row["for_command"] else ""
    print(f"{row['mountpoint']}{whose}: {row['server']} as {row['user']}, {says[row['state']]}")
    status = row["status"]
    uploads = status.get("uploads", {})
    pending = uploads.get("pending", row["pending"])
    failures = status.get("read_failures", row["read_failures"])
    if store := status.get("store"):
        asked = store.get("hits", 0) + store.get("misses", 0)
        rate = f" ({store['hits'] / asked:.0%} of what was asked for)" if asked else ""
        print(f"  store: {_numbers(store)}{rate}")
    if downloads := status.get("downloads"):
        print(f"  downloads: {_numbers(downloads)}")
    if status:
        files = count_text(uploads.get("sent_files", 0), "file")
        print(f"  uploads: {files} sent ({bytes_text(uploads.get('sent_bytes', 0))})")
    for upload in pending:
        print(f"  not on the server: {upload.get('path')} {upload.get('error') or ''}".rstrip())
    for failure in failures:
        print(f"  could not be read: {failure.get('path')} {failure.get('reason') or ''}".rstrip())
    if refused := status.get("login", {}).get("refused"):
        print(f"  login: {refused}")
    elif (ends := status.get("login", {}).get("expires")) and ends < time.time() + _ENDS_SOON_S:
        print(f"  login: {expiry_text(ends)}")
    if row["log"]:
        print(f"  log: {row['log']}")


def _numbers(cells: dict[str, Any]) -> str:
    """``used 1.2 GB, files 17``: whatever a part of the mount counts."""
    texts = []
    for name, value in cells.items():
        is_bytes = "byte" in name or name in ("fetched", "served")
        shown = bytes_text(int(value)) if is_bytes and isinstance(value, int) else str(value)
        texts.append(f"{name.replace('_', ' ')} {shown}")
    return ", ".join(texts)
