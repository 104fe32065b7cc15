"""Deletes: which address removes exactly one file of a resource.

XNAT deletes every entry whose path *starts with* the path sent (R§5.2): ``a.nii`` takes
``a.nii.gz`` along. A path that ends in ``*`` selects by a regular expression as well. Nothing
here asks the server; it plans, and refuses what it cannot plan safely.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xnatfs.errors import BadName, NotFound
from xnatfs.rest import addresses

# Characters that stand for themselves in a regular expression and in an address; the form
# decoder leaves them alone too. All others become ".".
_PLAIN = re.compile(r"[A-Za-z0-9_/-]")

# What the server's "." does not match (Java); Python's excludes only the first of them.
_LINE_ENDS = re.compile("[\n\r\x85\u2028\u2029]")

# Anchors the end; the server turns the star into ".*" (R§5.2).
_END = "$*"


def selector(path: str, keys: Sequence[str]) -> str:
    """The encoded path whose DELETE removes ``path`` and nothing else.

    Args:
        path: the file, as the listing has it.
        keys: the paths of all files of the resource.

    Raises: NotFound when it is not listed; BadName when no selector is exact.
    """
    count = keys.count(path)
    if count == 0:
        raise NotFound(f"{path!r}: not in the listing of its resource")
    if count > 1 or not path:
        raise BadName(f"{path!r}: the catalog has {count} such entries; not one can be deleted")
    exact = _plain_selector(path, keys)
    if exact is None:
        exact = _pattern_selector(path, keys)
    if exact is None:
        raise BadName(
            f"{path!r}: the server would delete other files with it, whose names are alike"
        )
    return exact


def _plain_selector(path: str, keys: Sequence[str]) -> str | None:
    """The path itself, when it arrives as it is and no other key starts with it."""
    encoded = addresses.literal(path)
    if encoded is None or path.endswith(("*", "/")) or not addresses.is_sendable("/" + encoded):
        return None
    # What the server makes of it, so that the check below is about what will be compared.
    arrives = addresses.as_stored(encoded)
    if arrives != path or sum(key.startswith(arrives) for key in keys) != 1:
        return None
    return encoded


def _pattern_selector(path: str, keys: Sequence[str]) -> str | None:
    """A regular expression that matches this key as a whole and no other."""
    if _LINE_ENDS.search(path):
        return None
    sent = "".join(char if _PLAIN.match(char) else "." for char in path) + _END
    if not addresses.is_sendable("/" + sent):
        return None
    pattern = re.compile(f"{sent[:-1]}.*", re.DOTALL)
    if [key for key in keys if pattern.fullmatch(key)] != [path]:
        return None
    # The server compares the sent text as a prefix too.
    if any(key.startswith(sent) for key in keys):
        return None
    return sent
