"""The login: where user and password come from, and what a user's processes tell each other.

The only place that reads secrets. None of them reaches a log, an error text, a command line or
a file that others can read.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from time import localtime, strftime, time
from urllib.parse import urlsplit

from xnatfs.config import ServerSettings, state_home
from xnatfs.errors import DiskFault, LoginRefused, UsageError
from xnatfs.rest import netrc
from xnatfs.rest.private import PrivateFolder
from xnatfs.waiting import Waiter

# How long a refusal is believed without asking. Seconds.
REFUSAL_AGE_S = 600.0

# Where the login of ``xnatfs login`` comes from; who uses it looks for a newer one when it ends.
STORED = "the stored login"

# PBKDF2 rounds of the hash that names files by a secret: about 10 ms, twice per process.
_ROUNDS = 25_000


def local_time(seconds: float) -> str:
    """A time in the words of this machine: ``2026-03-01 14:05``."""
    return strftime("%Y-%m-%d %H:%M", localtime(seconds))


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login. ``user`` and ``secret`` empty: a guest, or a session given by the user."""

    user: str
    secret: str = field(repr=False)
    # Where they come from, for messages: "XNAT_USER", "/home/ada/.netrc", "the prompt".
    source: str
    # A server session given by the user (XNAT_JSESSION).
    jsession: str = field(default="", repr=False)
    # The account that an alias token stands for; "": ``user`` is the account.
    account: str = ""
    # When a token was issued and when the server ends it, seconds since the epoch; 0: unknown.
    issued: float = 0.0
    expires: float = 0.0

    @property
    def name(self) -> str:
        """The account, for people."""
        return self.account or self.user


def find_credentials(
    server: ServerSettings,
    environ: Mapping[str, str],
    prompt: Callable[[str], str] | None,
    *,
    state_folder: Path | None = None,
    stored: bool = True,
) -> Credentials:
    """Find the login for a server.

    The order: ``--anonymous``; XNAT_JSESSION; XNAT_USER and XNAT_PASS; the stored login; the
    netrc file; the prompt. A netrc file that was asked for comes before the environment. A login
    name that was asked for (``-u``, or XNAT_USER alone) narrows all of them, and then the netrc
    file comes first, too.

    Args:
        server: settings; ``user`` is the name asked for.
        environ: the environment (XNATPY_* names are known too).
        prompt: asks a person; the question begins with "Password" when the answer must not be
            shown. None where nobody can be asked.
        state_folder: where logins are stored, if not in the usual place.
        stored: whether the stored login counts.

    Raises: UsageError when there is no login, or when it would not be safe to use it.
    """
    check_address(server.url)
    if server.anonymous:
        return Credentials("", "", "--anonymous")
    folder = state_folder or state_home()
    found = _find(server, environ, prompt, folder if stored else None)
    check_transport(server)
    return found


def check_address(url: str) -> None:
    """Refuse what is no server's address, and secrets in it. Raises: UsageError."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{url!r}: a server is given as https://HOST[:PORT][/PATH]")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{parts.hostname}: no user or password in the address, where others can see it; "
            "use -u USER, XNAT_USER and XNAT_PASS, or ~/.netrc"
        )


def _find(
    server: ServerSettings,
    environ: Mapping[str, str],
    prompt: Callable[[str], str] | None,
    state_folder: Path | None,
) -> Credentials:
    user_name, user = _variable(environ, "XNAT_USER", "XNATPY_USER")
    _, secret = _variable(environ, "XNAT_PASS", "XNATPY_PASS")
    pair = Credentials(user, secret, user_name) if user and secret else None
    session_name, jsession = _variable(environ, "XNAT_JSESSION", "XNATPY_JSESSION")
    if jsession:
        if not jsession.isascii() or not jsession.replace(".", "").replace("-", "").isalnum():
            raise UsageError(f"{session_name}: not a session id")
        # With a pair beside it an expired session can be renewed; open() checks the identity.
        login = pair if pair is not None and server.user in ("", pair.user) else None
        return Credentials(
            login.user if login else "", login.secret if login else "", session_name, jsession
        )
    wanted = server.user or (user if not secret else "")

    def places() -> Iterator[Credentials | None]:
        # Each is looked at when it is its turn: the mode of one that is not needed is no matter.
        if wanted or server.netrc:
            yield _in_netrc(server, environ, wanted)
        yield pair
        yield stored_login(server.url, state_folder) if state_folder else None
        if not (wanted or server.netrc):
            yield _in_netrc(server, environ, wanted)

    for login in places():
        if login is not None and wanted in ("", login.user, login.account):
            return login
    host = urlsplit(server.url).netloc
    if prompt is None:
        raise UsageError(
            f"{host}: no login found"
            + (f" for {wanted!r}" if wanted else "")
            + ": run `xnatfs login`, set XNAT_USER and XNAT_PASS, add the host to ~/.netrc, or use "
            "--anonymous"
        )
    name = wanted or prompt(f"User name for {host}: ").strip()
    password = prompt(f"Password for {name} at {host}: ") if name else ""
    if not name or not password:
        raise UsageError(f"{host}: no login given; a guest says so with --anonymous")
    return Credentials(name, password, "the prompt")


def _variable(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))


def _in_netrc(server: ServerSettings, environ: Mapping[str, str], user: str) -> Credentials | None:
    parts = urlsplit(server.url)
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    file = server.netrc or netrc.netrc_file(environ)
    if server.netrc and not file.exists():
        raise UsageError(f"{file}: there is no such file")
    entry = netrc.find(file, (f"{host}:{port}", host), user)
    return Credentials(entry.login or user, entry.password, str(file)) if entry else None


def check_transport(server: ServerSettings) -> None:
    """Refuse to send a secret readable over a network. Raises: UsageError."""
    parts = urlsplit(server.url)
    host = (parts.hostname or "").lower()
    if parts.scheme == "https" or server.allow_http or host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise UsageError(
        f"{server.url}: a password would travel readable for everyone on the way; "
        "use https://, or --allow-http if you must"
    )


def _login_name(url: str) -> str:
    return hashlib.sha256(url.rstrip("/").encode()).hexdigest()[:32] + ".json"


def login_file(url: str, state_folder: Path) -> Path:
    """Where the stored login of a server lies, if there is one."""
    return state_folder / "login" / _login_name(url)


def stored_login(url: str, state_folder: Path) -> Credentials | None:
    """The login that ``store_login`` kept for a server, or None.

    Raises: UsageError: others can read it.
    """
    file = login_file(url, state_folder)
    folder = PrivateFolder(file.parent)
    record = folder.read(file.name)
    if not record and (mode := folder.loose_mode(file.name)):
        raise UsageError(f"{file}: others may read it (mode {mode:04o}); run: chmod 600 {file}")
    return _of_record(record)


def _of_record(record: Mapping[str, object]) -> Credentials | None:
    texts = [record.get(key) for key in ("user", "secret", "account")]
    times = [record.get(key) for key in ("issued", "expires")]
    user, secret, account = (text if isinstance(text, str) else "" for text in texts)
    issued, expires = (float(at) if isinstance(at, int | float) else 0.0 for at in times)
    if not user or not secret:
        return None
    return Credentials(user, secret, STORED, account=account, issued=issued, expires=expires)


def stored_logins(state_folder: Path) -> list[tuple[str, Credentials]]:
    """All stored logins: (server, login)."""
    folder = PrivateFolder(state_folder / "login")
    records = [folder.read(name) for name in folder.names(".json")]
    found = [(str(record.get("server", "")), _of_record(record)) for record in records]
    pairs = [(server, login) for server, login in found if server and login]
    return sorted(pairs, key=lambda pair: pair[0])


def store_login(url: str, credentials: Credentials, state_folder: Path) -> None:
    """Keep a login (an alias token and its secret) in a file that only its owner reads.

    Raises: DiskFault, NoSpace.
    """
    file = login_file(url, state_folder)
    record = {
        "server": url.rstrip("/"),
        "user": credentials.user,
        "secret": credentials.secret,
        "account": credentials.account,
        "issued": credentials.issued,
        "expires": credentials.expires,
    }
    PrivateFolder(file.parent).write(file.name, record)


def forget_login(url: str, state_folder: Path) -> None:
    """Remove the stored login of a server, if there is one. Raises: DiskFault."""
    file = login_file(url, state_folder)
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise DiskFault(f"{file}: cannot be removed: {error.strerror}") from error


def _account(url: str, credentials: Credentials, folder: PrivateFolder) -> str:
    """A file name for server, user and secret that tells nobody what they are.

    The secret is part of it, so that a wrong password finds neither the session nor the
    refusals of the right one.
    """
    who = hashlib.sha256(f"{url}\0{credentials.user}".encode()).hexdigest()[:24]
    hashed = hashlib.pbkdf2_hmac(
        "sha256", credentials.secret.encode("utf-8", "surrogatepass"), folder.salt(), _ROUNDS
    )
    return f"{who}-{hashed.hex()[:24]}"


class RefusalMemory:
    """A definite 401, remembered for all processes of this user (R§6: 20 of them lock).

    Args:
        state_folder: the state folder.
        url: the server.
        credentials: the login; without a secret nothing is remembered.

    Threading: no state but files; the lock is between processes. Where the file system has no
    locks, processes that start in the same moment may each ask once.
    """

    def __init__(self, state_folder: Path, url: str, credentials: Credentials) -> None:
        self._folder = PrivateFolder(state_folder / "sessions")
        self._name = _account(url, credentials, self._folder) if credentials.secret else ""

    @contextmanager
    def turn(self, waiter: Waiter) -> Iterator[bool]:
        """Wait for our turn to log in; of many processes one asks first.

        Yields: whether this login was accepted lately, so that nobody needs to wait.

        Raises: LoginRefused when it was refused lately, to us or another process.
        """
        if self._accepted_lately():
            yield True
            return
        with self._folder.lock(f"{self._name}.lock", waiter, "our turn to log in"):
            accepted = self._accepted_lately()
            if not accepted:
                yield False
        if accepted:
            yield True

    def _accepted_lately(self) -> bool:
        record = self._folder.read(f"{self._name}.login")
        at = record.get("time")
        age = time() - at if isinstance(at, int | float) else REFUSAL_AGE_S
        if not 0 <= age < REFUSAL_AGE_S:
            return False
        if record.get("outcome") == "refused":
            left = max(1, round((REFUSAL_AGE_S - age) / 60))
            raise LoginRefused(
                f"{record.get('reason')}; not asked again for {left} min, so that the account "
                "is not locked"
            )
        return record.get("outcome") == "accepted"

    def refused(self, reason: str) -> None:
        """Remember a definite 401; ``reason`` is the error text."""
        self._write({"outcome": "refused", "reason": reason, "time": time()})

    def accepted(self) -> None:
        """Remember that the login is good."""
        self._write({"outcome": "accepted", "time": time()})

    def clear(self) -> None:
        """Forget how it ended: the next login asks the server."""
        if self._name:
            self._folder.remove(f"{self._name}.login")

    def _write(self, record: dict[str, object]) -> None:
        if self._name:
            self._folder.try_write(f"{self._name}.login", record)


class SharedSession:
    """One server session for all processes of a user (a site caps sessions, R§6).

    The session's cookies lie in a file that only its owner reads; nobody logs out of it, it
    idles out.

    Args: as ``RefusalMemory``.

    Threading: no state but a file that is replaced atomically.
    """

    def __init__(self, state_folder: Path, url: str, credentials: Credentials) -> None:
        self._folder = PrivateFolder(state_folder / "sessions")
        self._name = (
            f"{_account(url, credentials, self._folder)}.json" if credentials.secret else ""
        )

    def load(self) -> dict[str, str]:
        """The cookies of the session that another process left; empty when there is none."""
        cookies = self._folder.read(self._name).get("cookies") if self._name else None
        if not isinstance(cookies, dict):
            return {}
        return {str(name): str(text) for name, text in cookies.items()}

    def store(self, cookies: Mapping[str, str]) -> None:
        """Leave our session to other processes."""
        if self._name:
            self._folder.try_write(self._name, {"cookies": dict(cookies)})
