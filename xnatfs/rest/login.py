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
from time import time
from urllib.parse import urlsplit

from xnatfs.config import ServerSettings, state_home
from xnatfs.errors import LoginRefused, UsageError
from xnatfs.rest import netrc
from xnatfs.rest.private import PrivateFolder
from xnatfs.waiting import Waiter

# How long a refusal is believed without asking. Seconds.
REFUSAL_AGE_S = 600.0

# PBKDF2 rounds of the hash that names files by a secret: about 10 ms, twice per process.
_ROUNDS = 25_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login. ``user`` and ``secret`` empty: a guest, or a session given by the user."""

    user: str
    secret: str = field(repr=False)
    # Where they come from, for messages: "XNAT_USER", "/home/ada/.netrc", "the prompt".
    source: str
    # A server session given by the user (XNAT_JSESSION).
    jsession: str = field(default="", repr=False)


def find_credentials(
    server: ServerSettings,
    environ: Mapping[str, str],
    prompt: Callable[[str], str] | None,
    *,
    state_folder: Path | None = None,
) -> Credentials:
    """Find the login for a server.

    The order: ``--anonymous``; XNAT_JSESSION; XNAT_USER and XNAT_PASS; the stored login; the
    netrc file; the prompt. A login name that was asked for (``-u``, or XNAT_USER alone) narrows
    all of them, and then the netrc file comes first.

    Args:
        server: settings; ``user`` is the name asked for.
        environ: the environment (XNATPY_* names are known too).
        prompt: asks a person; the question begins with "Password" when the answer must not be
            shown. None where nobody can be asked.
        state_folder: where logins are stored, if not in the usual place.

    Raises: UsageError when there is no login, or when it would not be safe to use it.
    """
    parts = urlsplit(server.url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise UsageError(f"{server.url!r}: a server is given as https://HOST[:PORT][/PATH]")
    if parts.username is not None or parts.password is not None:
        raise UsageError(
            f"{parts.hostname}: no user or password in the address, where others can see it; "
            "use -u USER, XNAT_USER and XNAT_PASS, or ~/.netrc"
        )
    if server.anonymous:
        return Credentials("", "", "--anonymous")
    found = _find(server, environ, prompt, state_folder or state_home())
    _check_transport(server, parts.scheme, parts.hostname)
    return found


def _find(
    server: ServerSettings,
    environ: Mapping[str, str],
    prompt: Callable[[str], str] | None,
    state_folder: Path,
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
    stored = stored_login(server.url, state_folder)
    in_netrc = _in_netrc(server.url, environ, wanted)
    order = (in_netrc, pair, stored) if wanted else (pair, stored, in_netrc)
    for login in order:
        if login is not None and wanted in ("", login.user):
            return login
    host = urlsplit(server.url).netloc
    if prompt is None:
        raise UsageError(
            f"{host}: no login found"
            + (f" for {wanted!r}" if wanted else "")
            + ": set XNAT_USER and XNAT_PASS, add the host to ~/.netrc, or use --anonymous"
        )
    name = wanted or prompt(f"User name for {host}: ").strip()
    password = prompt(f"Password for {name} at {host}: ") if name else ""
    if not name or not password:
        raise UsageError(f"{host}: no login given; a guest says so with --anonymous")
    return Credentials(name, password, "the prompt")


def _variable(environ: Mapping[str, str], *names: str) -> tuple[str, str]:
    return next(((name, environ[name]) for name in names if environ.get(name)), ("", ""))


def _in_netrc(url: str, environ: Mapping[str, str], user: str) -> Credentials | None:
    parts = urlsplit(url)
    host = (parts.hostname or "").lower()
    port = parts.port or (443 if parts.scheme == "https" else 80)
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    file = Path(environ["NETRC"]) if environ.get("NETRC") else home / ".netrc"
    entry = netrc.find(file, (f"{host}:{port}", host), user)
    return Credentials(entry.login or user, entry.password, str(file)) if entry else None


def _check_transport(server: ServerSettings, scheme: str, host: str) -> None:
    """Refuse to send a secret readable over a network."""
    if scheme == "https" or server.allow_http or host.lower() == "localhost":
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


def stored_login(url: str, state_folder: Path) -> Credentials | None:
    """The login that ``store_login`` kept for a server, or None."""
    folder = PrivateFolder(state_folder / "login")
    record = folder.read(_login_name(url))
    user, secret = record.get("user"), record.get("secret")
    if not isinstance(user, str) or not isinstance(secret, str) or not user or not secret:
        return None
    return Credentials(user, secret, "the stored login")


def store_login(url: str, credentials: Credentials, state_folder: Path) -> None:
    """Keep a login (an alias token and its secret) in a file that only its owner reads.

    Raises: DiskFault, NoSpace.
    """
    folder = PrivateFolder(state_folder / "login")
    folder.write(_login_name(url), {"user": credentials.user, "secret": credentials.secret})


def forget_login(url: str, state_folder: Path) -> None:
    """Remove the stored login of a server, if there is one."""
    PrivateFolder(state_folder / "login").remove(_login_name(url))


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
