"""Fill the store and its listings with everything below PATH, for mounts with --offline.

xnatfs prefetch /projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1 --resource DICOM

What is there already is not fetched again: after an interruption the same command goes on.
"""

from __future__ import annotations

import argparse

from xnatfs import options
from xnatfs.cli import moving
from xnatfs.cli.connecting import connected
from xnatfs.cli.places import parse
from xnatfs.transfer.prefetch import Prefetch
from xnatfs.transfer.tally import Tally


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``prefetch``."""
    parser.add_argument("where", metavar="PATH", nargs="+", type=parse)
    parser.add_argument(
        "--resource",
        action="append",
        default=[],
        metavar="LABEL",
        help="only the files of these resources (* and ? stand in); listed is everything",
    )
    moving.add_arguments(parser)
    options.add_to(parser, "prefetch")


def run(args: argparse.Namespace) -> int:
    """List and fetch."""
    server = moving.one_server({place.server for place in args.where})
    tally = Tally()
    with connected(args, server) as (fs, chosen), moving.progress(tally, args) as line:
        Prefetch(fs, chosen.settings, tally, line.shown).run(
            [place.path for place in args.where], args.resource
        )
        fetched = fs.status()["downloads"]["fetched"]
    return moving.say(tally, args, "in the store", fetched=fetched)
