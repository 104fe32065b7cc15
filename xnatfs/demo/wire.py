"""What goes over the wire, as values: queries, bodies, replies, and the refusal of a request.

Nothing here knows objects or rights.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from email.utils import formatdate
from functools import partial
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

Headers = tuple[tuple[str, str], ...]
PIECE = 1 << 20  # bytes moved at once


class BrokenTransferError(Exception):
    """The client went away before its request body was complete."""


class Refusal(Exception):
    """A request ends with this status; the message is the `<h3>` of Restlet's status page.

    `body` replaces the page, as XNAT does where it answers with a text of its own.
    """

    def __init__(self, status: int, message: str = "", body: bytes | None = None) -> None:
        super().__init__(status, message)
        self.status, self.message, self.body = status, message, body


class Body(Protocol):
    """The body of a request, read piece by piece from a worker thread."""

    @property
    def length(self) -> int | None:
        """Content-Length in bytes; None when the body is chunked."""

    def read(self, limit: int) -> bytes:
        """Up to `limit` bytes, b"" at the end. Raises BrokenTransferError."""


class Query:
    """The parameters of a URL (and of a form), in order, names may repeat."""

    def __init__(self, text: str = "") -> None:
        self.pairs = parse_qsl(text, keep_blank_values=True)

    def all(self, name: str) -> list[str]:
        """Every value of `name`, in order."""
        return [value for key, value in self.pairs if key == name]

    def get(self, name: str, default: str = "") -> str:
        """The first value of `name`."""
        return next(iter(self.all(name)), default)

    def has(self, name: str) -> bool:
        """Whether `name` occurs at all."""
        return bool(self.all(name))

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean of this interface: anything except `false` and `0` is true (R§1.3)."""
        return self.get(name).lower() not in ("false", "0") if self.has(name) else default

    def words(self, name: str) -> list[str]:
        """A comma list as its non-empty items."""
        return [word for word in self.get(name).split(",") if word]


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes of a file: `count` from `start` on, as far as the file has them.

    `source` is its place on disk, or what gives its bytes by start and count.
    """

    source: Path | Callable[[int, int], bytes]
    start: int
    count: int
    size: int
    mtime: float

    @classmethod
    def of(cls, place: Path) -> FileSlice:
        """A whole file on disk."""
        state = place.stat()
        return cls(place, 0, state.st_size, state.st_size, state.st_mtime)

    def pieces(self, step: int = PIECE // 2) -> Iterator[bytes]:
        """The bytes; if the file shrank meanwhile, OSError breaks them off."""
        end = self.start + self.count
        if isinstance(self.source, Path):
            with self.source.open("rb", buffering=0) as stream:
                stream.seek(self.start)
                for at in range(self.start, end, step):
                    yield from _exactly(stream.read, min(step, end - at))
        else:
            for at in range(self.start, end, step):
                yield self.source(at, min(step, end - at))


def _exactly(read: Callable[[int], bytes], count: int) -> Iterator[bytes]:
    while count:
        piece = read(count)
        if not piece:
            raise OSError("the file became shorter while it was sent")
        count -= len(piece)
        yield piece


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer.

    `streamed` bodies have no known length: they go out chunked, and a Range on them has the
    effects of R§3.2. `announced` is a Content-Length that differs from what is sent.
    """

    status: int = 200
    headers: Headers = ()
    body: bytes | FileSlice | Iterator[bytes] = b""
    media_type: str = ""
    streamed: bool = False
    announced: int | None = None

    def adding(self, *headers: tuple[str, str]) -> Reply:
        """The same reply with more headers."""
        return replace(self, headers=self.headers + headers)


def text(body: str, *, status: int = 200, media_type: str = "text/plain") -> Reply:
    """A short reply of known length."""
    return Reply(status, body=body.encode(), media_type=media_type)


def document(body: str | bytes, media_type: str) -> Reply:
    """A generated document; its length is not announced (R§2.1)."""
    content = body.encode() if isinstance(body, str) else body
    return Reply(body=content, media_type=media_type, streamed=True)


http_date = partial(formatdate, usegmt=True)

# What Restlet 1.1 says for a status without a message of its own, where it is not HTTP's phrase.
_PHRASES = {
    400: "The request could not be understood by the server due to malformed syntax",
    401: "The request requires user authentication",
    403: "The server understood the request, but is refusing to fulfill it",
    404: "The server has not found anything matching the request URI",
    405: "The method specified in the request is not allowed for the resource identified by the "
    "request URI",
    406: "The resource identified by the request is only capable of generating response entities "
    "which have content characteristics not acceptable according to the accept headers sent in "
    "the request",
    409: "The request could not be completed due to a conflict with the current state of the "
    "resource",
    500: "The server encountered an unexpected condition which prevented it from fulfilling the "
    "request",
    501: "The server does not support the functionality required to fulfill the request",
}


def _status_page(status: int, message: str) -> bytes:
    """Restlet's error page, byte for byte as recorded; the message stands in its `<h3>`."""
    chapter = {4: f"sec10.4.{status - 399}", 5: f"sec10.5.{status - 499}"}
    anchor = chapter.get(status // 100, "sec10")
    return (
        "<html>\n<head>\n   <title>Status page</title>\n</head>\n<body>\n"
        f"<h3>{message or _PHRASES.get(status) or HTTPStatus(status).phrase}</h3>"
        "<p>You can get technical details "
        f'<a href="http://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html#{anchor}">here</a>.<br>\n'
        'Please continue your visit at our <a href="/">home page</a>.\n'
        "</p>\n</body>\n</html>\n"
    ).encode()


def refused(refusal: Refusal) -> Reply:
    """The reply that a refused request gets from Restlet."""
    if refusal.body is not None:
        return Reply(refusal.status, body=refusal.body, media_type="text/plain")
    page = b"" if refusal.status == 204 else _status_page(refusal.status, refusal.message)
    return Reply(refusal.status, body=page, media_type="text/html")


def container_reply(status: int, title: str = "", headers: Headers = ()) -> Reply:
    """The servlet container's error page: what a client gets from in front of XNAT (R§8)."""
    heading = f"HTTP Status {status} – {title or HTTPStatus(status).phrase}"
    page = (
        f'<!doctype html><html lang="en"><head><title>{heading}</title></head>'
        f'<body><h1>{heading}</h1><hr class="line" /><h3>Apache Tomcat/9.0.87</h3></body></html>'
    )
    return Reply(status, headers, page.encode(), "text/html;charset=utf-8")
