"""What the verbs that move files have in common: progress, the last word, the exit status."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from xnatfs.cli import exits
from xnatfs.cli.shown import bytes_text, count_text, printable
from xnatfs.errors import UsageError
from xnatfs.transfer.tally import Tally

# More names than this are of no use on a terminal.
_NAMES_SHOWN = 10


class Progress:
    """A line on a terminal: files, bytes, rate, time left. Elsewhere nothing.

    Threading: for the thread of the command.
    """

    def __init__(self, tally: Tally, args: argparse.Namespace) -> None:
        self._tally = tally
        self._bar: Any = None
        if sys.stderr.isatty() and not args.quiet:
            from tqdm import tqdm

            self._bar = tqdm(total=0, unit="B", unit_scale=True, file=sys.stderr, leave=False)

    def shown(self) -> None:
        """Show how far it is now."""
        if self._bar is None:
            return
        tally = self._tally
        self._bar.total = tally.bytes
        self._bar.n = min(max(tally.done_bytes, 0), tally.bytes)
        self._bar.set_postfix_str(f"{tally.done_files}/{tally.files} files", refresh=False)
        self._bar.refresh()

    def close(self) -> None:
        """Leave the line empty."""
        if self._bar is not None:
            self._bar.close()


@contextmanager
def progress(tally: Tally, args: argparse.Namespace) -> Iterator[Progress]:
    """Progress until the end of the block; says what to do when somebody presses Ctrl-C."""
    line = Progress(tally, args)
    try:
        yield line
    except KeyboardInterrupt:
        line.close()
        print(
            f"xnatfs: interrupted after {count_text(tally.done_files, 'file')}: "
            "the same command goes on from there",
            file=sys.stderr,
        )
        raise
    finally:
        line.close()


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of every such verb."""
    parser.add_argument("--json", action="store_true", help="a summary for programs")


def say(tally: Tally, args: argparse.Namespace, text: str, **more: object) -> int:
    """Say how it ended.

    Args:
        tally: of the transfer.
        args: of the command: ``json``, ``quiet``.
        text: what was done, after "192 files (25.1 MB)".
        more: for ``--json``.

    Returns: the exit status: that of the first failure, if any.
    """
    if args.json:
        print(json.dumps(tally.summary() | more, indent=1))
    elif not args.quiet:
        files = count_text(tally.done_files, "file")
        before = f", {tally.here_files} of them before" if tally.here_files else ""
        print(f"{files} ({bytes_text(max(tally.done_bytes, 0))}) {text}{before}")
    sys.stdout.flush()
    if not tally.failures:
        return exits.OK
    untried = f", {count_text(tally.untried, 'file')} not tried" if tally.untried else ""
    failed = count_text(len(tally.failures), "file")
    print(f"xnatfs: {failed} failed{untried}:", file=sys.stderr)
    for failure in tally.failures[:_NAMES_SHOWN]:
        print(f"  {printable(failure.path)}: {failure.error}", file=sys.stderr)
    if len(tally.failures) > _NAMES_SHOWN:
        print(f"  … and {len(tally.failures) - _NAMES_SHOWN} more", file=sys.stderr)
    return exits.code_of(tally.failures[0].error)


def one_server(servers: set[str]) -> str:
    """The server that web addresses among the arguments name; "" for none.

    Raises: UsageError: they name several.
    """
    named = servers - {""}
    if len(named) > 1:
        raise UsageError(f"addresses of several servers: {', '.join(sorted(named))}")
    return named.pop() if named else ""
