"""Get everything below PATH into a folder, without FUSE; in the layout of the archive's own zip.

xnatfs get /projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1/scans/4 /scratch/in

DEST is this folder if it is not given. What is there with the right content is not fetched again.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from xnatfs import options
from xnatfs.cli import moving
from xnatfs.cli.connecting import connected
from xnatfs.cli.places import Place, parse
from xnatfs.errors import UsageError
from xnatfs.transfer.get import Get
from xnatfs.transfer.tally import Tally

# What a path of an archive begins with; everything else at the end of the line is a local folder.
_IN_ARCHIVE = re.compile(r"/?(?:projects|experiments)(?:/|$)|.+_E\d{4,}(?:/|$)")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``get``."""
    parser.usage = "xnatfs get PATH… [DEST] [options]"
    parser.add_argument("where", metavar="PATH", nargs="+", help="and DEST, the last one")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--flat", action="store_true", help="all files directly in DEST")
    form.add_argument("--zip", action="store_true", help="DEST is a zip, not a folder")
    parser.add_argument(
        "--include", action="append", default=[], metavar="GLOB", help="only such files"
    )
    moving.add_arguments(parser)
    options.add_to(parser, "get")


def run(args: argparse.Namespace) -> int:
    """Fetch and check."""
    places, dest = _places_and_dest(args.where)
    if args.zip and dest.is_dir():
        raise UsageError("--zip needs the name of the zip as the last argument")
    if dest.suffix == ".zip" and not args.zip and not dest.is_dir():
        raise UsageError(f"{dest}: --zip makes a zip; for a folder of that name make it first")
    tally = Tally()
    paths = [place.path for place in places]
    server = moving.one_server({place.server for place in places})
    with connected(args, server) as (fs, chosen), moving.progress(tally, args) as line:
        get = Get(fs, chosen.settings, tally, line.shown)
        if args.zip:
            get.into_zip(paths, dest, flat=False, include=args.include)
        else:
            get.into_folder(paths, dest, flat=args.flat, include=args.include)
        fetched = fs.status()["downloads"]["fetched"]
    return moving.say(tally, args, f"in {dest}", fetched=fetched)


def _places_and_dest(words: list[str]) -> tuple[list[Place], Path]:
    *paths, last = words
    if not paths or "://" in last or (_IN_ARCHIVE.match(last) and not Path(last).exists()):
        return [parse(word) for word in words], Path()
    return [parse(word) for word in paths], Path(last)
