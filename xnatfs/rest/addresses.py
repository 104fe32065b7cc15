"""Addresses: how names travel in a URL so that the server understands what was meant.

XNAT decodes parts of an address, some parts only sometimes, and a firewall before it refuses
others (R§1.1, R§3.3, R§4.2, R§12.4, R§12.9). This module knows those rules and nothing of HTTP:
it turns ids, labels and paths into percent-encoded text, or says why it cannot.
"""

from __future__ import annotations

import re
from urllib.parse import quote, unquote, unquote_plus

from xnatfs.errors import BadName
from xnatfs.model.levels import Level

# Arrive as they are, encoded or not: unreserved characters and sub-delimiters that neither the
# firewall nor the form decoder touches (R§4.2). "+" is not among them: it becomes a space when
# anything else in the path makes the server decode it.
_RAW = "!$&'()*,=:@~"
_RAW_ONLY = re.compile(r"[A-Za-z0-9._~!$&'()*,=:@/-]+")

# An escape that a server stores and finds as these three characters (somebody once sent "ä"
# encoded), and that no library on the way rewrites: upper case, not of an unreserved character,
# not of one that the firewall refuses.
_LITERAL_ESCAPE = re.compile(r"%(?:[89A-F][0-9A-F]|22|23|3C|3E|3F|5B|5D|5E|60|7B|7C|7D)")

_CONTROL = re.compile("[\x00-\x1f\x7f\ud800-\udfff]")
# Refused before XNAT sees them, encoded or not (R§4.2, the firewall).
_FIREWALLED = re.compile(r"[;\\]")
# A path through one of these is read as a look inside the archive (R§3.3).
_LOOK_INSIDE = re.compile(r"\.(?:zip|jar|rar|ear|gar|mrb)[!/]", re.IGNORECASE)
# Ids that mean something else where a scan is addressed (R§1.1), and the separator of ids.
_RESERVED_IDS = frozenset({"", "*", "ALL", "NULL"})
_UNSENDABLE = re.compile(r"%25|%2F|%5C|%3B|%2C|%2A|%00|//|/\.{1,2}(?=/|$)", re.IGNORECASE)

# A stock Tomcat takes 8 KB of headers with the request line (R§12.12); leave room for cookies.
ADDRESS_MAX = 6000
# A name on the server's disk; XNAT adds "_catalog.xml" and lock prefixes to labels.
SEGMENT_MAX = 255
LABEL_MAX = 200

_LABEL = re.compile(r"[A-Za-z0-9._~!$():=@+-]+")


def segment(id_: str) -> str:
    """Percent-encode an id (accession, scan id) as one segment of an address.

    Everything but unreserved characters is encoded, "/" is XNAT's ``[SLASH]`` (R§1.1). An id
    that cannot be addressed gets a form that ``check`` refuses, so that one odd scan does not
    spoil the listing it stands in.
    """
    if id_ in _RESERVED_IDS or id_ in (".", ".."):
        return "%00" + quote(id_, safe="")
    return quote(id_.replace("/", "[SLASH]"), safe="", errors="surrogatepass")


def object_address(level: Level, id_: str, parent: str) -> str:
    """The address of one object by the row of its level.

    Args:
        level: the row of the object's level.
        id_: its id, as the listing has it.
        parent: its parent's address, already encoded.
    """
    return level.address.replace("{parent}", parent).replace("{id}", segment(id_))


def new_address(level: Level, label: str, project: str, parent: str) -> str:
    """Where an object is made by PUT (R§5.3).

    Args:
        level: the row of its level.
        label: as ``check_new_object`` lets it pass.
        project: the project's address.
        parent: its parent's address.
    """
    filled = level.made_at.replace("{project}", project).replace("{parent}", parent)
    return filled.replace("{id}", segment(label))


def is_sendable(address: str) -> bool:
    """Whether ``check`` lets an address pass."""
    return not _UNSENDABLE.search(address) and len(address) <= ADDRESS_MAX


def check(address: str) -> None:
    """Refuse an address that would reach another object than meant, or none.

    Raises: BadName.
    """
    found = _UNSENDABLE.search(address)
    if found:
        raise BadName(
            f"{unquote(address)}: the server cannot address this "
            f"({_unsendable_reason(found[0].upper())})"
        )
    if len(address) > ADDRESS_MAX:
        raise BadName(f"{unquote(address)[:80]}…: the address is longer than servers accept")


def _unsendable_reason(text: str) -> str:
    reasons = {
        "%25": 'a "%"',
        "%2F": 'a "/"',
        "%5C": 'a "\\"',
        "%3B": 'a ";"',
        "%2C": 'a ",", which separates ids',
        "%2A": 'a "*", which means all',
        "%00": "a name that means something else there",
    }
    return reasons.get(text, "an empty or dotted part")


def check_path(path: str) -> None:
    """Refuse a path below ``files`` that no address can carry in any form.

    Raises: BadName, with the reason.
    """
    if not path or not all(path.split("/")):
        raise BadName(f"{path!r}: a file needs a name, and folders on its way too")
    if any(part in (".", "..") for part in path.split("/")):
        raise BadName(f"{path!r}: a part of the path is dots only")
    if _CONTROL.search(path):
        raise BadName(f"{path!r}: control characters or undecodable bytes in the name")
    found = _FIREWALLED.search(path)
    if found:
        raise BadName(f"{path!r}: the server refuses addresses with {found[0]!r}")
    if _LOOK_INSIDE.search(path):
        raise BadName(f"{path!r}: the server takes a folder named like an archive for that archive")


def literal(path: str) -> str | None:
    """Encode a path so that the server takes exactly this text for it, without decoding luck.

    The server decodes a path only when it holds ``%20`` or ``%2B``, upper case (R§4.2, R§12.9);
    otherwise escapes are taken literally. This is the form to store and to delete by.

    Returns:
        the encoded path, or None when no address arrives as this path.
    """
    if " " in path or "+" in path:
        return None if "%" in path else quote(path, safe=_RAW + "/")
    rest = _LITERAL_ESCAPE.sub("", path)
    return path if not rest or _RAW_ONLY.fullmatch(rest) else None


def readable(path: str) -> str:
    """Encode a path for GET and HEAD.

    Where ``literal`` has no form, the server looks the decoded name up as well (R§3.3).

    Raises: BadName when the path cannot be read through an address at all.
    """
    check_path(path)
    encoded = literal(path)
    if encoded is not None:
        return encoded
    if "%" in path:
        raise BadName(f'{path!r}: the server refuses addresses with "%"')
    return quote(path, safe=_RAW + "/")


def as_stored(encoded: str) -> str:
    """What the server makes of an encoded path of PUT or DELETE (R§4.2)."""
    if "%20" in encoded or "%2B" in encoded:
        return unquote_plus(encoded)
    return encoded


def check_new_file(path: str) -> None:
    """Refuse a path that can be stored but not be used, or that breaks the resource.

    Raises: BadName, with the reason.
    """
    readable(path)
    name = path.rsplit("/", 1)[-1]
    if name.endswith("_catalog.xml") or name.startswith(".~lock-"):
        raise BadName(f"{path!r}: XNAT keeps its own files under such names")
    if any(len(part.encode()) > SEGMENT_MAX for part in path.split("/")):
        raise BadName(f"{path!r}: a part of the path is longer than {SEGMENT_MAX} bytes")


def check_new_object(label: str) -> None:
    """Refuse a label of a new subject or session, or the id of a new scan, that may change.

    These are the characters of which XNAT makes no others (R§1.1, R§12.4).

    Raises: BadName, with the reason.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+", label) or label in _RESERVED_IDS:
        raise BadName(f"{label!r}: use letters, digits, '_', '-' for what is made in the archive")
    if len(label) > LABEL_MAX:
        raise BadName(f"{label[:40]!r}…: a label is at most {LABEL_MAX} characters")


def check_new_label(label: str) -> None:
    """Refuse a label of a new resource that would not come back as it was sent.

    A label reaches the server undecoded and XML-escaped (R§1.1), "," separates labels, digits
    only is taken for a database id, words of SQL need a space to hurt (R§4.4); what is left
    are the characters that need no encoding.

    Raises: BadName, with the reason.
    """
    if not label or label in (".", "..", "NULL"):
        raise BadName(f"{label!r}: not a label that XNAT can keep")
    if label.isdigit():
        raise BadName(f"{label!r}: XNAT takes a label of digits only for a database number")
    if not _LABEL.fullmatch(label):
        odd = sorted({char for char in label if not _LABEL.fullmatch(char)})
        raise BadName(
            f"{label!r}: XNAT cannot address a resource with {''.join(odd)!r} in its label; "
            "use letters, digits, '_', '-', '.'"
        )
    if len(label) > LABEL_MAX:
        raise BadName(f"{label[:40]!r}…: a label is at most {LABEL_MAX} characters")
