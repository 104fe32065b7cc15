"""Compare a local folder with the archive, by size and MD5, without a download.

xnatfs verify /scratch/in /projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1/scans/4

The folder may have the layout of `xnatfs get` from any level on. Files that are only here are
told and do not count.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from xnatfs import options
from xnatfs.cli import exits, moving
from xnatfs.cli.connecting import connected
from xnatfs.cli.places import parse
from xnatfs.cli.shown import count_text, printable
from xnatfs.transfer.compare import compare
from xnatfs.transfer.tally import Tally
from xnatfs.waiting import Waiter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``verify``."""
    parser.add_argument("local", metavar="LOCAL", type=Path)
    parser.add_argument("where", metavar="PATH", type=parse)
    moving.add_arguments(parser)
    options.add_to(parser, "verify")


def run(args: argparse.Namespace) -> int:
    """Compare; 1 if anything is missing or different."""
    tally = Tally()
    with connected(args, args.where.server) as (fs, chosen), moving.progress(tally, args) as line:
        waiter = Waiter(idle_s=chosen.settings.limits.io_timeout_s)
        found = compare(fs, args.local, args.where.path, tally, line.shown, waiter)
    if args.json:
        print(json.dumps(asdict(found), indent=1))
    else:
        for word in ("missing", "different", "extra"):
            for name in getattr(found, word):
                if word != "extra" or not args.quiet:
                    print(f"{word:<11}{printable(name)}")
        if not args.quiet:
            by_size = f", {found.by_size} of them by size only" if found.by_size else ""
            print(f"{count_text(found.same, 'file')} the same{by_size}")
    return exits.FAILED if found.missing or found.different else exits.OK
