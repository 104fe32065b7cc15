"""What goes over the wire, as values: a request, a reply, and the refusal of a request.

The front (`server.py`) makes a `Request` of what aiohttp received and sends the `Reply`; all
rooms behind it only know these values. Nothing here knows objects, files or rights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from email.utils import formatdate
from http import HTTPStatus
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

from xnatfs.demo.users import GUEST, User

Headers = tuple[tuple[str, str], ...]


class BrokenTransferError(Exception):
    """The client went away before its request body was complete."""


class Refusal(Exception):
    """A request ends with this status; the message is the `<h3>` of Restlet's status page.

    `body` replaces the page, as XNAT does where it answers with a text of its own.
    """

    def __init__(self, status: int, message: str = "", body: bytes | None = None) -> None:
        super().__init__(status, message)
        self.status = status
        self.message = message
        self.body = body


class Body(Protocol):
    """The body of a request, read piece by piece from a worker thread."""

    @property
    def length(self) -> int | None:
        """Content-Length in bytes; None when the body is chunked."""

    def read(self, limit: int) -> bytes:
        """Up to `limit` bytes, b"" at the end. Raises BrokenTransferError."""


class NoBody:
    """The body of a request that has none."""

    length: int | None = 0

    def read(self, limit: int) -> bytes:  # noqa: ARG002 - the protocol's signature
        """Nothing."""
        return b""


class Query:
    """The parameters of a URL (and of a form), in order, names may repeat."""

    def __init__(self, text: str = "") -> None:
        self.pairs = parse_qsl(text, keep_blank_values=True)

    def get(self, name: str, default: str = "") -> str:
        """The first value of `name`."""
        return next((value for key, value in self.pairs if key == name), default)

    def all(self, name: str) -> list[str]:
        """Every value of `name`, in order."""
        return [value for key, value in self.pairs if key == name]

    def has(self, name: str) -> bool:
        """Whether `name` occurs at all."""
        return any(key == name for key, _ in self.pairs)

    def flag(self, name: str, *, default: bool = False) -> bool:
        """A boolean of this interface: anything except `false` and `0` is true (R§1.3)."""
        return self.get(name).lower() not in ("false", "0") if self.has(name) else default

    def words(self, name: str) -> list[str]:
        """A comma list as its non-empty items."""
        return [word for word in self.get(name).split(",") if word]


@dataclass(frozen=True, slots=True)
class Request:
    """One request, behind authentication.

    `path` is raw: percent-encoded as it came, below the context path, without query.
    `session` is the id of the HTTP session it runs in; `base` the server's URL with context path.
    `conflict`: whatever it does to a catalog collides with another writer (R§4.6).
    """

    verb: str
    path: str
    query: Query = field(default_factory=Query)
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Body = field(default_factory=NoBody)
    user: User = GUEST
    session: str = ""
    base: str = ""
    conflict: bool = False

    @property
    def media_type(self) -> str:
        """Content-Type without parameters, lower case; "" when absent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


@dataclass(frozen=True, slots=True)
class FileSlice:
    """Bytes of a file on disk: `count` from `start` on, as far as the file has them."""

    path: Path
    start: int
    count: int
    size: int
    mtime: float


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


def document(body: str, media_type: str) -> Reply:
    """A generated document; its length is not announced (R§2.1)."""
    return Reply(body=body.encode(), media_type=media_type, streamed=True)


def http_date(moment: float) -> str:
    """A time in seconds since the epoch as the date of a header (whole seconds, GMT)."""
    return formatdate(int(moment), usegmt=True)


def status_text(status: int) -> str:
    """The phrase that Restlet 1.1 says for a status without a message of its own."""
    return _PHRASES.get(status) or HTTPStatus(status).phrase


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
    412: "Precondition Failed",
    417: "Expectation Failed",
    422: "Unprocessable Entity",
    500: "The server encountered an unexpected condition which prevented it from fulfilling the "
    "request",
    501: "The server does not support the functionality required to fulfill the request",
}


def status_page(status: int, message: str = "") -> bytes:
    """Restlet's error page, byte for byte as recorded; the message stands in its `<h3>`."""
    chapter = {4: f"sec10.4.{status - 399}", 5: f"sec10.5.{status - 499}"}
    anchor = chapter.get(status // 100, "sec10")
    return (
        "<html>\n<head>\n   <title>Status page</title>\n</head>\n<body>\n"
        f"<h3>{message or status_text(status)}</h3><p>You can get technical details "
        f'<a href="http://www.w3.org/Protocols/rfc2616/rfc2616-sec10.html#{anchor}">here</a>.<br>\n'
        'Please continue your visit at our <a href="/">home page</a>.\n'
        "</p>\n</body>\n</html>\n"
    ).encode()


def container_page(status: int, title: str) -> bytes:
    """The servlet container's error page: what a client gets from in front of XNAT (R§8)."""
    heading = f"HTTP Status {status} – {title}"
    return (
        f'<!doctype html><html lang="en"><head><title>{heading}</title></head>'
        f'<body><h1>{heading}</h1><hr class="line" /><h3>Apache Tomcat/9.0.87</h3></body></html>'
    ).encode()


def refusal_reply(refusal: Refusal) -> Reply:
    """The reply that a refused request gets."""
    if refusal.body is not None:
        return Reply(refusal.status, body=refusal.body, media_type="text/plain")
    page = b"" if refusal.status == 204 else status_page(refusal.status, refusal.message)
    return Reply(refusal.status, body=page, media_type="text/html")
