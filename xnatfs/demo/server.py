"""The look-alike server: aiohttp in front, a synchronous application in worker threads.

Tests, benchmarks and `serve.py` start a `DemoServer`; it lives in a daemon thread of its own and
binds the loopback only.
"""

from __future__ import annotations

import asyncio
import json
import os
import ssl
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from weakref import WeakKeyDictionary

from aiohttp import web

from xnatfs.demo import application, sample
from xnatfs.demo.calls import Call
from xnatfs.demo.faults import Fault, FaultScript, fault_from
from xnatfs.demo.gate import login_page
from xnatfs.demo.sending import LiveBody, reset, send
from xnatfs.demo.site import Site, SiteOptions, open_site
from xnatfs.demo.wire import Query, Reply, container_reply

_WORKERS = 64  # an upload holds one for as long as it takes
_REQUESTS_PER_CONNECTION = 100  # stock Tomcat (R§12.12)
_KEEP_ALIVE_S = 20.0
_HEADER_LIMIT = 8192  # bytes, request line included
_SWALLOWED = 2 << 20  # bytes of an unread body that are read away before the close (R§8)


def _delay_of_environment() -> float:
    return float(os.environ.get("XNATFS_DEMO_DELAY_MS") or 0) / 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions(SiteOptions):
    """How the server runs, and what its site does differently."""

    # The archive's folder; filled with sample data when it is empty.
    root: Path
    # 0 lets the system choose one.
    port: int = 0
    # Never anything but the loopback.
    host: str = "127.0.0.1"
    # Seconds that every request waits before it is handled. The default is taken from the
    # environment, XNATFS_DEMO_DELAY_MS in milliseconds: all tests can be run on a slow line.
    delay_s: float = field(default_factory=_delay_of_environment)
    # A file that gets a JSON line for each request.
    request_log: Path | None = None
    ssl_context: ssl.SSLContext | None = None
    # What an empty root is filled with: full, small (8 slices) or none (users only).
    sample: str = "full"
    # The sample gets resources whose catalogs disagree with the disk, and one without digests.
    drift: bool = False


@dataclass(frozen=True, slots=True)
class LogEntry:
    """One request: `bytes` of the reply's body, `status` 0 if the connection was reset instead.

    `fault` is the kind of the scripted fault that hit it, or "".
    """

    time: float
    verb: str
    path: str
    status: int
    bytes: int
    user: str
    fault: str = ""


class DemoServer:
    """One server over one archive folder.

    Threading: `start`, `stop` and the rest may be called from any thread; the loop runs in its
    own, the application in workers. The log is only appended to, in the loop, and cleared.
    """

    def __init__(self, options: ServerOptions) -> None:
        self._options = options
        self._site: Site | None = None
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._ready = threading.Event()
        self._trouble: Exception | None = None
        self._workers = ThreadPoolExecutor(_WORKERS, thread_name_prefix="demo")
        self._served: WeakKeyDictionary[asyncio.Transport, int] = WeakKeyDictionary()
        self.log: list[LogEntry] = []
        self.faults = FaultScript()
        self.port = 0

    @property
    def url(self) -> str:
        """The base URL, context path included."""
        return self._base(f"{self._options.host}:{self.port}")

    def _base(self, authority: str) -> str:
        scheme = "https" if self._options.ssl_context else "http"
        return f"{scheme}://{authority}{self._options.context_path}"

    @property
    def site(self) -> Site:
        """The site behind the front, for tests that look at the archive itself."""
        if self._site is None:
            raise RuntimeError("the server was not started")
        return self._site

    def clear_log(self) -> None:
        """Forget the requests so far."""
        self.log.clear()

    def expire_sessions(self) -> None:
        """Let every HTTP session expire."""
        self.site.sessions.expire_all()

    def start(self) -> None:
        """Open the archive, fill it if it is empty, and listen. Raises OSError."""
        self._site = open_site(self._options.root, self._options)
        sample.fill(self._site, self._options.sample, drift=self._options.drift)
        self._thread = threading.Thread(
            target=lambda: asyncio.run(self._serve()), name="demo-server", daemon=True
        )
        self._thread.start()
        self._ready.wait()
        if self._trouble is not None:
            self._site.close()
            raise self._trouble

    def stop(self) -> None:
        """Close the listening socket and every connection."""
        if self._thread is not None and self._loop is not None and self._ending is not None:
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()
            self._thread = None
            self.site.close()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        server = web.Server(
            self._handle, access_log=None, keepalive_timeout=_KEEP_ALIVE_S,
            read_bufsize=1 << 20, lingering_time=0, auto_decompress=True,
            max_line_size=1 << 16, max_field_size=1 << 16,
        )  # fmt: skip
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        listening = web.TCPSite(
            runner, self._options.host, self._options.port, ssl_context=self._options.ssl_context,
            backlog=512,
        )  # fmt: skip
        try:
            await listening.start()
            self.port = runner.addresses[0][1]
        except OSError as problem:
            self._trouble = problem
            self._ending.set()
        self._ready.set()
        await self._ending.wait()
        await runner.cleanup()
        # A close waits until everything is written, which somebody who reads no more keeps it from.
        for connection in list(self._served):
            connection.abort()
        await asyncio.sleep(0)
        self._workers.shutdown(wait=False, cancel_futures=True)

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path, connection = request.raw_path, request.transport
        if path.startswith("/demo/"):
            return await self._control(request)
        fault = self.faults.match(request.method, path)
        if self._options.delay_s:
            await asyncio.sleep(self._options.delay_s)
        if request.headers.get("Expect", "").lower() == "100-continue" and connection:
            connection.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        reply, user = await self._reply(request, fault)

        def note(sent: int) -> None:
            status = reply.status if reply else 0
            kind = fault.kind if fault else ""
            self.log.append(LogEntry(time.time(), request.method, path, status, sent, user, kind))
            if self._options.request_log is not None:
                with self._options.request_log.open("a") as out:
                    out.write(json.dumps(asdict(self.log[-1])) + "\n")

        if reply is None:
            note(0)
            return reset(request)
        number = self._served.get(connection, 0) + 1 if connection else 0
        if connection:
            self._served[connection] = number
        swallowed = 0  # a little of an unread body is read away; more than that is cut off
        with suppress(Exception):
            while not request.content.at_eof() and swallowed < _SWALLOWED:
                swallowed += len(await asyncio.wait_for(request.content.readany(), 1.0))
        last = number >= _REQUESTS_PER_CONNECTION
        return await send(request, reply, self._workers, fault, note, last=last)

    async def _reply(
        self, request: web.BaseRequest, fault: Fault | None
    ) -> tuple[Reply | None, str]:
        """The reply and its user; None when the connection is to be reset."""
        kind = fault.kind if fault else ""
        if fault is not None and kind in ("delay", "stall") and not fault.bytes:
            await asyncio.sleep(fault.seconds)
        if fault is not None and kind == "status":
            return _scripted(fault), ""
        if kind == "html":
            return login_page(self._options.context_path), ""
        if kind == "reset":
            return None, ""
        if kind == "expire":
            self.expire_sessions()
        headers = {name.lower(): value for name, value in request.headers.items()}
        size = len(request.raw_path) + sum(len(it) + len(headers[it]) + 4 for it in headers)
        if size > _HEADER_LIMIT:
            return container_reply(400), ""
        is_upload = request.method in ("PUT", "POST") and request.can_read_body
        is_broken = kind == "reset_after" and is_upload
        body = LiveBody(request, (fault.bytes or 0) if fault and is_broken else None)
        path, _, query = request.raw_path.partition("?")
        # The address that the client used: there may be a proxy in between.
        base = self._base(headers.get("host", ""))
        call = Call(self.site, request.method, path, Query(query), headers, body, base,
                    conflict=kind == "conflict")  # fmt: skip
        loop = asyncio.get_running_loop()
        reply, user = await loop.run_in_executor(self._workers, application.answer, call)
        if body.broken:
            return None, user
        if fault is not None and kind == "status_after":
            return _scripted(fault), user
        return reply, user

    async def _control(self, request: web.BaseRequest) -> web.StreamResponse:
        """The addresses by which tests in other processes steer the server."""
        if request.remote not in ("127.0.0.1", "::1"):
            return web.Response(status=403)
        what = (request.method, request.path.removeprefix("/demo/"))
        if what == ("GET", "log"):
            return web.json_response([asdict(entry) for entry in self.log])
        if what == ("POST", "faults"):
            try:
                self.faults.add(*(fault_from(it) for it in json.loads(await request.text())))
            except (ValueError, TypeError, AttributeError) as problem:
                return web.Response(status=400, text=str(problem))
            return web.Response(status=204)
        deeds = {
            ("DELETE", "faults"): self.faults.clear,
            ("DELETE", "log"): self.clear_log,
            ("POST", "expire"): self.expire_sessions,
        }
        if what not in deeds:
            return web.Response(status=404)
        deeds[what]()
        return web.Response(status=204)


def _scripted(fault: Fault) -> Reply:
    retry = (("Retry-After", fault.retry_after),) if fault.retry_after else ()
    return container_reply(fault.code, "scripted", retry)
