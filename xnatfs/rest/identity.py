"""Who we are to the server: logging in once, noticing when the login is lost, renewing it.

``session`` asks this before and after each request. The rules are R§6's: a password is tried
once, a definite refusal is remembered, and an open site answers an expired login as a guest
without any error.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path

from xnatfs.config import ServerSettings
from xnatfs.errors import LoginRefused, NotXnat, XnatfsError
from xnatfs.rest import faults, replies
from xnatfs.rest.login import Credentials, RefusalMemory, SharedSession
from xnatfs.rest.repeats import MOST_TRIES, repeat
from xnatfs.rest.wire import Login, Reply, Wire
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# To find out that nobody is there a person should not wait: one repetition.
TRIES_AT_OPEN = 2
# For the farewell of a session of our own. Seconds.
LOGOUT_S = 2.0

GUEST = "guest"

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_COOKIE = re.compile(r"\s*(?P<name>[A-Za-z0-9_.-]+)=(?P<value>[^;,\s\"]*)")
_GONE = re.compile(r";\s*Max-Age\s*=\s*0\s*(?:;|$)", re.IGNORECASE)
_SESSION_COOKIE = "JSESSIONID"


class Expects(Enum):
    """Which kind of reply is asked for; a web page in its place means a lost login (R§6)."""

    ANY = "any"
    LISTING = "listing"
    FILE = "file"


@dataclass(frozen=True, slots=True)
class Standing:
    """The login at one moment: what a request carries, and which renewal it comes from."""

    login: Login
    generation: int


class Identity:
    """The login of this process on one server.

    Args:
        server: what was asked for.
        credentials: what was found.
        wire: connections to the server.
        state_folder: where the shared session and refusals are remembered.

    Threading: ``_changed`` (a Condition) guards ``_cookies``, ``_generation``, ``_refusal`` and
    ``_renewing``; it is never held across a request. One thread renews a lost login while the
    others wait for it. ``user`` is set by ``open`` and stays.
    """

    def __init__(
        self, server: ServerSettings, credentials: Credentials, wire: Wire, state_folder: Path
    ) -> None:
        self.user = ""
        self._server = server
        self._credentials = credentials
        self._wire = wire
        self._memory = RefusalMemory(state_folder, wire.url, credentials)
        self._shared = SharedSession(state_folder, wire.url, credentials)
        # A session given by the user stays his: it is neither handed on nor ended.
        self._sharing = (
            server.shared_session and bool(credentials.secret) and not credentials.jsession
        )
        self._changed = threading.Condition()
        self._cookies: dict[str, str] = {}
        self._generation = 0
        self._refusal: LoginRefused | None = None
        self._renewing = False

    def open(self, waiter: Waiter) -> None:
        """Verify that an XNAT answers and knows us as the user we mean to be.

        Raises: NotXnat, LoginRefused, Unreachable and others of the wire and the waiter.
        """
        if self._credentials.jsession and self._take_given(waiter):
            return
        if not self._credentials.secret:
            cookies: dict[str, str] = {}
            self.user = self._ask(cookies, self._no_guests, waiter)
            self._cookies = cookies
            return
        self._enter({}, waiter)

    def _enter(self, lost: Mapping[str, str], waiter: Waiter) -> None:
        """Come in by the session of another process, else by the password, one at a time.

        Args:
            lost: cookies that are worth nothing any more.
            waiter: limits of the wait.
        """
        with self._memory.turn(waiter):
            if not (self._sharing and self._join(lost, waiter)):
                self._log_in(waiter)

    def _settle(self, cookies: dict[str, str]) -> None:
        """Go on with a new session."""
        with self._changed:
            self._cookies = cookies
            self._generation += 1

    def standing(self) -> Standing:
        """What the next request carries.

        Raises: LoginRefused once the server has refused the login for good.
        """
        with self._changed:
            if self._refusal is not None:
                raise self._refusal
            login = Login(dict(self._cookies), self._credentials.user, self._credentials.secret)
            return Standing(login, self._generation)

    def _take_given(self, waiter: Waiter) -> bool:
        """Use the session that the user gave; False when it is over and there is a password."""
        cookies = {_SESSION_COOKIE: self._credentials.jsession}
        try:
            user = self._ask(cookies, self._session_over, waiter)
            if user == GUEST:
                raise self._session_over("")
        except LoginRefused:
            if self._credentials.secret:
                return False
            raise
        wanted = self._server.user
        if wanted and wanted != user:
            raise LoginRefused(
                f"{self._wire.host}: the session in {self._credentials.source} is {user!r}'s, "
                f"not {wanted!r}'s"
            )
        self.user = user
        self._cookies = cookies
        return True

    def _join(self, lost: Mapping[str, str], waiter: Waiter) -> bool:
        """Use the session that another process of this user left, if it still lives."""
        cookies = self._shared.load()
        if not cookies or cookies == lost:
            return False
        user = self._who(cookies, waiter)
        if user in ("", GUEST) or self.user not in ("", user):
            return False
        self.user = user
        self._settle(cookies)
        return True

    def _log_in(self, waiter: Waiter) -> None:
        """One attempt with user and password; remembers how it ended."""
        cookies: dict[str, str] = {}
        try:
            user = self._ask(cookies, self._wrong_password, waiter, password=True)
        except LoginRefused as refusal:
            self._memory.refused(str(refusal))
            raise
        if user == GUEST:
            raise self._wrong_password("it took the login for a guest's")
        if self.user and user != self.user:
            raise self._wrong_password(f"it now knows the login as {user!r}")
        self.user = user
        self._memory.accepted()
        if self._sharing:
            self._shared.store(cookies)
        self._settle(cookies)

    def renew(self, lost: Standing, waiter: Waiter) -> None:
        """Log in again after ``lost`` turned out to be worth nothing; one thread does it.

        Raises: LoginRefused, and others of the wire and the waiter.
        """
        with self._changed:
            waiter.until(self._changed, lambda: not self._renewing, "a renewed login")
            if self._refusal is not None:
                raise self._refusal
            if self._generation != lost.generation:
                return
            self._renewing = True
        try:
            log.info("%s: the login has expired, logging in again", self._wire.host)
            if self._credentials.secret:
                self._enter(lost.login.cookies, waiter)
                return
            if self._credentials.jsession:
                raise self._session_over("")
            cookies: dict[str, str] = {}
            self._ask(cookies, self._no_guests, waiter)
            self._settle(cookies)
        except LoginRefused as refusal:
            with self._changed:
                self._refusal = refusal
            raise
        finally:
            with self._changed:
                self._renewing = False
                self._changed.notify_all()

    def is_ours(self, reply: Reply, standing: Standing, expects: Expects, waiter: Waiter) -> bool:
        """Whether a reply was given to our user and not to a guest (R§6).

        A lost login shows in a 401, in a new session cookie, or in a web page or redirection
        where something else was asked for; the last two are looked into.
        """
        if reply.status == 401:
            return False
        sent = dict(standing.login.cookies)
        cookies = dict(sent)
        _take_cookies(reply, cookies)
        renewed = cookies.get(_SESSION_COOKIE) != sent.get(_SESSION_COOKIE)
        # The new session alone, without password: whose request was it?
        if renewed and self._who(cookies, waiter) != self.user:
            return False
        if cookies != sent:
            self._adopt(cookies, standing, renewed=renewed)
        if renewed:
            return True
        if reply.status in _REDIRECTS or _is_page(reply, expects):
            return self._who(cookies, waiter) == self.user
        return True

    def _adopt(self, cookies: dict[str, str], standing: Standing, *, renewed: bool) -> None:
        """Go on with the cookies of a reply, unless another thread has newer ones."""
        with self._changed:
            if self._generation != standing.generation:
                return
            self._cookies = cookies
            if renewed:
                self._generation += 1
        if renewed and self._sharing:
            self._shared.store(cookies)

    def _who(self, cookies: dict[str, str], waiter: Waiter) -> str:
        """Whose session this is; "" when the server does not say."""
        try:
            return self._ask(cookies, self._session_over, waiter)
        except (LoginRefused, NotXnat):
            return ""

    def _ask(
        self,
        cookies: dict[str, str],
        refusal: Callable[[str], LoginRefused],
        waiter: Waiter,
        *,
        password: bool = False,
    ) -> str:
        """Ask ``/data/auth`` who we are (R§6).

        Args:
            cookies: sent, and updated by what the reply sets.
            refusal: makes the error for a 401 out of the server's words.
            waiter: limits of the wait.
            password: send user and password.

        Raises: LoginRefused, NotXnat, and others of the wire and the waiter.
        """
        login = Login(
            cookies,
            self._credentials.user if password else "",
            self._credentials.secret if password else "",
        )

        def once() -> Reply:
            # Without waiting for a free connection: the reply in doubt may still hold its own.
            reply = self._wire.exchange("GET", "/auth", login, waiter, queued=False)
            reply.load(waiter)
            return reply

        reply = repeat(
            once,
            waiter,
            "GET /auth",
            # A password is not sent twice: the first may have been counted.
            repeatable=not password,
            most_tries=MOST_TRIES if self.user else TRIES_AT_OPEN,
        )
        if reply.status == 401:
            raise refusal(replies.said(reply.content))
        name = replies.identity(reply.content) if reply.status == 200 else None
        if name is None:
            raise self._not_xnat(reply, refusal)
        _take_cookies(reply, cookies)
        return name

    def _not_xnat(self, reply: Reply, refusal: Callable[[str], LoginRefused]) -> XnatfsError:
        to = reply.header("Location")
        words = replies.said(reply.content)
        if reply.status in faults.BUSY:
            return faults.of_status(reply.status, words, reply.what, reply.header("Retry-After"))
        if reply.status in _REDIRECTS and ("Login" in to or "XDATScreen" in to):
            return refusal("it sends us to a web page: expired password or login page")
        if reply.status in _REDIRECTS:
            seen = f"it sends us on to {to.split('?')[0]!r}; use that address"
        else:
            seen = f"it answered with status {reply.status}" + (f", {words!r}" if words else "")
            server = reply.header("Server")
            seen += f", from {server!r}" if server else ""
        return NotXnat(f"{self._wire.url}: no XNAT answers here: {seen}")

    def _session_over(self, said: str) -> LoginRefused:
        return self._refused(
            f"the session given by {self._credentials.source} is not valid any more", said
        )

    def _no_guests(self, said: str) -> LoginRefused:
        return self._refused("this server lets no guests in; log in with -u USER", said)

    def _wrong_password(self, said: str) -> LoginRefused:
        return self._refused(
            f"login of {self._credentials.user!r} (from {self._credentials.source}) refused: "
            "wrong password, expired alias token, locked account, or all sessions that the "
            "server allows this user are in use",
            said,
        )

    def _refused(self, text: str, said: str) -> LoginRefused:
        return LoginRefused(f"{self._wire.host}: {text}" + (f" ({said})" if said else ""))

    def close(self) -> None:
        """Log out of a session that nobody else uses. Never raises."""
        ours_alone = (
            self._credentials.secret and not self._sharing and not self._credentials.jsession
        )
        if not ours_alone or not self._cookies or self._refusal is not None:
            return
        try:
            # Without the password: it would open a new session only to end it.
            login = Login(self._cookies, "", "")
            waiter = Waiter(total_s=LOGOUT_S)
            self._wire.exchange("DELETE", "/JSESSION", login, waiter, queued=False).close()
        except XnatfsError as error:
            log.debug("logging out failed: %s", error)


def _is_page(reply: Reply, expects: Expects) -> bool:
    """Whether a success is a web page in the place of a listing or a file."""
    if reply.status not in (200, 206) or expects is Expects.ANY:
        return False
    if not replies.is_html(reply.header("Content-Type"), reply.content):
        return False
    return expects is Expects.LISTING or not reply.header("Content-Disposition")


def _take_cookies(reply: Reply, cookies: dict[str, str]) -> None:
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
