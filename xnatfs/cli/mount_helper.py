"""``mount.xnatfs``: how mount(8) calls us for ``mount -t xnatfs`` and lines of /etc/fstab.

mount.xnatfs SERVER MOUNTPOINT [-sfnv] [-N NAMESPACE] [-o OPTIONS] [-t TYPE]
"""

from __future__ import annotations

import getopt
import sys
from collections.abc import Sequence

from xnatfs import cli
from xnatfs.cli import exits
from xnatfs.errors import UsageError
from xnatfs.options import mount_words

# mount(8), "EXIT STATUS".
_WRONG_USE, _INTERRUPTED, _FAILED = 1, 8, 32


def main(argv: Sequence[str] | None = None) -> int:
    """Mount, and return what mount(8) understands; the line on stderr says more."""
    try:
        words = _translated(sys.argv[1:] if argv is None else argv)
    except UsageError as error:
        print(f"xnatfs: {error}", file=sys.stderr)
        return _WRONG_USE
    code = cli.main(words) if words else exits.OK
    table = {exits.OK: 0, exits.USAGE: _WRONG_USE, exits.INTERRUPTED: _INTERRUPTED}
    return table.get(code, _FAILED)


def _translated(argv: Sequence[str]) -> list[str]:
    """Our own words for those of mount(8); none where it only wants to know."""
    try:
        flags, places = getopt.gnu_getopt(list(argv), "sfnvN:o:t:")
    except getopt.GetoptError as error:
        raise UsageError(f"mount.xnatfs: {error.msg}") from error
    if len(places) != 2:
        raise UsageError("mount.xnatfs takes a server and a mount point")
    given = dict(flags)
    if "-N" in given:
        raise UsageError("mount.xnatfs: mounting in another namespace (-N) is not supported")
    texts = [value for flag, value in flags if flag == "-o"]
    if "-s" in given:
        texts.append("sloppy")
    options = ",".join(texts)
    mount_words(options)
    if "-f" in given:
        return []
    return ["mount", *places, *(["-o", options] if options else []), *["-v"] * ("-v" in given)]
