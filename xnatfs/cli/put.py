"""Send local files to a resource, without FUSE; the resource is made if need be.

xnatfs put out/*.nii.gz …/scans/4/resources/NIFTI
xnatfs put -r results …/Haofei01_MR1/resources/RESULTS

What is there with the same content is not sent again. What does not arrive stays in the spool
(`xnatfs uploads`), and the exit status is 75.
"""

from __future__ import annotations

import argparse
import os
import sys
from dataclasses import replace
from pathlib import Path

from xnatfs import options
from xnatfs.cli import exits, moving
from xnatfs.cli.connecting import choose_for, connector, waiter_for
from xnatfs.cli.places import parse
from xnatfs.cli.shown import count_text
from xnatfs.transfer.put import Put, local_files, target_folder
from xnatfs.transfer.tally import Tally


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``put``."""
    parser.add_argument("files", metavar="FILE", nargs="+", type=Path)
    parser.add_argument(
        "where", metavar="PATH", type=parse,
        help="a resource (…/resources/NAME), or a folder below its files/; names stay as they are",
    )  # fmt: skip
    parser.add_argument("-r", "--recursive", action="store_true", help="folders, too")
    parser.add_argument(
        "--include", action="append", default=[], metavar="GLOB", help="of folders only such files"
    )
    parser.add_argument("--follow-links", action="store_true", help="send what links lead to")
    moving.add_arguments(parser)
    options.add_to(parser, "put")


def run(args: argparse.Namespace) -> int:
    """Send and check."""
    folder = target_folder(args.where.path)
    sources = local_files(
        args.files,
        recursive=args.recursive,
        include=args.include,
        follow_links=args.follow_links,
    )
    chosen = choose_for(args, os.environ, args.where.server).settings
    settings = replace(chosen, spool=replace(chosen.spool, write_back=True))
    tally = Tally()
    fs = connector(settings)(waiter_for(settings))
    try:
        with moving.progress(tally, args) as line:
            fs.adopt(waiter_for(settings))
            folder = Put(fs, settings, tally, line.shown).run(sources, folder)
        pending = fs.pending()
    finally:
        fs.close()
    code = moving.say(tally, args, f"in {folder}", pending=pending)
    if pending and not settings.offline:
        print(
            f"xnatfs: {count_text(len(pending), 'file')} did not arrive; "
            "the data is kept, see `xnatfs uploads`",
            file=sys.stderr,
        )
        return exits.NOT_ARRIVED
    return code
