"""Unmount; waits until everything has arrived, and says what did not."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from xnatfs import options
from xnatfs.configuration import choose
from xnatfs.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``umount``."""
    parser.add_argument("mountpoint", metavar="MOUNTPOINT", type=Path)
    parser.add_argument(
        "--wait", metavar="TIME", help="how long uploads may go on first (until they are done)"
    )
    options.add_to(parser, "umount")


def run(args: argparse.Namespace) -> int:
    """Drain, unmount, report."""
    from xnatfs.cli.parting import Progress, say_farewell
    from xnatfs.fuse.unmounting import unmount

    try:
        wait_s = None if args.wait is None else options.duration(args.wait)
    except ValueError as error:
        raise UsageError(f"--wait: {error}") from error
    state_folder = choose(args, os.environ, needs_server=False).settings.state_folder
    with Progress(wanted=sys.stderr.isatty() and not args.quiet) as shown:
        last = unmount(args.mountpoint, state_folder, wait_s=wait_s, progress=shown.update)
    return say_farewell(last, quiet=args.quiet)
