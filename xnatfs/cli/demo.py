"""A look-alike XNAT server, and the whole way through a job on it.

xnatfs demo              start it, mount it, convert a series, copy the result back, prove it
xnatfs demo --serve      the server alone, in the foreground
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from xnatfs import options
from xnatfs.cli.exits import OK
from xnatfs.errors import UsageError, XnatfsError


def amount(text: str) -> float:
    """A number above 0, of whatever the option counts in. Raises ValueError."""
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


@dataclass(frozen=True, slots=True)
class _Argument:
    """One argument of ``demo --serve``."""

    name: str
    # Text to value; None makes it a switch.
    parse: Callable[[str], Any] | None
    help: str
    # Name of the value in the help.
    shown: str = ""
    choices: tuple[str, ...] | None = None


_SERVING = (
    _Argument("port", int, "where it listens (a free one)", "N"),
    _Argument("root", Path, "keep the archive in this folder (a temporary one)", "DIR"),
    _Argument("sample", str, "what a new archive holds (full)", choices=("full", "small", "none")),
    _Argument("sessions", options.count, "a project with so many sessions besides, made when "
              "somebody looks at it", "N"),
    _Argument("scans", options.count, "with --sessions: scans in each (4)", "N"),
    _Argument("files", options.count, "with --sessions: files in each scan (100)", "N"),
    _Argument("file-size", options.size, "with --sessions: of each file (128K)", "SIZE"),
    _Argument("seed", options.number, "with --sessions: other bytes for another number (1)", "N"),
    _Argument("rtt-ms", amount, "a link in front of it, with this round-trip time", "MS"),
    _Argument("mbps", amount, "a link in front of it, with so many megabits a second", "N"),
    _Argument("entry-cost", amount, "what each entry of a catalog costs per request on it", "MS"),
    _Argument("faults", Path, "what goes wrong: a JSON list of rules", "FILE"),
    _Argument("request-log", Path, "a JSON line for each request", "FILE"),
    _Argument("context-path", str, "serve below this path, as in /xnat", "PATH"),
    _Argument("open-site", None, "let guests in"),
    _Argument("require-reason", None, "refuse changes without a reason"),
    _Argument("drift", None, "some catalogs of the sample disagree with the disk"),
)  # fmt: skip
# Arguments that are fields of ServerOptions, and those of an order.
_SITE = ("port", "sample", "request_log", "context_path", "open_site", "require_reason", "drift")
_ORDER = ("sessions", "scans", "files", "file_size", "seed")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``demo``."""
    parser.add_argument("--serve", action="store_true", help="only the server, until Ctrl-C")
    parser.add_argument("--case", type=Path, metavar="DIR",
                        help="work on a real session: a folder with scans/N_TYPE/DICOM/*.dcm",
                        )  # fmt: skip
    group = parser.add_argument_group("with --serve")
    for one in _SERVING:
        taken: dict[str, Any] = {"help": one.help, "default": argparse.SUPPRESS}
        if one.parse is None:
            taken["action"] = "store_true"
        else:
            taken |= {"type": one.parse, "metavar": one.shown or None, "choices": one.choices}
        group.add_argument(f"--{one.name}", **taken)
    options.add_to(parser, "demo")


def run(args: argparse.Namespace) -> int:
    """Serve, or walk through the job."""
    if args.case is not None and not args.case.is_dir():
        raise UsageError(f"--case: {args.case} is no folder")
    given = {key: value for key, value in vars(args).items() if key in _KEYS}
    if args.serve:
        return _serve(given, args.case)
    if given:
        raise UsageError(f"--{next(iter(given)).replace('_', '-')} belongs to --serve")
    from xnatfs.cli.walkthrough import walk

    walk(args.case)
    return OK


_KEYS = {one.name.replace("-", "_") for one in _SERVING}


def _serve(given: dict[str, Any], case: Path | None) -> int:
    try:
        from xnatfs.demo.order import Order
        from xnatfs.demo.serve import faults_in, serve
        from xnatfs.demo.server import ServerOptions
    except ImportError as error:
        raise XnatfsError(
            f"demo: the server needs {error.name}: pip install 'xnatfs[demo]'"
        ) from error
    ordered = {key: given[key] for key in _ORDER if key in given}
    if ordered and "sessions" not in ordered:
        raise UsageError(f"--{next(iter(ordered)).replace('_', '-')} belongs to --sessions")
    try:
        faults = faults_in(given["faults"]) if "faults" in given else []
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(f"--faults: {given['faults']}: {error}") from error
    with _folder(given.get("root")) as root:
        return serve(
            ServerOptions(
                root=root,
                order=Order(**ordered) if ordered else None,
                entry_cost_s=given.get("entry_cost", 0.0) / 1000,
                **{key: given[key] for key in _SITE if key in given},
            ),
            faults,
            rtt_s=given.get("rtt_ms", 0.0) / 1000,
            bytes_per_s=given.get("mbps", 0.0) * 1e6 / 8,
            prepare=None if case is None else _loader(case),
        )


@contextmanager
def _folder(root: Path | None) -> Iterator[Path]:
    """The archive's folder; without one a temporary one."""
    if root is not None:
        yield root
        return
    with TemporaryDirectory(prefix="xnatfs-demo-") as folder:
        yield Path(folder)


def _loader(case: Path) -> Callable[[str], None]:
    from xnatfs.cli.walkthrough import load_case

    return lambda url: load_case(url, case)
