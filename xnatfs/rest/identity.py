"""Who we are to the server: logging in once, noticing when the login is lost, renewing it.

``session`` asks this before and after each request. The rules are R§6's: a password is tried
once, a definite refusal is remembered, and an open site answers an expired login as a guest
without any error.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from pathlib import Path
from time import time

from xnatfs.config import ServerSettings
from xnatfs.errors import LoginRefused, NotXnat, XnatfsError
from xnatfs.rest import whoami
from xnatfs.rest.login import (
    STORED,
    Credentials,
    RefusalMemory,
    SharedSession,
    local_time,
    stored_login,
)
from xnatfs.rest.repeats import MOST_TRIES
from xnatfs.rest.wire import Login, Reply, Wire
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# To find out that nobody is there a person should not wait: one repetition.
TRIES_AT_OPEN = 2
# For the farewell of a session of our own. Seconds.
LOGOUT_S = 2.0

GUEST = "guest"

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


class _Means:
    """A login and what goes with it: how it ended lately, and the session that it shares.

    Args: as ``Identity``.
    """

    def __init__(
        self, server: ServerSettings, credentials: Credentials, url: str, state_folder: Path
    ) -> None:
        self.credentials = credentials
        # Why the server takes it no more.
        self.refusal: LoginRefused | None = None
        self.memory = RefusalMemory(state_folder, url, credentials)
        self.shared = SharedSession(state_folder, url, credentials)
        # A session given by the user stays his: it is neither handed on nor ended.
        self.sharing = (
            server.shared_session and bool(credentials.secret) and not credentials.jsession
        )


class Identity:
    """The login of this process on one server.

    Args:
        server: what was asked for.
        credentials: what was found.
        wire: connections to the server.
        state_folder: where the shared session and refusals are remembered.

    Threading: ``_changed`` (a Condition) guards ``_means``, ``_cookies``, ``_generation`` and
    ``_renewing``; it is never held across a request. One thread renews a lost login while the
    others wait for it. ``user`` is set by ``open`` and stays.
    """

    def __init__(
        self, server: ServerSettings, credentials: Credentials, wire: Wire, state_folder: Path
    ) -> None:
        self.user = ""
        self._server = server
        self._wire = wire
        self._state_folder = state_folder
        self._means = _Means(server, credentials, wire.url, state_folder)
        self._changed = threading.Condition()
        self._cookies: dict[str, str] = {}
        self._generation = 0
        self._renewing = False

    @property
    def credentials(self) -> Credentials:
        """The login in use."""
        return self._means.credentials

    @property
    def refused(self) -> str:
        """Why the server takes this login no more; "" while it does."""
        return str(self._means.refusal or "")

    @property
    def _credentials(self) -> Credentials:
        return self._means.credentials

    def take(self, credentials: Credentials) -> None:
        """Use another secret of the same user from now on; the session at the server stays."""
        means = _Means(self._server, credentials, self._wire.url, self._state_folder)
        with self._changed:
            self._means = means
            cookies = dict(self._cookies)
        if means.sharing and cookies:
            means.shared.store(cookies)

    def _take_newer(self, refused: _Means) -> bool:
        """Whether there is another login by now than one that was refused; then it is used."""
        if self._means is not refused:
            return True
        mine = refused.credentials
        if mine.source != STORED:
            return False
        try:
            stored = stored_login(self._wire.url, self._state_folder)
        except XnatfsError as error:
            log.warning("%s", error)
            return False
        if stored is None or stored.secret == mine.secret or self.user not in ("", stored.account):
            return False
        means = _Means(self._server, stored, self._wire.url, self._state_folder)
        with self._changed:
            if self._means is refused:
                self._means = means
                self._cookies = {}
                self._generation += 1
        return True

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
        while True:
            means = self._means
            try:
                with means.memory.turn(waiter):
                    if not (means.sharing and self._join(means, lost, waiter)):
                        self._log_in(means, waiter)
                return
            except LoginRefused as refusal:
                means.refusal = refusal
                if not self._take_newer(means):
                    raise

    def _settle(self, cookies: dict[str, str]) -> None:
        """Go on with a new session."""
        with self._changed:
            self._cookies = cookies
            self._generation += 1

    def standing(self) -> Standing:
        """What the next request carries.

        Raises: LoginRefused once the server has refused the login for good.
        """
        means = self._means
        if means.refusal is not None and not self._take_newer(means):
            raise means.refusal
        with self._changed:
            mine = self._means.credentials
            login = Login(dict(self._cookies), mine.user, mine.secret)
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

    def _join(self, means: _Means, lost: Mapping[str, str], waiter: Waiter) -> bool:
        """Use the session that another process of this user left, if it still lives."""
        cookies = means.shared.load()
        if not cookies or cookies == lost:
            return False
        user = self._who(cookies, waiter)
        if user in ("", GUEST) or self.user not in ("", user):
            return False
        self.user = user
        self._settle(cookies)
        return True

    def _log_in(self, means: _Means, waiter: Waiter) -> None:
        """One attempt with user and password; remembers how it ended."""
        cookies: dict[str, str] = {}
        wrong = partial(self._wrong_password, means.credentials)
        try:
            user = self._ask(cookies, wrong, waiter, means.credentials)
        except LoginRefused as refusal:
            means.memory.refused(str(refusal))
            raise
        if user == GUEST:
            raise wrong("it took the login for a guest's")
        if self.user and user != self.user:
            raise wrong(f"it now knows the login as {user!r}")
        self.user = user
        means.memory.accepted()
        if means.sharing:
            means.shared.store(cookies)
        self._settle(cookies)

    def renew(self, lost: Standing, waiter: Waiter) -> None:
        """Log in again after ``lost`` turned out to be worth nothing; one thread does it.

        Raises: LoginRefused, and others of the wire and the waiter.
        """
        with self._changed:
            waiter.until(self._changed, lambda: not self._renewing, "a renewed login")
            means = self._means
            if means.refusal is not None:
                raise means.refusal
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
            means.refusal = refusal
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
        whoami.take_cookies(reply, cookies)
        renewed = cookies.get(_SESSION_COOKIE) != sent.get(_SESSION_COOKIE)
        # The new session alone, without password: whose request was it?
        if renewed and self._who(cookies, waiter) != self.user:
            return False
        if cookies != sent:
            self._adopt(cookies, standing, renewed=renewed)
        if renewed:
            return True
        if reply.status in whoami.REDIRECTS or (
            expects is not Expects.ANY and whoami.is_page(reply, listing=expects is Expects.LISTING)
        ):
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
            means = self._means
        if renewed and means.sharing:
            means.shared.store(cookies)

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
        mine: Credentials | None = None,
    ) -> str:
        """``whoami.ask`` with a password of ours or without."""
        login = Login(cookies, mine.user, mine.secret) if mine else Login(cookies, "", "")
        tries = MOST_TRIES if self.user else TRIES_AT_OPEN
        return whoami.ask(self._wire, login, cookies, refusal, waiter, most_tries=tries)

    def _session_over(self, said: str) -> LoginRefused:
        return self._refused(
            f"the session given by {self._credentials.source} is not valid any more", said
        )

    def _no_guests(self, said: str) -> LoginRefused:
        return self._refused("this server lets no guests in; log in with -u USER", said)

    def _wrong_password(self, mine: Credentials, said: str) -> LoginRefused:
        if mine.expires and mine.expires < time():
            return self._refused(
                f"the token of {mine.name!r} ({mine.source}) ended on {local_time(mine.expires)}; "
                "run `xnatfs login`",
                said,
            )
        if mine.source == STORED:
            return self._refused(
                f"the token of {mine.name!r} (the stored login) is refused: it was revoked or has "
                "ended, the account is locked, or all sessions that the server allows this user "
                "are in use; run `xnatfs login`",
                said,
            )
        return self._refused(
            f"login of {mine.name!r} (from {mine.source}) refused: "
            "wrong password, expired alias token, locked account, a site with single sign-on (use "
            "`xnatfs login --token`), or all sessions that the server allows this user are in use",
            said,
        )

    def _refused(self, text: str, said: str) -> LoginRefused:
        return LoginRefused(f"{self._wire.host}: {text}" + (f" ({said})" if said else ""))

    def close(self) -> None:
        """Log out of a session that nobody else uses. Never raises."""
        mine = self._credentials
        if mine.secret and not self._means.sharing and not mine.jsession:
            self.log_out()

    def log_out(self) -> None:
        """End the session at the server. Never raises."""
        if not self._cookies or self._means.refusal is not None:
            return
        try:
            # Without the password: it would open a new session only to end it.
            login = Login(self._cookies, "", "")
            waiter = Waiter(total_s=LOGOUT_S)
            self._wire.exchange("DELETE", "/JSESSION", login, waiter, queued=False).close()
        except XnatfsError as error:
            log.debug("logging out failed: %s", error)
