"""The wire: one HTTP exchange over a pool of connections, in our own values and errors.

Below ``session``, which knows logins and retries; this knows only requests and urllib3: TLS,
proxies, timeouts, pieces of a body.
"""

from __future__ import annotations

import io
import logging
import os
import re
import socket
import ssl
import threading
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Protocol
from urllib.parse import urlsplit

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from xnatfs import __version__
from xnatfs.config import Limits
from xnatfs.errors import BadReply, UsageError
from xnatfs.rest import faults
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# What one read may return. Small pieces cost CPU (8 KB: five times that of 1 MiB, measured);
# ``read1`` returns what has arrived, so a slow link still shows its progress.
PIECE = 1 << 20

# Schedulers' variables that name the job, the more exact first.
_JOB_VARIABLES = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "JOB_ID", "OAR_JOB_ID")

# An agent with one of these words is taken for a browser and gets login pages (R§6).
_BROWSER_WORDS = re.compile(r"msie|mozilla|applewebkit|opera", re.IGNORECASE)


class Body(Protocol):
    """A body of known length that hands out its own pieces."""

    def __len__(self) -> int: ...
    def read(self, size: int = -1, /) -> bytes:
        """The next piece, b"" at the end."""


def whereabouts() -> str:
    """Host and job, for the User-Agent and the server's record: ``host, job 4711_12``."""
    host = re.sub(r"[^A-Za-z0-9._-]", "_", socket.gethostname()) or "host"
    job = next((os.environ[name] for name in _JOB_VARIABLES if os.environ.get(name)), "")
    array = os.environ.get("SLURM_ARRAY_JOB_ID", "")
    if array:
        job = f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID', '')}"
    job = re.sub(r"[^A-Za-z0-9._\[\]-]", "_", job)
    return _BROWSER_WORDS.sub("_", f"{host}, job {job}" if job else host)


def trusted_authorities() -> ssl.SSLContext:
    """The TLS context: the bundle that the environment names, else the system's and certifi's.

    Raises: UsageError when the environment names a bundle that cannot be read.
    """
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        path = os.environ.get(variable, "")
        if not path:
            continue
        try:
            if os.path.isdir(path):
                return ssl.create_default_context(capath=path)
            return ssl.create_default_context(cafile=path)
        except OSError as error:
            raise UsageError(
                f"{path}: not a bundle of certificates (named in {variable}): {error.strerror}"
            ) from error
    # OpenSSL itself honours SSL_CERT_FILE and SSL_CERT_DIR.
    context = ssl.create_default_context()
    if not os.environ.get("SSL_CERT_FILE") and not os.environ.get("SSL_CERT_DIR"):
        context.load_verify_locations(cafile=certifi.where())
    return context


class Reply:
    """One reply; its body is either loaded (``content``) or read in pieces.

    Threading: belongs to the thread that asked.
    """

    def __init__(
        self, response: requests.Response, what: str, host: str, done: Callable[[], None]
    ) -> None:
        self.status: int = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self.content = b""
        self.what = what
        self._raw: urllib3.BaseHTTPResponse = response.raw
        self._response = response
        self._host = host
        self._done: Callable[[], None] | None = done

    def header(self, name: str) -> str:
        """A header's text, "" when missing."""
        return self.headers.get(name, "")

    def set_cookies(self) -> list[str]:
        """The ``Set-Cookie`` headers, each for itself."""
        return list(self._raw.headers.getlist("Set-Cookie"))

    def read(self, size: int = PIECE, *, decode: bool = False) -> bytes:
        """The next piece of the body as it arrives, b"" at the end.

        Raises: TransferBroken, TimedOut.
        """
        try:
            return self._raw.read1(size, decode_content=decode)
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            self.close()
            raise faults.of_exception(error, self.what, self._host) from error

    def load(self, waiter: Waiter, most: int | None = None) -> None:
        """Read the whole body into ``content`` and give the connection back.

        Raises: BadReply: it is longer than ``most`` bytes; TransferBroken, and what the waiter
            raises.
        """
        # It hands out what it holds without copying it.
        body = io.BytesIO()
        try:
            # No list or error page is read for ever: every piece asks the waiter.
            while piece := self.read(decode=True):
                body.write(piece)
                if most is not None and body.tell() > most:
                    raise BadReply(f"{self.what}: more than {most} bytes")
                waiter.progress()
                waiter.check(self.what)
        finally:
            self.close()
        self.content = body.getvalue()

    def take(self) -> bytes:
        """The loaded body, which is the caller's alone from now on."""
        content, self.content = self.content, b""
        return content

    def close(self) -> None:
        """Give the connection back (when the body was read to its end) or drop it."""
        if self._done is not None:
            done, self._done = self._done, None
            try:
                # What was read to its end is in the pool already; the rest cannot be reused.
                self._response.close()
            finally:
                done()

    def __enter__(self) -> Reply:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True, slots=True)
class Login:
    """What a request says of who sends it: cookies, and Basic where there is a secret."""

    cookies: Mapping[str, str] = field(repr=False)
    user: str
    secret: str = field(repr=False)

    def headers(self) -> dict[str, str]:
        """The headers for it."""
        made = {}
        if self.cookies:
            made["Cookie"] = "; ".join(f"{name}={text}" for name, text in self.cookies.items())
        if self.secret:
            pair = f"{self.user}:{self.secret}".encode()
            made["Authorization"] = "Basic " + b64encode(pair).decode()
        return made


class Wire:
    """The pool of connections to one server.

    Args:
        url: base URL of the server, without a trailing slash.
        connections: how many requests may be on their way at once.
        limits: timeouts.

    Threading: requests' pool is thread-safe. ``_freed`` (a Condition) guards ``_free``, the
    count of connections not in use. Cookies are not kept here (the jar takes none).
    """

    def __init__(self, url: str, connections: int, limits: Limits) -> None:
        self.url = url
        self.host = urlsplit(url).netloc
        self.place = whereabouts()
        self._limits = limits
        self._freed = threading.Condition()
        self._free = connections
        self._http = requests.Session()
        self._http.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
        self._http.headers = requests.structures.CaseInsensitiveDict(
            {
                "User-Agent": f"xnatfs/{__version__} ({self.place})",
                # Never a narrower one: R§2.1 (406), R§3.3 (a JPEG made of a DICOM file).
                "Accept": "*/*",
                # Lengths must be those of the file.
                "Accept-Encoding": "identity",
            }
        )
        # Read once: a change of the environment must not redirect a mounted file system.
        self._http.proxies = requests.utils.get_environ_proxies(url)
        self._http.trust_env = False
        context = trusted_authorities() if url.startswith("https") else None
        self._adapter = _Adapter(connections, limits.io_timeout_s, context)
        self._http.mount("http://", self._adapter)
        self._http.mount("https://", self._adapter)

    def exchange(
        self,
        method: str,
        address: str,
        login: Login,
        waiter: Waiter,
        *,
        params: Mapping[str, str] | None = None,
        body: Body | None = None,
        headers: Mapping[str, str] | None = None,
        queued: bool = True,
    ) -> Reply:
        """Send one request and return when the reply's headers are here.

        Args:
            method: HTTP method.
            address: below ``/data``, percent-encoded.
            login: who asks.
            waiter: limits of the wait for a connection and of every wait on the socket.
            params: query, unencoded.
            body: what to send.
            headers: beside those of every request.
            queued: wait until one of our connections is free.

        Returns: the reply, which the caller loads or closes.

        Raises: Unreachable (surely not done), TimedOut, TransferBroken (may have been done),
            and what the waiter raises.
        """
        what = f"{method} {address}"
        done = self._take(waiter, what) if queued else _nothing
        try:
            response = self._http.request(
                method,
                f"{self.url}/data{address}",
                params=params,
                data=body,
                headers={**(headers or {}), **login.headers()},
                timeout=self._timeouts(waiter),
                stream=True,
                allow_redirects=False,
            )
        except (requests.RequestException, urllib3.exceptions.HTTPError, OSError) as error:
            done()
            raise faults.of_exception(error, what, self.host) from error
        except BaseException:
            done()
            raise
        if response.status_code not in faults.BUSY:
            # An answer without a body is progress, too. "Busy" is none: it would be asked for ever.
            waiter.progress()
        log.debug("%s: %d", what, response.status_code)
        return Reply(response, what, self.host, done)

    def _take(self, waiter: Waiter, what: str) -> Callable[[], None]:
        with self._freed:
            waiter.until(self._freed, lambda: self._free > 0, what)
            self._free -= 1
        return self._give

    def _give(self) -> None:
        with self._freed:
            self._free += 1
            self._freed.notify()

    def _timeouts(self, waiter: Waiter) -> tuple[float, float]:
        left = waiter.remaining()
        # Never 0, which a socket does not take; the waiter itself ends the wait.
        most = max(0.05, left) if left is not None else self._limits.io_timeout_s
        return (
            min(self._limits.connect_timeout_s, most),
            min(self._limits.io_timeout_s, most),
        )

    def drop_connections(self) -> None:
        """Close all idle connections: at the end, and in a child process after a fork."""
        self._adapter.close()


def _nothing() -> None:
    pass


def _patient(base: type[HTTPConnection], send_timeout_s: float) -> type[HTTPConnection]:
    """A connection class whose socket gets its own timeout for sending.

    urllib3 sends the body under the timeout of the connection attempt, which is too short for
    a piece on a thin uplink.
    """

    class Connection(base):  # type: ignore[misc, valid-type]  # the base is an argument
        def connect(self) -> None:
            super().connect()
            if self.sock is not None:
                self.sock.settimeout(send_timeout_s)

    return Connection


class _Adapter(HTTPAdapter):
    """requests' adapter with our TLS context and connection classes.

    requests would load its bundle again for every connection (39 ms of CPU, measured).
    """

    def __init__(
        self, connections: int, send_timeout_s: float, context: ssl.SSLContext | None
    ) -> None:
        plain = _patient(HTTPConnection, send_timeout_s)
        secure = _patient(HTTPSConnection, send_timeout_s)
        self._context = context
        self._pools: dict[str, Any] = {
            "http": type("Pool", (HTTPConnectionPool,), {"ConnectionCls": plain}),
            "https": type("SecurePool", (HTTPSConnectionPool,), {"ConnectionCls": secure}),
        }
        super().__init__(pool_connections=2, pool_maxsize=connections, max_retries=0)

    def init_poolmanager(self, *args: Any, **kwargs: Any) -> None:
        super().init_poolmanager(*args, ssl_context=self._context, **kwargs)
        self.poolmanager.pool_classes_by_scheme = self._pools

    def proxy_manager_for(self, proxy: str, **kwargs: Any) -> Any:
        known = proxy in self.proxy_manager
        made = super().proxy_manager_for(proxy, ssl_context=self._context, **kwargs)
        if not known:
            made.pool_classes_by_scheme = self._pools
        return made

    def cert_verify(self, conn: Any, url: str, *_: Any) -> None:
        """Always verify, against the context that the pool was made with."""
        conn.cert_reqs = "CERT_REQUIRED" if url.lower().startswith("https") else None
