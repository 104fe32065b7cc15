"""Faults: what a status or an exception of the HTTP libraries means, as errors of ours.

Two tables, one for statuses, one for exceptions. Nothing of requests or urllib3 leaves ``rest``.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import time

import requests
import urllib3.exceptions as u3

from xnatfs.errors import (
    AlreadyExists,
    BadName,
    LoginRefused,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    ServerBusy,
    ServerFault,
    Stale,
    TimedOut,
    TransferBroken,
    Unreachable,
    XnatfsError,
)

BUSY = frozenset({429, 502, 503, 504})

# Status → (error, what a person should know). The server's own words follow in the text.
_STATUSES: dict[int, tuple[type[XnatfsError], str]] = {
    400: (ServerFault, "the server did not understand the request"),
    401: (LoginRefused, "the server refused the login"),
    403: (NotPermitted, "the server does not permit it"),
    404: (NotFound, "the server does not have it, or does not show it to this user"),
    409: (AlreadyExists, "it exists already"),
    412: (Stale, "the server has another version"),
    # No limit of XNAT itself (R§4.1): a proxy's bound on bodies, the nearest thing to a quota.
    413: (QuotaExceeded, "the server or a proxy before it takes no body of this size"),
    414: (BadName, "the address is longer than the server accepts"),
    416: (Stale, "the server's file is shorter"),
    507: (QuotaExceeded, "the server is out of room"),
}


def of_status(status: int, said: str, what: str, retry_after: str = "") -> XnatfsError:
    """The error for a status that the call does not expect.

    Args:
        status: HTTP status.
        said: the server's own words, one line, may be "".
        what: method and address, for the text.
        retry_after: the header as received.
    """
    words = f" ({said})" if said else ""
    if status in BUSY:
        return ServerBusy(
            f"{what}: the server is busy: status {status}{words}", seconds(retry_after)
        )
    kind, meaning = _STATUSES.get(status, (ServerFault, "the server failed"))
    return kind(f"{what}: {meaning}: status {status}{words}")


def seconds(retry_after: str) -> float | None:
    """``Retry-After`` in seconds, from either of its two forms; None when there is none."""
    text = retry_after.strip()
    if text.isdigit():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time())
    except (TypeError, ValueError):
        return None


def _causes(error: BaseException) -> Iterator[BaseException]:
    """An exception and all that it wraps; urllib3 and requests wrap in ``args`` and ``reason``."""
    seen: set[int] = set()
    todo: list[BaseException] = [error]
    while todo:
        one = todo.pop()
        if id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        nested = (*one.args, getattr(one, "reason", None), one.__cause__, one.__context__)
        todo.extend(each for each in nested if isinstance(each, BaseException))


def of_exception(error: BaseException, what: str, host: str) -> XnatfsError:
    """The error for an exception of requests, urllib3, http.client or the socket.

    ``Unreachable`` means: surely nothing was asked. ``TransferBroken`` and ``TimedOut`` mean:
    what was asked may have been done.
    """
    causes = list(_causes(error))

    def first(*kinds: type[BaseException]) -> BaseException | None:
        return next((cause for cause in causes if isinstance(cause, kinds)), None)

    untrusted = first(ssl.SSLCertVerificationError)
    if isinstance(untrusted, ssl.SSLCertVerificationError):
        return _for_good(
            f"{host}: its TLS certificate is not trusted: {untrusted.verify_message} "
            "(a private authority's certificate can be named in REQUESTS_CA_BUNDLE)"
        )
    if first(u3.NameResolutionError):
        return Unreachable(f"{host}: no such host name, or no name service")
    if first(requests.exceptions.ProxyError, u3.ProxyError):
        return Unreachable(f"{host}: the proxy does not let us through: {_short(causes)}")
    if first(u3.NewConnectionError):
        return Unreachable(f"{host}: no connection: {_short(causes)}")
    if first(u3.ConnectTimeoutError, requests.exceptions.ConnectTimeout):
        return Unreachable(f"{host}: no answer to the connection attempt")
    if first(ssl.SSLError) and not first(u3.ReadTimeoutError, TimeoutError):
        return Unreachable(f"{host}: TLS failed: {_short(causes)}")
    if first(u3.ReadTimeoutError, requests.exceptions.Timeout, TimeoutError):
        return TimedOut(f"{what}: no answer from {host} in time")
    if first(requests.exceptions.InvalidURL, u3.LocationParseError):
        return _for_good(f"{host}: not an address that can be asked: {_short(causes)}")
    return TransferBroken(f"{what}: the connection to {host} broke: {_short(causes)}")


def _for_good(text: str) -> Unreachable:
    error = Unreachable(text)
    error.temporary = False
    return error


def _short(causes: list[BaseException]) -> str:
    """The words of the innermost OSError, else of the first cause; one line, no address."""
    for cause in reversed(causes):
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
    return type(causes[-1]).__name__


def broken_off(what: str, arrived: int, expected: int) -> TransferBroken:
    """The error for a body that ended before its length (bytes)."""
    return TransferBroken(f"{what}: the body ended after {arrived} of {expected} bytes")
