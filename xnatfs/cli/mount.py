"""Mount an archive as a folder; returns when it is ready.

xnatfs mount https://xnat.example.edu ~/xnat
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from xnatfs import logs, options
from xnatfs.cli import parting
from xnatfs.cli.exits import OK
from xnatfs.configuration import choose
from xnatfs.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``mount``."""
    parser.usage = "xnatfs mount [SERVER] MOUNTPOINT [options] [-o OPT[=VALUE],…]"
    parser.add_argument("places", nargs="+", metavar="[SERVER] MOUNTPOINT")
    parser.add_argument(
        "-o", action="append", metavar="OPTS", help="the options below, as in /etc/fstab"
    )
    options.add_to(parser, "mount")


def run(args: argparse.Namespace) -> int:
    """Check, log in, mount."""
    if len(args.places) > 2:
        raise UsageError("mount takes a server and a mount point")
    *server, mountpoint = args.places
    if server:
        if getattr(args, "server", server[0]) != server[0]:
            raise UsageError("two servers are given")
        args.server = server[0]
    chosen = choose(args, os.environ)

    # After the options, so that a wrong one is told without libfuse too.
    from xnatfs.cli.connecting import connector
    from xnatfs.fuse import mounting
    from xnatfs.fuse.serving import Plan

    settings = chosen.settings
    foreground = bool(chosen.own.get("foreground"))
    allow_other = bool(chosen.own.get("allow_other"))
    place = mounting.check(Path(mountpoint), allow_other=allow_other)
    log_file = chosen.own.get("log_file")
    level = chosen.log_level or ("info", "debug")[args.verbose > 0]
    connect = connector(settings, str(place))
    log_file = log_file or (
        None if foreground else mounting.default_log(settings.state_folder, place)
    )
    plan = Plan(
        place, allow_other, foreground, log_file, level, chosen.own.get("metrics_file")
    )  # fmt: skip
    if foreground:
        logs.set_up(level, log_file)
        mounting.in_foreground(connect, settings, replace(plan, farewell=parting.say_farewell))
    user = mounting.in_background(connect, settings, plan)
    if args.verbose or (sys.stdout.isatty() and not args.quiet):
        print(f"{settings.server.url} is mounted at {place} for {user} (log: {log_file})")
    return OK
