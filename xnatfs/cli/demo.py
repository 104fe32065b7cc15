"""A look-alike XNAT server, and the whole way through a job on it.

xnatfs demo              start it, mount it, convert a series, copy the result back, prove it
xnatfs demo --serve      the server alone, in the foreground
"""

from __future__ import annotations

import argparse
from pathlib import Path

from xnatfs.cli import options
from xnatfs.cli.exits import OK
from xnatfs.errors import UsageError, XnatfsError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``demo``."""
    parser.add_argument("--serve", action="store_true", help="only the server, until Ctrl-C")
    parser.add_argument("--port", type=int, default=0, help="with --serve: where it listens")
    parser.add_argument(
        "--root", type=Path, metavar="DIR", help="with --serve: keep the archive in this folder"
    )
    parser.add_argument(
        "--sample",
        choices=("full", "small", "none"),
        default="full",
        help="with --serve: what a new archive holds",
    )
    parser.add_argument(
        "--case",
        type=Path,
        metavar="DIR",
        help="work on a real session: a folder with scans/N_TYPE/DICOM/*.dcm",
    )
    options.add_to(parser, "demo")


def run(args: argparse.Namespace) -> int:
    """Serve, or walk through the job."""
    if args.serve:
        return _serve(args)
    if args.port or args.root:
        raise UsageError("--port and --root belong to --serve")
    if args.case is not None and not args.case.is_dir():
        raise UsageError(f"--case: {args.case} is no folder")
    from xnatfs.cli.walkthrough import walk

    walk(args.case)
    return OK


def _serve(args: argparse.Namespace) -> int:
    try:
        from xnatfs.demo.serve import serve
    except ImportError as error:
        raise XnatfsError(
            f"demo: the server needs {error.name}: pip install 'xnatfs[demo]'"
        ) from error
    return serve(args.root, args.port, sample=args.sample)
