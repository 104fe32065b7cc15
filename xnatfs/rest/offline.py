"""The session of a mount that uses no network: it knows whose archive it shows, and asks nobody."""

from __future__ import annotations

from typing import Any, NoReturn

from xnatfs.errors import Offline
from xnatfs.rest.login import Credentials
from xnatfs.rest.session import Session
from xnatfs.rest.wire import whereabouts
from xnatfs.waiting import Waiter


class OfflineSession(Session):
    """A session that answers every request with Offline, at once.

    Args:
        url: of the server, as the store knows it.
        user: the account whose listings and content are shown.

    Threading: nothing here changes.
    """

    def __init__(self, url: str, user: str) -> None:
        self._url = url
        self._user = user

    @property
    def url(self) -> str:
        """Base URL of the server, without a trailing slash."""
        return self._url

    @property
    def user(self) -> str:
        """The user that the server knew when the store was filled."""
        return self._user

    @property
    def credentials(self) -> Credentials:
        """None are needed."""
        return Credentials(self._user, "", "--offline")

    @property
    def refused(self) -> str:
        """Nobody is asked."""
        return ""

    @property
    def place(self) -> str:
        """Host and job of this process."""
        return whereabouts()

    def open(self, waiter: Waiter) -> None:
        """Nobody is asked."""

    def request(self, method: str, address: str, **_asked: Any) -> NoReturn:
        """Raises: Offline."""
        raise Offline(f"{method} {address}: not in the store, and no network is used (--offline)")

    def take(self, credentials: Credentials) -> None:
        """There is no login to replace."""

    def adopt(self) -> None:
        """There are no connections."""

    def log_out(self) -> None:
        """There is nothing to log out of."""

    def close(self) -> None:
        """There is nothing to log out of."""
