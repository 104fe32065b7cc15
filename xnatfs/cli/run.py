"""Mount for one command only: privately, until it ends and its data has arrived.

xnatfs run -s https://xnat.example.edu --cd /projects/PVT000 -- ls
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from xnatfs import options
from xnatfs.cli.connecting import choose_for
from xnatfs.cli.exits import COMMAND_FAILED, NOT_ARRIVED
from xnatfs.cli.places import parse
from xnatfs.errors import UsageError

if TYPE_CHECKING:
    from xnatfs.fuse.running import Outcome


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``run``."""
    parser.usage = "xnatfs run [--at DIR] [--cd ARCHIVEPATH] [options] -- COMMAND [ARGUMENT…]"
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND")
    parser.add_argument(
        "--at", metavar="DIR", type=Path,
        help="mount at this empty folder (a place of its own, in $XNATFS_MOUNT)",
    )  # fmt: skip
    parser.add_argument(
        "--cd", metavar="ARCHIVEPATH",
        help="where in the archive the command starts: a path, a session's accession, or an "
        "address from the browser (where you are)",
    )  # fmt: skip
    options.add_to(parser, "run")


def run(args: argparse.Namespace) -> int:
    """Mount, run, send; the status is the command's, if that is 0 the mount's."""
    words = args.command[1:] if args.command[:1] == ["--"] else args.command
    if not words:
        raise UsageError("run needs a command: xnatfs run [options] -- COMMAND")
    folder = None if args.cd is None else parse(args.cd)
    chosen = choose_for(args, os.environ, folder.server if folder else "")

    # After the options, so that a wrong one is told without libfuse too.
    from xnatfs.cli.connecting import connector_at
    from xnatfs.cli.parting import Progress
    from xnatfs.fuse import mounting, running
    from xnatfs.fuse.serving import Plan

    # All is sent before the command's end is told: there is no need to wait at every close.
    spool = replace(chosen.settings.spool, write_back=True)
    settings = replace(chosen.settings, spool=spool)
    connect_at = connector_at(settings)
    log_file = chosen.own.get("log_file") or mounting.default_log(
        settings.state_folder, Path(f"run-{socket.gethostname()}")
    )
    plan = Plan(
        Path(), bool(chosen.own.get("allow_other")), log_file=log_file,
        log_level=chosen.log_level or ("info", "debug")[args.verbose > 0],
        metrics_file=chosen.own.get("metrics_file"),
    )  # fmt: skip
    with Progress(wanted=sys.stderr.isatty() and not args.quiet) as shown:
        outcome = running.run(
            lambda place: connect_at(str(place)),
            settings,
            running.Errand(words, folder.path if folder else None, args.at, plan),
            shown.update,
        )
    code = _report(outcome)
    if outcome.status is not None and os.WIFSIGNALED(outcome.status):
        running.die_by(os.WTERMSIG(outcome.status))
    return code


def _report(outcome: Outcome) -> int:
    """Say what went wrong; the exit status."""
    from xnatfs.cli.parting import say_farewell, tell

    if outcome.refusal:
        tell(outcome.refusal.message)
        return outcome.refusal.status
    for pid, name in outcome.left:
        tell(f"{name} (process {pid}) still runs; it has no mount any more")
    if outcome.last is None:
        tell("the process of the mount was killed; see `xnatfs uploads` for what has not arrived")
        code = COMMAND_FAILED if outcome.status is None else NOT_ARRIVED
    else:
        code = say_farewell(outcome.last, quiet=True)
    if outcome.status is None:
        return code or COMMAND_FAILED
    return os.waitstatus_to_exitcode(outcome.status) or code
