"""Replies: from bytes of the server to checked rows.

A listing is accepted only when it is one: HTML, an empty body, another shape or rows of another
parent are ``BadReply`` (R§1.4, R§2.1, R§6). Every cell is text.
"""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable, Mapping
from sys import intern
from typing import Any, TypeVar

from xnatfs.errors import BadReply
from xnatfs.model.entities import RemoteFile

Row = TypeVar("Row")

# One row as the server has it: column → text.
Cells = dict[str, str]

# What the objects around rows have, and rows never (R§2.1).
_ENVELOPE = frozenset({"ResultSet", "Result", "key"})

_HEADING = re.compile(rb"<h[13][^>]*>(.*?)</h[13]>", re.IGNORECASE | re.DOTALL)
_TITLE = re.compile(rb"<title[^>]*>(.*?)</title>", re.IGNORECASE | re.DOTALL)
_TAGS = re.compile(r"<[^>]+>")
_DIGEST = re.compile(r"[0-9a-f]{32}")
_SIZE = re.compile(r"[0-9]{1,18}")
_PLACE = re.compile(r"/resources/([0-9]+)/files/")
_USER = re.compile(r"User '(?P<name>[^<']+)' is logged in")
_GUEST = re.compile(r"Logged in as:[^G]*<span[^>]*>\s*Guest", re.IGNORECASE)

# Longer server texts are cut in messages; a whole error page in a log helps nobody.
_SAID_MAX = 200


def is_html(content_type: str, body: bytes) -> bool:
    """Whether a reply is a web page, by its header or its first bytes."""
    if "html" in content_type.lower():
        return True
    start = body[:64].lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html"))


def said(body: bytes) -> str:
    """The server's own words in an error body: Restlet's ``<h3>``, a title, or plain text."""
    found = _HEADING.search(body) or _TITLE.search(body)
    raw = found[1] if found else (b"" if body[:512].lstrip().startswith(b"<") else body[:1000])
    text = html.unescape(_TAGS.sub(" ", raw.decode("utf-8", "replace")))
    return " ".join(text.split())[:_SAID_MAX]


def identity(body: bytes) -> str | None:
    """Who ``/data/auth`` says we are; None when it is no such answer (R§6)."""
    text = body.decode("utf-8", "replace")
    found = _USER.search(text)
    if found:
        return html.unescape(found["name"])
    return "guest" if _GUEST.search(text) else None


def duplicates(body: bytes) -> list[str]:
    """The paths that a file PUT did not store because they exist (R§4.5).

    Raises: BadReply when the body is a web page, which means that XNAT did not answer this.
    """
    text = body.strip()
    if not text:
        return []
    if text.startswith(b"<"):
        raise BadReply(f"a web page instead of an upload's answer: {said(body)}")
    try:
        answer = json.loads(text)
    except ValueError:
        return []
    listed = answer.get("duplicates") if isinstance(answer, dict) else None
    return [str(path) for path in listed] if isinstance(listed, list) else []


def rows(
    body: bytes, content_type: str, what: str, kind: type[Row], made: Callable[[Cells], Row]
) -> list[Row]:
    """The rows of a listing.

    Args:
        body: the whole body; freed as soon as it is read.
        content_type: its header.
        what: the address, for the text of errors.
        kind: what ``made`` makes.
        made: makes a row out of its cells, every one of them text, as it is come upon: the cells
            of a long listing take ten times the memory of what is made of them.

    Raises: BadReply, and what ``made`` raises.
    """
    if not body.strip():
        # R§2.1: a query that failed on the server is 200 with nothing in it.
        raise BadReply(f"{what}: the server answered with nothing instead of a listing")
    if is_html(content_type, body):
        raise BadReply(f"{what}: a web page instead of a listing: {said(body)}")

    def found(cells: dict[str, Any]) -> object:
        if not _ENVELOPE.isdisjoint(cells):
            return cells
        if not all(map(_is_text, cells.values())):
            cells = {key: _text(cell) for key, cell in cells.items()}
        return made(cells)

    try:
        text = body.decode()
        del body
        answer: Any = json.loads(text, object_hook=found)
    except ValueError as error:
        raise BadReply(f"{what}: not JSON where a listing was asked for") from error
    table = answer.get("ResultSet") if isinstance(answer, dict) else None
    listed = table.get("Result") if isinstance(table, dict) else None
    if not isinstance(listed, list) or not all(isinstance(row, kind) for row in listed):
        raise BadReply(f"{what}: JSON of another shape than a listing")
    return listed


def _is_text(cell: object) -> bool:
    return type(cell) is str


def _text(cell: object) -> str:
    if cell is None:
        return ""
    return cell if isinstance(cell, str) else json.dumps(cell, default=str)


def remote_file(row: Mapping[str, str], resource_id: str, owner: str, what: str) -> RemoteFile:
    """One row of a listing of files.

    Args:
        row: the row.
        resource_id: numeric id of the resource asked for; "" when many were asked for.
        owner: id of the resource's owner, as the server writes it; "" = not checked.
        what: the address, for the text of errors.

    Raises: BadReply when the row has no URI or belongs to something else (R§1.4).
    """
    uri = row.get("URI", "")
    wanted = resource_id or row.get("cat_ID", "")
    if wanted:
        before, marker, path = uri.partition(f"/resources/{wanted}/files/")
        found_id = wanted if marker else ""
    else:
        found = _PLACE.search(uri)
        before, path = (uri[: found.start()], uri[found.end() :]) if found else ("", "")
        found_id = found[1] if found else ""
    before = before.removesuffix("/out").removesuffix("/in")
    if (
        not found_id
        or not path
        or row.get("cat_ID", found_id) not in ("", found_id)
        or (owner and not before.endswith("/" + owner))
    ):
        raise BadReply(f"{what}: the listing has a file of something else: {uri or row}")
    size, digest = row.get("Size", ""), row.get("digest", "").lower()
    return RemoteFile(
        # A resource has many files and few of these.
        resource_id=intern(found_id),
        path=path,
        size=int(size) if _SIZE.fullmatch(size) else None,
        digest=digest if _DIGEST.fullmatch(digest) else "",
        format=intern(row.get("file_format", "")),
        content=intern(row.get("file_content", "")),
        tags=intern(row.get("file_tags", "")),
    )
