"""The body of a request as worker threads read it, while the loop receives it."""

from __future__ import annotations

import asyncio
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as NotYet

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError

from xnatfs.demo.wire import BrokenTransferError


class LiveBody:
    """Implements `wire.Body` over aiohttp's stream.

    Threading: `read` is called by one worker; the stream itself is only touched in the loop.
    """

    def __init__(self, request: web.BaseRequest, loop: asyncio.AbstractEventLoop) -> None:
        self._stream = request.content
        self._loop = loop
        self._left: int | None = None
        self.length = request.content_length if request.can_read_body else 0
        self.broken = False

    def break_after(self, count: int) -> None:
        """Break the transfer after so many bytes, as a reset connection would."""
        self._left = count

    def read(self, limit: int) -> bytes:
        """Up to `limit` bytes, b"" at the end. Raises BrokenTransferError."""
        if self._left == 0:
            self.broken = True
            raise BrokenTransferError("scripted")
        if self._left is not None:
            limit = min(limit, self._left)
        waiting = asyncio.run_coroutine_threadsafe(self._stream.read(limit), self._loop)
        while True:
            try:
                piece = waiting.result(timeout=1.0)
                break
            except NotYet:
                if self._loop.is_closed():
                    raise BrokenTransferError("the server stopped") from None
            except CancelledError:
                raise BrokenTransferError("the server stopped") from None
            except (OSError, ClientPayloadError, HttpProcessingError, web.RequestPayloadError) as e:
                raise BrokenTransferError("the connection broke") from e
        if self._left is not None:
            self._left -= len(piece)
        return piece
