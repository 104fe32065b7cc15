"""Find scans of a project: the manifest of a job array, or what is still to be done.

xnatfs find PVT000 --type '*T1*' --quality usable --missing NIFTI > scans.txt

Prints the path of each scan that meets all conditions; with --sessions that of each session that
holds one. The whole project is asked for in one request, however many sessions it has.
"""

from __future__ import annotations

import argparse
import sys
from fnmatch import fnmatchcase

from xnatfs import options
from xnatfs.cli.connecting import connected, waiter_for
from xnatfs.cli.exits import OK
from xnatfs.cli.places import parse
from xnatfs.cli.shown import printable
from xnatfs.fs.search import FoundScan

_COLUMNS = (
    "path", "subject", "session", "accession", "date", "scan", "type", "quality", "description",
    "resources",
)  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``find``."""
    parser.add_argument(
        "project", metavar="PROJECT", help="its id, its path, or its address in the browser"
    )
    parser.add_argument(
        "--type", metavar="GLOB", help="scans of this type (as in the browser); * and ? stand in"
    )
    parser.add_argument(
        "--quality", metavar="QUALITY", help="scans of this quality; several: usable,questionable"
    )
    parser.add_argument("--missing", metavar="RESOURCE", help="scans without this resource")
    parser.add_argument(
        "--sessions", action="store_true", help="the sessions of those scans, each once"
    )
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--tsv", action="store_true", help="a table, columns divided by tabs")
    form.add_argument("-0", "--null", action="store_true", help="end each path with a NUL byte")
    options.add_to(parser, "find")


def run(args: argparse.Namespace) -> int:
    """Print what was found, one line each."""
    place = parse(args.project)
    path = place.path if place.path.count("/") > 1 else f"/projects{place.path}"
    with connected(args, place.server) as (fs, chosen):
        found = fs.search.scans(path, waiter_for(chosen.settings))
    wanted = [scan for scan in found if _meets(scan, args)]
    if args.tsv:
        print("\t".join(_COLUMNS))
        for scan in wanted:
            print("\t".join(map(printable, _cells(scan))))
        return OK
    paths = [scan.session.path if args.sessions else scan.path for scan in wanted]
    end = "\0" if args.null else "\n"
    sys.stdout.write("".join(f"{path}{end}" for path in dict.fromkeys(paths)))
    return OK


def _meets(scan: FoundScan, args: argparse.Namespace) -> bool:
    return (
        (args.type is None or fnmatchcase(scan.type, args.type))
        and (args.quality is None or scan.quality in args.quality.split(","))
        and (args.missing is None or args.missing not in scan.resources)
    )


def _cells(scan: FoundScan) -> tuple[str, ...]:
    session = scan.session
    return (
        scan.path, session.subject, session.label, session.accession, session.date, scan.id,
        scan.type, scan.quality, scan.description, ",".join(scan.resources),
    )  # fmt: skip
