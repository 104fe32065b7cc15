"""Who may knock: accounts, alias tokens, the lock-out after failures, and HTTP sessions (R§6).

What a user may do with a project is in `site.py`; how a request presents itself is in `gate.py`.
"""

from __future__ import annotations

import hashlib
import secrets
import string
import threading
import time
import uuid
from dataclasses import dataclass, replace

from xnatfs.demo.rows import Journal, Rows

_LOCK_AFTER_FAILURES = 20  # site preference maxFailedLogins (R§6)
_LOCK_OUT_S = 3600.0


@dataclass(frozen=True, slots=True)
class User:
    """An account; `secret` is the salted SHA-256 of its password, hex."""

    name: str
    salt: str = ""
    secret: str = ""
    admin: bool = False

    @property
    def guest(self) -> bool:
        """Whether this is nobody in particular."""
        return self.name == "guest"


GUEST = User("guest")


@dataclass(frozen=True, slots=True)
class AliasToken:
    """A pair of alias and secret that stands for a user; times are epoch milliseconds."""

    alias: str
    secret: str
    user: str
    number: int
    created: int
    expires: int


@dataclass(slots=True)
class Session:
    """One HTTP session; it idles out."""

    id: str
    user: str
    last_used: float


def _digest(salt: str, password: str) -> str:
    return hashlib.sha256(f"{salt}:{password}".encode()).hexdigest()


class Accounts:
    """The users and their alias tokens.

    Threading: the rows have the journal's lock; `_failures` is guarded by `_lock`.
    """

    def __init__(self, journal: Journal, token_life_s: float) -> None:
        self._journal = journal
        self._token_life_ms = int(token_life_s * 1000)
        self._lock = threading.Lock()
        self._failures: dict[str, tuple[int, float]] = {}  # how many, and when the last one was
        self.users: Rows[User] = Rows(journal, User, "user", lambda user: user.name)
        self.tokens: Rows[AliasToken] = Rows(journal, AliasToken, "token", lambda it: it.alias)

    def add(self, name: str, password: str, *, admin: bool = False) -> User:
        """Make an account."""
        salt = hashlib.sha256(name.encode()).hexdigest()[:16]
        return self.users.put(User(name, salt, _digest(salt, password), admin))

    def check(self, name: str, password: str) -> User | None:
        """The user whom this name (or alias) and password belong to; None is a failure.

        After 20 failures the account answers nobody for an hour, whatever the password.
        """
        token = self.tokens.get(name)
        if token is not None:
            owner = self.users.get(token.user)
            is_right = secrets.compare_digest(token.secret.encode(), password.encode())
            return owner if is_right else None
        user = self.users.get(name)
        if user is None:
            return None
        with self._lock:
            count, since = self._failures.get(name, (0, 0.0))
            if count >= _LOCK_AFTER_FAILURES:
                if time.time() - since < _LOCK_OUT_S:
                    return None
                count = 0
            if secrets.compare_digest(user.secret, _digest(user.salt, password)):
                self._failures.pop(name, None)
                return user
            self._failures[name] = (count + 1, time.time())
        return None

    def issue(self, user: str) -> AliasToken:
        """A new alias token for a user."""
        letters = string.ascii_letters + string.digits
        secret = "".join(secrets.choice(letters) for _ in range(64))
        number, now = self._journal.next_number("token"), int(time.time() * 1000)
        token = AliasToken(str(uuid.uuid4()), secret, user, number, now, now + self._token_life_ms)
        return self.tokens.put(token)


class Sessions:
    """The live HTTP sessions; they are gone after a restart.

    Threading: `_live` is guarded by `_lock`.
    """

    def __init__(self, idle_s: float, cap: int) -> None:
        self.idle_s = idle_s
        self._cap = cap
        self._lock = threading.Lock()
        self._live: dict[str, Session] = {}

    def touch(self, session_id: str) -> Session | None:
        """The live session of that id, kept alive by this; None when it expired or never was."""
        now = time.time()
        with self._lock:
            session = self._live.get(session_id)
            if session is None or now - session.last_used > self.idle_s:
                self._live.pop(session_id, None)
                return None
            session.last_used = now
            return replace(session)

    def open(self, user: str) -> Session | None:
        """A new session for a user; None when the user has as many as are allowed (R§6)."""
        now = time.time()
        with self._lock:
            if len(self._live) % 64 == 0:  # a sweep now and then is enough
                live = self._live.items()
                self._live = {it: s for it, s in live if now - s.last_used <= self.idle_s}
            mine = sum(1 for session in self._live.values() if session.user == user)
            if user != GUEST.name and mine >= self._cap:
                return None
            session = Session(uuid.uuid4().hex.upper(), user, now)
            self._live[session.id] = session
            return replace(session)

    def close(self, session_id: str) -> None:
        """End one session."""
        with self._lock:
            self._live.pop(session_id, None)

    def expire_all(self) -> None:
        """End every session, as idling out would."""
        with self._lock:
            self._live.clear()
