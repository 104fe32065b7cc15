"""A link between a client and a server: delay, shared bandwidth, slow start, connection set-up.

Forwards TCP connections of any protocol. Beside `xnatfs demo --serve --rtt-ms --mbps`, and for
benchmarks in their own process. The model, per direction: bytes leave one after the other at the
rate of the link, whichever connection they belong to, and arrive half a round trip later; a
connection may have one congestion window unacknowledged, which begins with ten segments, doubles
with every round trip and begins again after a pause. A new connection carries nothing for two
round trips (TCP and TLS shake hands). Nothing is lost, so nothing is sent twice.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

_SEGMENT = 1460  # bytes
_FIRST_WINDOW = 10 * _SEGMENT
_LARGEST_WINDOW = 6 << 20  # what Linux lets a receive buffer grow to
_PIECE = 64 << 10
_SETUP_TRIPS = 2
_PAUSE_S = 0.2  # besides a round trip: Linux's least retransmission time, after which cwnd is reset


class _Channel:
    """One direction of the link, shared by all connections; used in the loop only."""

    def __init__(self, rtt_s: float, bytes_per_s: float) -> None:
        self._rate = bytes_per_s
        self._free_at = 0.0
        # What a router holds back: about a round trip's worth, then senders wait.
        self._queue_s = max(rtt_s, 0.02)

    async def leave(self, count: int) -> float:
        """Put bytes on the link; returns when the last of them is on its way (loop time)."""
        loop = asyncio.get_running_loop()
        while (early := self._free_at - self._queue_s - loop.time()) > 0:
            await asyncio.sleep(early)
        self._free_at = max(self._free_at, loop.time())
        if self._rate:
            self._free_at += count / self._rate
        return self._free_at


class _Window:
    """How much one connection may have on the way in one direction."""

    def __init__(self, rtt_s: float) -> None:
        self._rtt_s = rtt_s
        self._size = _FIRST_WINDOW
        self._away: deque[tuple[float, int]] = deque()  # when acknowledged, how many bytes
        self._outstanding = 0
        self._last = 0.0

    async def room(self) -> int:
        """Wait until something may be sent; returns how many bytes."""
        loop = asyncio.get_running_loop()
        while True:
            now = loop.time()
            while self._away and self._away[0][0] <= now:
                count = self._away.popleft()[1]
                self._outstanding -= count
                self._size = min(self._size + count, _LARGEST_WINDOW)
            if not self._outstanding and now - self._last > self._rtt_s + _PAUSE_S:
                self._size = _FIRST_WINDOW
            if self._outstanding < self._size:
                return min(self._size - self._outstanding, _PIECE)
            await asyncio.sleep(self._away[0][0] - now)

    def sent(self, count: int, acknowledged: float) -> None:
        """Note bytes on their way, and when the sender will hear of their arrival."""
        self._away.append((acknowledged, count))
        self._outstanding += count
        self._last = acknowledged


class LinkProxy:
    """A link in front of one server; `url` is what clients use instead of the server's.

    Threading: an event loop in a daemon thread of its own does everything; `start` and `stop`
    may be called from any thread, once each.
    """

    def __init__(self, target_url: str, rtt_s: float, bytes_per_s: float = 0.0) -> None:
        """The link.

        Args:
            target_url: of the server behind it.
            rtt_s: round-trip time in seconds.
            bytes_per_s: in each direction; 0 is no limit.
        """
        parts = urlsplit(target_url)
        self._target = parts
        self._rtt_s = rtt_s
        self._rate = bytes_per_s
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-link", daemon=True)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ending: asyncio.Event | None = None
        self._trouble: OSError | None = None
        self._port = 0

    @property
    def url(self) -> str:
        """The base URL with the link in between."""
        return self._target._replace(netloc=f"127.0.0.1:{self._port}").geturl()

    def start(self, port: int = 0) -> LinkProxy:
        """Listen on the loopback; returns itself. Raises OSError."""
        self._port = port
        self._thread.start()
        self._ready.wait()
        if self._trouble is not None:
            raise self._trouble
        return self

    def stop(self) -> None:
        """Cut every connection."""
        if self._loop is not None and self._ending is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._ending.set)
            self._thread.join()

    def __enter__(self) -> LinkProxy:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        problem: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop, self._ending = asyncio.get_running_loop(), asyncio.Event()
        self._up, self._down = (_Channel(self._rtt_s, self._rate) for _ in range(2))
        self._open: set[asyncio.Task[None]] = set()
        try:
            server = await asyncio.start_server(
                self._accept, "127.0.0.1", self._port, limit=_PIECE, backlog=512
            )
        except OSError as problem:
            self._trouble = problem
            self._ready.set()
            return
        self._port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._ending.wait()
        server.close()
        for task in self._open:
            task.cancel()
        await asyncio.gather(*self._open, return_exceptions=True)

    def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._join(near, back))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _join(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        forth: asyncio.StreamWriter | None = None
        try:
            await asyncio.sleep(_SETUP_TRIPS * self._rtt_s)
            far, forth = await asyncio.open_connection(
                self._target.hostname, self._target.port, limit=_PIECE
            )
            async with asyncio.TaskGroup() as both:
                both.create_task(self._carry(near, forth, self._up))
                both.create_task(self._carry(far, back, self._down))
        except* OSError:
            pass  # a reset on one side: the other side gets it below
        finally:
            for writer in (back, forth):
                if writer is not None:
                    writer.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, channel: _Channel
    ) -> None:
        window = _Window(self._rtt_s)
        arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()
        delivery = asyncio.create_task(self._deliver(arriving, sink))
        try:
            piece = b"-"
            while piece and not delivery.done():
                piece = await source.read(await window.room())
                left = await channel.leave(len(piece))
                window.sent(len(piece), left + self._rtt_s)
                arriving.put_nowait((left + self._rtt_s / 2, piece))
            await delivery
        finally:
            delivery.cancel()

    async def _deliver(
        self, arriving: asyncio.Queue[tuple[float, bytes]], sink: asyncio.StreamWriter
    ) -> None:
        """Hand over what arrives, in time; an empty piece is the end of that direction."""
        loop = asyncio.get_running_loop()
        while True:
            due, piece = await arriving.get()
            if (early := due - loop.time()) > 0:
                await asyncio.sleep(early)
            if not piece:
                with suppress(OSError):
                    sink.write_eof()
                return
            sink.write(piece)
            await sink.drain()
