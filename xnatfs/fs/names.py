"""What a name tells of its file: real, temporary, or one that never leaves this machine.

Programs write under a temporary name and rename; desktops look for their own files everywhere.
The table is the whole knowledge; ``files`` and ``filesystem`` ask it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum


class NameClass(Enum):
    """What a name tells."""

    # Belongs on the server.
    REAL = "real"
    # Stays local until it is renamed to a real name.
    TEMPORARY = "temporary"
    # Never leaves the machine; a look-up is answered without a request.
    LOCAL = "local"
    # An open file that was removed: the kernel's library renames it to this.
    REMOVED = "removed"


@dataclass(frozen=True, slots=True)
class _Pattern:
    pattern: re.Pattern[str]
    name_class: NameClass
    # Counts only for files made as mkstemp(3) makes them: O_EXCL and mode 0600.
    made_by_mkstemp: bool = False


_PATTERNS: tuple[_Pattern, ...] = (
    _Pattern(re.compile(r"\.fuse_hidden[0-9a-f]+"), NameClass.REMOVED),
    # Desktops, indexers, macOS.
    _Pattern(
        re.compile(
            r"\.DS_Store|\._.*|\.Trash.*|\.xdg-volume-info|\.hidden|autorun\.inf"
            r"|desktop\.ini|Thumbs\.db"
        ),
        NameClass.LOCAL,
    ),
    # NFS clients' own leftovers; editors' swap, probe and backup files (vim, emacs, nano).
    _Pattern(re.compile(r"\.nfs[0-9a-f]+|\..*\.sw[a-p]x?|4913|.+~"), NameClass.TEMPORARY),
    # rsync: ".name.XXXXXX".
    _Pattern(re.compile(r"\..+\.[A-Za-z0-9]{6}"), NameClass.TEMPORARY, made_by_mkstemp=True),
    # sed -i: "sedXXXXXX"; mkstemp of Python: "tmpXXXXXXXX".
    _Pattern(
        re.compile(r"sed[A-Za-z0-9]{6}|tmp[a-z0-9_]{8}.*"),
        NameClass.TEMPORARY,
        made_by_mkstemp=True,
    ),
)


def classify(name: str, *, made_by_mkstemp: bool = False) -> NameClass:
    """What ``name`` (one part of a path) tells.

    Args:
        name: the file name.
        made_by_mkstemp: the file is being created with O_EXCL and mode 0600.
    """
    for row in _PATTERNS:
        if row.made_by_mkstemp and not made_by_mkstemp:
            continue
        if row.pattern.fullmatch(name):
            return row.name_class
    return NameClass.REAL
