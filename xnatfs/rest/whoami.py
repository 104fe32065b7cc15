"""Asking the server who we are, and reading what replies tell of a session (R§6).

``identity`` decides what follows from it.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from xnatfs.errors import LoginRefused, NotXnat, XnatfsError
from xnatfs.rest import faults, replies
from xnatfs.rest.repeats import repeat
from xnatfs.rest.wire import Login, Reply, Wire
from xnatfs.waiting import Waiter

REDIRECTS = frozenset({301, 302, 303, 307, 308})
_COOKIE = re.compile(r"\s*(?P<name>[A-Za-z0-9_.-]+)=(?P<value>[^;,\s\"]*)")
_GONE = re.compile(r";\s*Max-Age\s*=\s*0\s*(?:;|$)", re.IGNORECASE)

# Programs do not get through the pages of an institution; tokens do, where the site lets them.
_SINGLE_SIGN_ON = (
    "is that its address? If it is a page to log in (single sign-on), make a token in the browser "
    "and run `xnatfs login --token`"
)


def ask(
    wire: Wire,
    login: Login,
    cookies: dict[str, str],
    refusal: Callable[[str], LoginRefused],
    waiter: Waiter,
    *,
    most_tries: int,
) -> str:
    """Ask ``/data/auth`` who we are.

    Args:
        wire: connections to the server.
        login: what the request carries.
        cookies: updated by what the reply sets.
        refusal: makes the error for a 401 out of the server's words.
        waiter: limits of the wait.
        most_tries: where nobody answers; a password is not sent twice.

    Raises: LoginRefused, NotXnat, and others of the wire and the waiter.
    """

    def once() -> Reply:
        # Without waiting for a free connection: the reply in doubt may still hold its own.
        reply = wire.exchange("GET", "/auth", login, waiter, queued=False)
        reply.load(waiter)
        return reply

    reply = repeat(
        once,
        waiter,
        "GET /auth",
        # A password is not sent twice: the first may have been counted.
        repeatable=not login.secret,
        most_tries=most_tries,
    )
    if reply.status == 401:
        raise refusal(replies.said(reply.content))
    name = replies.identity(reply.content) if reply.status == 200 else None
    if name is None:
        raise _not_xnat(wire, reply, refusal)
    take_cookies(reply, cookies)
    return name


def _not_xnat(wire: Wire, reply: Reply, refusal: Callable[[str], LoginRefused]) -> XnatfsError:
    to = reply.header("Location")
    words = replies.said(reply.content)
    if reply.status in faults.BUSY:
        return faults.of_status(reply.status, words, reply.what, reply.header("Retry-After"))
    if reply.status in REDIRECTS and ("Login" in to or "XDATScreen" in to):
        return refusal("it sends us to a web page: expired password or login page")
    if reply.status in REDIRECTS:
        to = to.split("?")[0]
        moved = to.endswith("/data/auth")
        seen = f"it sends us on to {to!r}; " + ("use that address" if moved else _SINGLE_SIGN_ON)
    else:
        seen = f"it answered with status {reply.status}" + (f", {words!r}" if words else "")
        server = reply.header("Server")
        seen += f", from {server!r}" if server else ""
    return NotXnat(f"{wire.url}: no XNAT answers here: {seen}")


def is_page(reply: Reply, *, listing: bool) -> bool:
    """Whether a success is a web page in the place of a listing or a file."""
    if reply.status not in (200, 206):
        return False
    if not replies.is_html(reply.header("Content-Type"), reply.content):
        return False
    return listing or not reply.header("Content-Disposition")


def take_cookies(reply: Reply, cookies: dict[str, str]) -> None:
    """Update cookies by a reply: the session's, and those of balancers before the server.

    SESSION_EXPIRATION_TIME comes with every reply and is for web pages.
    """
    for text in reply.set_cookies():
        found = _COOKIE.match(text)
        if not found or found["name"] == "SESSION_EXPIRATION_TIME":
            continue
        if _GONE.search(text):
            cookies.pop(found["name"], None)
        elif found["value"]:
            cookies[found["name"]] = found["value"]
