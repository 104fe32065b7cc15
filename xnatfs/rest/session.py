"""The session with one server: who we are, and the one place where requests are repeated.

``archive`` and ``transfer`` ask through ``Session.request``. It knows logins, cookies, expiry
and back-off, and nothing of what is asked.
"""

from __future__ import annotations

import logging
import random
import re
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path

from xnatfs.config import Limits, ServerSettings
from xnatfs.errors import BadReply, LoginRefused, NotXnat, Unreachable, XnatfsError
from xnatfs.rest import addresses, faults, replies
from xnatfs.rest.login import Credentials, RefusalMemory, SharedSession
from xnatfs.rest.wire import Body, Reply, Wire
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# The first pause of a repeated request; it doubles, and is shortened by up to half at random,
# so that the processes of a job array do not come back together. Seconds.
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
# About 45 s of pauses: a server that restarts is waited for, within the waiter's limits.
MOST_TRIES = 10
# To find out that nobody is there a person should not wait: one repetition.
TRIES_AT_OPEN = 2

LOGOUT_S = 2.0

_REPEATABLE = frozenset({"GET", "HEAD"})
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_COOKIE = re.compile(r"\s*(?P<name>[A-Za-z0-9_.-]+)=(?P<value>[^;,\s\"]*)")
_GONE = re.compile(r";\s*Max-Age\s*=\s*0\s*(?:;|$)", re.IGNORECASE)
_SESSION_COOKIE = "JSESSIONID"


class Expects(Enum):
    """Which kind of reply is asked for; a web page in its place means a lost login (R§6)."""

    ANY = "any"
    LISTING = "listing"
    FILE = "file"


class Session:
    """One login on one server, used by all threads of a process.

    Args:
        server: address, connections, and how to log in.
        limits: timeouts.
        credentials: from ``login.find_credentials``.
        state_folder: where the shared session and refused logins are remembered.

    Threading: ``_changed`` (a Condition) guards ``_cookies``, ``_generation``, ``_refusal``,
    ``_renewing`` and ``_free``; it is never held across a request. One thread renews an expired
    login while the others wait for it. Everything else is set once.
    """

    def __init__(
        self,
        server: ServerSettings,
        limits: Limits,
        credentials: Credentials,
        state_folder: Path,
    ) -> None:
        self.url = server.url.rstrip("/")
        self.user = ""
        self._server = server
        self._limits = limits
        self._credentials = credentials
        self._wire = Wire(self.url, server.connections, limits.io_timeout_s)
        self._memory = RefusalMemory(state_folder, self.url, credentials)
        self._shared = SharedSession(state_folder, self.url, credentials)
        self._sharing = server.shared_session and bool(credentials.secret)
        self._changed = threading.Condition()
        self._cookies: dict[str, str] = {}
        if credentials.jsession:
            self._cookies[_SESSION_COOKIE] = credentials.jsession
        self._generation = 0
        self._refusal: LoginRefused | None = None
        self._renewing = False
        self._free = server.connections

    @property
    def place(self) -> str:
        """Host and job of this process, for the server's record of changes."""
        return self._wire.place

    # -- logging in ------------------------------------------------------------------------

    def open(self, waiter: Waiter) -> None:
        """Verify that this is an XNAT and that it knows us as the user we mean to be.

        A password is tried once.

        Raises: NotXnat, Unreachable, LoginRefused (definite), and what the waiter raises.
        """
        if not self._credentials.secret:
            cookies = dict(self._cookies)
            self.user = self._identify(cookies, self._given_refusal, waiter, basic=False)
            self._check_user()
            self._cookies = cookies
            return
        with self._memory.turn(waiter) as asked_before:
            if self._sharing and self._join_shared(waiter):
                return
            log.debug("logging in at %s (known: %s)", self.url, asked_before)
            self._log_in(waiter)

    def _join_shared(self, waiter: Waiter) -> bool:
        """Use the session that another process of this user left, if it still lives."""
        cookies = self._shared.load()
        if not cookies:
            return False
        try:
            user = self._identify(cookies, self._given_refusal, waiter, basic=False)
        except LoginRefused:
            return False
        if user == "guest":
            return False
        self.user = user
        self._cookies = cookies
        return True

    def _log_in(self, waiter: Waiter) -> None:
        """One attempt with user and password; remembers how it ended."""
        cookies: dict[str, str] = {}
        try:
            user = self._identify(cookies, self._password_refusal, waiter, basic=True)
        except LoginRefused as refusal:
            self._memory.refused(str(refusal))
            with self._changed:
                self._refusal = refusal
            raise
        if user == "guest":
            raise self._password_refusal("it took the login for a guest's")
        if self.user and user != self.user:
            raise self._password_refusal(f"it now knows the login as {user!r}")
        self.user = user
        self._memory.accepted()
        if self._sharing:
            self._shared.store(cookies)
        with self._changed:
            self._cookies = cookies
            self._generation += 1

    def _check_user(self) -> None:
        wanted = self._server.user
        if self._credentials.jsession and wanted and wanted != self.user:
            raise LoginRefused(
                f"{self._wire.host}: the session in {self._credentials.source} is "
                f"{self.user!r}'s, not {wanted!r}'s"
            )
        if self._credentials.jsession and self.user == "guest":
            raise self._given_refusal("it has expired")

    def _given_refusal(self, said: str) -> LoginRefused:
        if self._credentials.jsession:
            text = f"the session given by {self._credentials.source} is not valid any more"
        else:
            text = "this server lets no guests in; log in with -u USER"
        return LoginRefused(f"{self._wire.host}: {text}" + (f" ({said})" if said else ""))

    def _password_refusal(self, said: str) -> LoginRefused:
        return LoginRefused(
            f"{self._wire.host}: login of {self._credentials.user!r} "
            f"(from {self._credentials.source}) refused: wrong password, expired alias token, "
            "locked account, or all of this user's sessions are in use"
            + (f" ({said})" if said else "")
        )

    def _identify(
        self,
        cookies: dict[str, str],
        refusal: Callable[[str], LoginRefused],
        waiter: Waiter,
        *,
        basic: bool,
    ) -> str:
        """Ask ``/data/auth`` who we are (R§6).

        Args:
            cookies: sent, and updated by what the reply sets.
            refusal: makes the error for a 401 out of the server's words.
            waiter: limits of the wait.
            basic: send user and password.

        Raises: LoginRefused, NotXnat, Unreachable and others of the wire.
        """
        reply = self._repeat(
            lambda: self._exchange(
                "GET", "/auth", cookies=cookies, basic=basic, waiter=waiter, slot=False
            ),
            waiter,
            "GET /auth",
            # A password is not sent twice: the first may have been counted (R§6).
            repeatable=not basic,
            most_tries=MOST_TRIES if self.user else TRIES_AT_OPEN,
        )
        if reply.status == 401:
            raise refusal(replies.said(reply.content))
        if reply.status == 200:
            name = replies.identity(reply.content)
            if name is not None:
                _take_cookies(reply, cookies)
                return name
        raise self._not_xnat(reply, refusal)

    def _not_xnat(self, reply: Reply, refusal: Callable[[str], LoginRefused]) -> XnatfsError:
        to = reply.header("Location")
        if reply.status in faults.BUSY:
            return faults.of_status(reply.status, replies.said(reply.content), reply.what)
        if reply.status in _REDIRECTS and ("Login" in to or "XDATScreen" in to):
            return refusal("it sends us to a web page: expired password or login page")
        if reply.status in _REDIRECTS:
            seen = f"it sends us on to {to.split('?')[0]}: use that address"
        else:
            words = replies.said(reply.content)
            seen = f"it answered with status {reply.status}" + (f", {words!r}" if words else "")
            server = reply.header("Server")
            seen += f", from {server!r}" if server else ""
        return NotXnat(f"{self.url}: no XNAT answers here: {seen}")

    def _renew(self, generation: int, waiter: Waiter) -> None:
        """Log in again after the login of ``generation`` was lost; one thread does, all wait."""
        with self._changed:
            waiter.until(self._changed, lambda: not self._renewing, "a renewed login")
            if self._refusal is not None:
                raise self._refusal
            if self._generation != generation:
                return
            self._renewing = True
        try:
            log.info("%s: the login has expired, logging in again", self._wire.host)
            if self._credentials.secret:
                self._log_in(waiter)
                return
            cookies: dict[str, str] = {}
            if self._credentials.jsession:
                cookies[_SESSION_COOKIE] = self._credentials.jsession
            user = self._identify(cookies, self._given_refusal, waiter, basic=False)
            if user != self.user:
                raise self._given_refusal(f"it is {user!r} now")
            with self._changed:
                self._cookies = cookies
                self._generation += 1
        finally:
            with self._changed:
                self._renewing = False
                self._changed.notify_all()

    # -- asking ----------------------------------------------------------------------------

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
            expects: the kind of reply that is asked for.

        Raises: Unreachable (surely not done), TransferBroken, TimedOut (may have been done),
            ServerBusy (of a GET, after all tries), LoginRefused, BadName, Interrupted.
        """
        addresses.check(address)
        what = f"{method} {address}"
        for last in (False, True):
            with self._changed:
                cookies, generation = dict(self._cookies), self._generation
            sent = cookies.get(_SESSION_COOKIE, "")

            def once(cookies: dict[str, str] = cookies) -> Reply:
                return self._exchange(
                    method,
                    address,
                    cookies=cookies,
                    basic=bool(self._credentials.secret),
                    waiter=waiter,
                    params=params,
                    body=body,
                    headers=headers,
                    stream=stream,
                )

            reply = self._repeat(once, waiter, what, repeatable=method in _REPEATABLE)
            try:
                ours = self._is_ours(reply, sent, generation, expects, waiter)
            except BaseException:
                reply.close()
                raise
            if ours:
                return reply
            reply.close()
            if last:
                break
            self._renew(generation, waiter)
        if reply.status == 401:
            raise self._password_refusal(replies.said(reply.content))
        raise BadReply(f"{what}: the server does not answer as user {self.user!r} any more")

    def _is_ours(
        self, reply: Reply, sent: str, generation: int, expects: Expects, waiter: Waiter
    ) -> bool:
        """Whether the reply was given to our user and not to a guest (R§6).

        An open site answers an expired session as guest, without an error; it shows in a new
        session cookie, or in a web page where something else was asked for.
        """
        if reply.status == 401:
            return False
        cookies: dict[str, str] = {}
        _take_cookies(reply, cookies)
        new = cookies.get(_SESSION_COOKIE, "")
        if new and new != sent:
            # The new session alone, without password: whose request was it?
            if self._who(cookies, waiter, basic=False) != self.user:
                return False
            with self._changed:
                adopt = self._generation == generation
                if adopt:
                    self._cookies = {**self._cookies, **cookies}
                    self._generation += 1
            if adopt and self._sharing:
                self._shared.store(cookies)
            return True
        page = replies.is_html(reply.header("Content-Type"), reply.content)
        if (
            reply.status in _REDIRECTS
            or (page and reply.status == 200 and expects is Expects.LISTING)
            or (
                page
                and reply.status in (200, 206)
                and expects is Expects.FILE
                and not reply.header("Content-Disposition")
            )
        ):
            with self._changed:
                cookies = dict(self._cookies)
            return self._who(cookies, waiter, basic=False) == self.user
        return True

    def _who(self, cookies: dict[str, str], waiter: Waiter, *, basic: bool) -> str:
        try:
            return self._identify(cookies, self._given_refusal, waiter, basic=basic)
        except (LoginRefused, NotXnat):
            return ""

    def _repeat(
        self,
        once: Callable[[], Reply],
        waiter: Waiter,
        what: str,
        *,
        repeatable: bool,
        most_tries: int = MOST_TRIES,
    ) -> Reply:
        """Ask until an answer comes that another try would not change.

        What is not repeatable is tried again only when nothing was sent.
        """
        tries = 0
        while True:
            waiter.check(what)
            tries += 1
            retry_after: float | None = None
            try:
                reply = once()
            except XnatfsError as error:
                sure = isinstance(error, Unreachable)
                if not error.temporary or not (repeatable or sure) or tries >= most_tries:
                    raise
                failure = error
            else:
                if reply.status not in faults.BUSY or not repeatable or tries >= most_tries:
                    return reply
                reply.close()
                retry_after = faults.seconds(reply.header("Retry-After"))
                failure = faults.of_status(
                    reply.status, replies.said(reply.content), what, reply.header("Retry-After")
                )
            pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tries - 1))
            pause = max(pause * random.uniform(0.5, 1.0), retry_after or 0.0)
            left = waiter.remaining()
            if left is not None and pause >= left:
                raise failure
            log.debug("%s; trying again in %.1f s", failure, pause)
            waiter.sleep(pause, what)

    def _exchange(
        self,
        method: str,
        address: str,
        *,
        cookies: Mapping[str, str],
        basic: bool,
        waiter: Waiter,
        params: Mapping[str, str] | None = None,
        body: Callable[[], Body] | None = None,
        headers: Mapping[str, str] | None = None,
        stream: bool = False,
        slot: bool = True,
    ) -> Reply:
        """One request on a connection of ours.

        ``slot=False`` does not wait for a free one: a question about the login is asked while
        the reply in doubt still holds its own.
        """
        what = f"{method} {address}"
        all_headers = dict(headers or {})
        if cookies:
            all_headers["Cookie"] = "; ".join(f"{name}={text}" for name, text in cookies.items())
        if basic:
            pair = f"{self._credentials.user}:{self._credentials.secret}".encode()
            all_headers["Authorization"] = "Basic " + b64encode(pair).decode()
        if slot:
            self._take_slot(waiter, what)
        done = self._give_slot if slot else _nothing
        try:
            reply = self._wire.exchange(
                method,
                f"{self.url}/data{address}",
                what=what,
                headers=all_headers,
                params=params,
                body=body() if body is not None else None,
                timeouts=self._timeouts(waiter),
                done=done,
            )
        except BaseException:
            done()
            raise
        log.debug("%s: %d", what, reply.status)
        if not stream or reply.status >= 300:
            reply.load(waiter)
        return reply

    def _timeouts(self, waiter: Waiter) -> tuple[float, float]:
        left = waiter.remaining()
        # Never 0, which means "do not block" to a socket; the waiter itself ends the wait.
        most = max(0.05, left) if left is not None else self._limits.io_timeout_s
        return (
            min(self._limits.connect_timeout_s, most),
            min(self._limits.io_timeout_s, most),
        )

    def _take_slot(self, waiter: Waiter, what: str) -> None:
        with self._changed:
            waiter.until(self._changed, lambda: self._free > 0, what)
            if self._refusal is not None:
                raise self._refusal
            self._free -= 1

    def _give_slot(self) -> None:
        with self._changed:
            self._free += 1
            self._changed.notify_all()

    # -- the end ---------------------------------------------------------------------------

    def adopt(self) -> None:
        """Continue in a child process: leave the parent's connections to the parent."""
        self._wire.drop_connections()

    def close(self) -> None:
        """Close the connections; log out of a session that nobody else uses. Never raises."""
        alone = self._credentials.secret and not self._sharing
        if alone and self._cookies and self._refusal is None:
            try:
                # Without the password: it would open a new session only to end it.
                self._exchange(
                    "DELETE",
                    "/JSESSION",
                    cookies=self._cookies,
                    basic=False,
                    waiter=Waiter(total_s=LOGOUT_S),
                )
            except XnatfsError as error:
                log.debug("logging out failed: %s", error)
        self._wire.drop_connections()


def _nothing() -> None:
    pass


def _take_cookies(reply: Reply, cookies: dict[str, str]) -> None:
    """Update cookies by a reply: the session's, and those of balancers before the server.

    SESSION_EXPIRATION_TIME is for web pages; with its quotes and comma it does not fit here.
    """
    for text in reply.set_cookies():
        found = _COOKIE.match(text)
        if not found:
            continue
        if _GONE.search(text):
            cookies.pop(found["name"], None)
        elif found["value"]:
            cookies[found["name"]] = found["value"]
