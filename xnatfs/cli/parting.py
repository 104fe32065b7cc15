"""What is said when a mount ends: what arrived, what did not, what could not be read."""

from __future__ import annotations

import sys

from xnatfs.cli.exits import NOT_ARRIVED, OK, READS_FAILED
from xnatfs.cli.shown import bytes_text, count_text
from xnatfs.fuse.farewell import Farewell

# More names than this are of no use on a terminal.
_NAMES_SHOWN = 10


def say_farewell(last: Farewell, *, quiet: bool = False) -> int:
    """Print it, and return the exit code: 75 before 74, because data of ours is at stake."""
    if last.sent_files and not quiet:
        print(f"{count_text(last.sent_files, 'file')} arrived ({bytes_text(last.sent_bytes)})")
    sys.stdout.flush()
    if last.refused:
        tell(last.refused)
    if last.pending and last.offline:
        size = bytes_text(sum(int(row.get("size", 0)) for row in last.pending))
        tell(
            f"{count_text(len(last.pending), 'file')} ({size}) in the spool: "
            "`xnatfs uploads send` sends them where there is a network"
        )
    elif last.pending:
        files = count_text(len(last.pending), "file")
        tell(f"{files} did not arrive; the data is kept, see `xnatfs uploads`:")
        _list([(str(row.get("path", "?")), str(row.get("error", ""))) for row in last.pending])
    if last.read_failures:
        files = count_text(len(last.read_failures), "file")
        tell(f"{files} could not be read:")
        _list([(str(row["path"]), str(row["reason"])) for row in last.read_failures])
    if last.pending and not last.offline:
        return NOT_ARRIVED
    return READS_FAILED if last.read_failures else OK


def tell(text: str) -> None:
    """One line for a person."""
    print(f"xnatfs: {text}", file=sys.stderr)


def _list(rows: list[tuple[str, str]]) -> None:
    for path, reason in rows[:_NAMES_SHOWN]:
        print(f"  {path}" + (f": {reason}" if reason else ""), file=sys.stderr)
    if len(rows) > _NAMES_SHOWN:
        print(f"  … and {len(rows) - _NAMES_SHOWN} more", file=sys.stderr)


class Progress:
    """The line that tells how many files are still to come; gone at the end of its block.

    Args:
        wanted: whether somebody looks.
    """

    def __init__(self, *, wanted: bool) -> None:
        self._wanted = wanted
        self._shown = False

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_error: object) -> None:
        if self._shown:
            print("\r\033[K", end="", file=sys.stderr, flush=True)

    def update(self, pending: int) -> None:
        """Show a number."""
        if self._wanted and pending:
            text = count_text(pending, "upload")
            print(f"\r\033[Kwaiting for {text}", end="", file=sys.stderr, flush=True)
            self._shown = True
