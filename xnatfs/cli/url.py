"""Print the address of what PATH means: of the REST interface, or (--page) in the browser."""

from __future__ import annotations

import argparse

from xnatfs import options
from xnatfs.cli.connecting import connected, waiter_for
from xnatfs.cli.exits import OK
from xnatfs.cli.places import parse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``url``."""
    parser.add_argument("where", metavar="PATH", type=parse)
    parser.add_argument("--page", action="store_true", help="the page that a browser shows")
    options.add_to(parser, "url")


def run(args: argparse.Namespace) -> int:
    """Print it."""
    with connected(args, args.where.server) as (fs, chosen):
        waiter = waiter_for(chosen.settings)
        inside = fs.search.address(args.where.path, waiter, page=args.page)
    print(f"{chosen.settings.server.url}{inside}")
    return OK
