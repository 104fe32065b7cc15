"""Forget what is known of the names at and below PATH: the next look asks the server.

xnatfs refresh ~/xnat/projects/PVT000      a path in a mount of yours
xnatfs refresh /projects/PVT000            a path of the archive: for all your mounts of it here
"""

from __future__ import annotations

import argparse
import os
from contextlib import suppress
from pathlib import Path

from xnatfs import options
from xnatfs.cli.connecting import connected, waiter_for
from xnatfs.cli.exits import OK
from xnatfs.cli.places import Place, parse
from xnatfs.configuration import choose
from xnatfs.errors import NotFound, ServerProblem, WaitEnded
from xnatfs.fuse import control, mounts


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``refresh``."""
    parser.add_argument("where", metavar="PATH")
    options.add_to(parser, "refresh")


def run(args: argparse.Namespace) -> int:
    """Tell the mounts, and outdate what processes share."""
    state_folder = choose(args, os.environ, needs_server=False).settings.state_folder
    live = [record for record in control.records(state_folder) if record.here and not record.ended]
    place = str(mounts.absolute(Path(args.where)))
    for record in live:
        if place == record.mountpoint or place.startswith(record.mountpoint + "/"):
            _tell(record, place.removeprefix(record.mountpoint) or "/")
            return OK
    _refresh_archive(args, parse(args.where), live)
    return OK


def _refresh_archive(args: argparse.Namespace, place: Place, live: list[control.Record]) -> None:
    with connected(args, place.server) as (fs, chosen):
        path = fs.search.resolve(place.path, waiter_for(chosen.settings))
        fs.refresh(path, waiter_for(chosen.settings))
        url = chosen.settings.server.url
    for record in live:
        if record.server == url:
            # A mount that is gone, or of another part of the archive, needs not know.
            with suppress(ServerProblem, WaitEnded, NotFound):
                _tell(record, path, of_archive=True)


def _tell(record: control.Record, path: str, *, of_archive: bool = False) -> None:
    for reply in control.ask(record, {"verb": "refresh", "path": path, "whole": of_archive}):
        if problem := reply.get("problem"):
            raise NotFound(str(problem))
