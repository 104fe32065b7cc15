"""The session with one server: one login and one pool of connections for all threads.

``archive`` and ``transfer`` ask through ``Session.request`` and nothing else; below it are
``identity`` (logins), ``repeats`` (back-off) and ``wire`` (HTTP).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from xnatfs.config import Limits, ServerSettings
from xnatfs.errors import BadReply
from xnatfs.rest import addresses
from xnatfs.rest.identity import Expects, Identity, Standing
from xnatfs.rest.login import Credentials
from xnatfs.rest.repeats import failed, repeat
from xnatfs.rest.wire import Body, Reply, Wire
from xnatfs.waiting import Waiter

__all__ = ["Expects", "Reply", "Session"]

log = logging.getLogger(__name__)

_REPEATABLE = frozenset({"GET", "HEAD"})


class Session:
    """One login on one server, used by all threads of a process.

    Args:
        server: address, connections, and how to log in.
        limits: timeouts.
        credentials: from ``login.find_credentials``.
        state_folder: where the shared session and refused logins are remembered.

    Threading: nothing here changes after ``open``; ``Identity`` and ``Wire`` guard their own.
    """

    def __init__(
        self,
        server: ServerSettings,
        limits: Limits,
        credentials: Credentials,
        state_folder: Path,
    ) -> None:
        self._wire = Wire(server.url.rstrip("/"), server.connections, limits)
        self._identity = Identity(server, credentials, self._wire, state_folder)

    @property
    def url(self) -> str:
        """Base URL of the server, without a trailing slash."""
        return self._wire.url

    @property
    def user(self) -> str:
        """The user that the server knows us as; "guest" for a guest, "" before ``open``."""
        return self._identity.user

    @property
    def credentials(self) -> Credentials:
        """The login that is in use."""
        return self._identity.credentials

    @property
    def refused(self) -> str:
        """Why the server takes this login no more; "" while it does."""
        return self._identity.refused

    @property
    def place(self) -> str:
        """Host and job of this process, for the server's record of changes."""
        return self._wire.place

    def open(self, waiter: Waiter) -> None:
        """Verify that this is an XNAT and that it knows us as the user we mean to be.

        A password is tried once.

        Raises: NotXnat, Unreachable, LoginRefused, and what the waiter raises.
        """
        self._identity.open(waiter)

    def request(
        self,
        method: str,
        address: str,
        *,
        waiter: Waiter,
        params: Mapping[str, str] | None = None,
        body: Callable[[], Body] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        most: int | None = None,
        expects: Expects = Expects.ANY,
    ) -> Reply:
        """Ask the server; whatever status comes back is the caller's to judge.

        GET and HEAD are repeated on connection errors and 429, 502, 503, 504. Changes are not,
        unless it is sure that they did not happen: no connection, or not as our user.

        Args:
            method: HTTP method.
            address: below ``/data``, percent-encoded.
            waiter: bounds the whole, pauses included.
            params: query, unencoded.
            body: makes the body; called again if it has to be sent again.
            headers: more headers.
            stream: leave the body to be read in pieces; the caller closes the reply.
            most: bytes that a body may have which is not left to be read in pieces.
            expects: the kind of reply that is asked for.

        Raises: Unreachable (surely not done), TransferBroken, TimedOut (may have been done),
            ServerBusy (of a GET, after all tries), BadReply (more than ``most``), LoginRefused,
            BadName, Interrupted.
        """
        addresses.check(address)
        what = f"{method} {address}"

        def once(standing: Standing) -> Reply:
            reply = self._wire.exchange(
                method,
                address,
                standing.login,
                waiter,
                params=params,
                body=body() if body is not None else None,
                headers=headers,
            )
            if not stream or reply.status >= 300:
                reply.load(waiter, most)
            return reply

        for lost_once in (False, True):
            standing = self._identity.standing()
            reply = repeat(
                lambda standing=standing: once(standing),  # type: ignore[misc]  # a default
                waiter,
                what,
                repeatable=method in _REPEATABLE,
            )
            try:
                ours = self._identity.is_ours(reply, standing, expects, waiter)
            except BaseException:
                reply.close()
                raise
            if ours:
                return reply
            reply.close()
            if lost_once:
                break
            self._identity.renew(standing, waiter)
        if reply.status == 401:
            raise failed(reply)
        raise BadReply(f"{what}: the server does not answer as user {self.user!r} any more")

    def take(self, credentials: Credentials) -> None:
        """Go on with another secret of the same user, whenever a login is needed."""
        self._identity.take(credentials)

    def adopt(self) -> None:
        """Continue in a child process: leave the parent's connections to the parent."""
        self._wire.drop_connections()

    def log_out(self) -> None:
        """End the server session, whoever shares it. Never raises."""
        self._identity.log_out()

    def close(self) -> None:
        """Close the connections; log out of a session that nobody else uses. Never raises."""
        self._identity.close()
        self._wire.drop_connections()
