"""Range and conditional requests with the sharp edges of Restlet 1.1 (R§3.1, R§3.2).

Ranges are never clamped and never refused with 416: what was asked is announced, what exists is
sent.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime

from xnatfs.demo.wire import FileSlice, Refusal, Reply, http_date

_RANGE = re.compile(r"bytes=(\d*)-(\d*)$")


def conditional(headers: Mapping[str, str], reply: Reply) -> Reply:
    """304 or 412 where the request has a condition on a file's mtime (whole seconds)."""
    if not isinstance(reply.body, FileSlice) or reply.status != 200:
        return reply
    if headers.get("if-match", "*").strip() != "*":
        raise Refusal(412)
    changed = int(reply.body.mtime)
    since = _moment(headers.get("if-modified-since", ""))
    if since is not None and changed <= since:
        return Reply(304, headers=(("Last-Modified", http_date(changed)),))
    until = _moment(headers.get("if-unmodified-since", ""))
    if until is not None and changed > until:
        raise Refusal(412)
    return reply


def _moment(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp() if text else None
    except ValueError:
        return None


def ranged(headers: Mapping[str, str], reply: Reply) -> Reply:
    """The part of a reply that `Range` asks for. Raises Refusal 500 or 501."""
    wish = headers.get("range", "").strip()
    if not wish.startswith("bytes=") or reply.status != 200:
        return reply
    if "," in wish:
        raise Refusal(501)
    match = _RANGE.match(wish)
    if match is None or match.groups() == ("", ""):
        return reply
    first, last = match.groups()
    if reply.streamed:
        if first and last:
            return reply
        raise Refusal(500)
    body = reply.body
    if not isinstance(body, bytes | FileSlice):
        return reply
    total = body.size if isinstance(body, FileSlice) else len(body)
    start = int(first) if first else max(0, total - int(last))
    end = int(last) if first and last else total - 1
    available = max(0, min(end + 1, total) - start)
    part: bytes | FileSlice = (
        replace(body, start=start, count=available)
        if isinstance(body, FileSlice)
        else body[start : start + available]
    )
    found = replace(reply, status=206, body=part, announced=end - start + 1)
    return found.adding(("Content-Range", f"bytes {start}-{end}/{total}"))
