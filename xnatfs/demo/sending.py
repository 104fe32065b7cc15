"""A reply on its way out, with the faults that happen on the way; and its request's body."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import CancelledError, Executor
from concurrent.futures import TimeoutError as NotYet
from contextlib import suppress
from pathlib import Path

from aiohttp import ClientPayloadError, web
from aiohttp.http_exceptions import HttpProcessingError
from multidict import CIMultiDict

from xnatfs.demo.faults import Fault
from xnatfs.demo.wire import PIECE, BrokenTransferError, FileSlice, Reply

_BROKEN = (OSError, ClientPayloadError, HttpProcessingError, web.RequestPayloadError)
_ON_THE_WAY = ("reset_after", "truncate", "slow", "corrupt", "stall")
_SMALL = PIECE // 8  # what is read from the page cache sooner than a thread answers


class LiveBody:
    """Implements `wire.Body` over aiohttp's stream.

    Threading: `read` is called by one worker; the stream itself is only touched in the loop.
    """

    def __init__(self, request: web.BaseRequest, break_after: int | None = None) -> None:
        """`break_after` so many bytes the transfer breaks, as a reset connection would."""
        self._stream = request.content
        self._loop = asyncio.get_running_loop()
        self._left = break_after
        self.length = request.content_length if request.can_read_body else 0
        self.broken = False

    def read(self, limit: int) -> bytes:
        """Up to `limit` bytes, b"" at the end. Raises BrokenTransferError."""
        if self._left == 0:
            self.broken = True
            raise BrokenTransferError("scripted")
        limit = limit if self._left is None else min(limit, self._left)
        waiting = asyncio.run_coroutine_threadsafe(self._stream.read(limit), self._loop)
        while True:
            try:
                piece = waiting.result(timeout=1.0)
                break
            except NotYet:
                if self._loop.is_closed():
                    raise BrokenTransferError("the server stopped") from None
            except (CancelledError, *_BROKEN) as problem:
                raise BrokenTransferError("the connection broke") from problem
        if self._left is not None:
            self._left -= len(piece)
        return piece


class _CutOffError(Exception):
    """The rest of the body is not sent."""


async def send(
    request: web.BaseRequest,
    reply: Reply,
    workers: Executor,
    fault: Fault | None,
    note: Callable[[int], None],
    *,
    last: bool,
) -> web.StreamResponse:
    """Send a reply; `last` closes the connection afterwards.

    `note` is told the number of body bytes before the client can see the end of the reply, so
    that whoever has the reply also finds it in the log.
    """
    available = _available(reply)
    length = reply.announced if reply.announced is not None else available
    length = None if reply.streamed else length
    response = _response(request, reply, length)
    is_empty = request.method == "HEAD" or reply.status in (204, 304)
    is_short = length is not None and not is_empty and length != available
    if last or is_short or not request.content.at_eof():
        response.force_close()
    fault = fault if fault and fault.kind in _ON_THE_WAY else None
    sent = 0
    known = 0 if is_empty else available if fault is None else None
    if known is not None:
        note(known)
    try:
        if await response.prepare(request) is None:
            return response
        if not is_empty and (fault or not await _send_file(request, response, reply.body)):
            pieces = _pieces(reply.body, workers)
            async for piece in _spoiled(pieces, fault, length) if fault else pieces:
                await response.write(piece)
                sent += len(piece)
    except _CutOffError:
        is_short = True
        if fault is not None and fault.kind != "truncate":
            return reset(request)
    except ConnectionError:  # the client is gone
        return response
    except OSError:
        return reset(request)  # the file broke off: no proper end of the stream
    finally:
        if known is None:
            note(sent)
        close = getattr(reply.body, "close", None)
        if close is not None:
            close()
    if is_short:  # no proper end
        if request.transport is not None:
            request.transport.close()
        return response
    with suppress(ConnectionError):  # as above
        await response.write_eof()
    return response


def reset(request: web.BaseRequest) -> web.StreamResponse:
    """Reset the connection instead of answering."""
    if request.transport is not None:
        connection = request.transport.get_extra_info("socket")
        linger = struct.pack("ii", 1, 0)  # a close with these sends RST
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        request.transport.abort()
    return web.Response()


def _available(reply: Reply) -> int | None:
    """The number of bytes that there are to send; None if nobody knows."""
    body = reply.body
    if isinstance(body, bytes):
        return len(body)
    return body.count if isinstance(body, FileSlice) else None


def _response(request: web.BaseRequest, reply: Reply, length: int | None) -> web.StreamResponse:
    headers: CIMultiDict[str] = CIMultiDict(reply.headers)
    headers["Server"] = "Noelios-Restlet-Engine/1.1.10"
    if reply.media_type or reply.status != 304:
        headers["Content-Type"] = reply.media_type or "text/plain"
    response = web.StreamResponse(status=reply.status, headers=headers)
    if length is None:
        if request.version >= (1, 1) and request.method != "HEAD":
            response.enable_chunked_encoding()
    elif reply.status not in (204, 304):
        response.headers["Content-Length"] = str(length)
    return response


async def _send_file(request: web.BaseRequest, response: web.StreamResponse, body: object) -> bool:
    """Let the kernel send a larger file; False if it cannot."""
    transport = request.transport
    if not isinstance(body, FileSlice) or not isinstance(body.source, Path) or not transport:
        return False
    if body.count <= _SMALL or transport.get_extra_info("sslcontext"):
        return False
    with body.source.open("rb") as stream:
        await response.write(b"")  # the headers go out before the file
        loop = asyncio.get_running_loop()
        if await loop.sendfile(transport, stream, body.start, body.count) < body.count:
            raise OSError("the file became shorter while it was sent")
    return True


async def _pieces(
    body: bytes | FileSlice | Iterator[bytes], workers: Executor
) -> AsyncIterator[bytes]:
    if isinstance(body, bytes):
        for at in range(0, len(body), PIECE):
            yield body[at : at + PIECE]
    elif isinstance(body, FileSlice) and (body.count <= _SMALL or callable(body.source)):
        for piece in body.pieces():
            yield piece
    else:
        source = body.pieces() if isinstance(body, FileSlice) else body
        loop = asyncio.get_running_loop()
        while piece := await loop.run_in_executor(workers, next, source, b""):
            yield piece


async def _spoiled(
    pieces: AsyncIterator[bytes], fault: Fault, length: int | None
) -> AsyncIterator[bytes]:
    """The pieces with what the fault does to them. Raises _CutOffError."""
    mark = fault.bytes if fault.bytes is not None else (length or 0) // 2
    at = 0  # where the piece begins
    async for piece in pieces:
        before, after = piece[: max(0, mark - at)], piece[max(0, mark - at) :]
        if fault.kind == "slow" and fault.rate:
            step = max(1, int(fault.rate / 20))
            for start in range(0, len(piece), step):
                yield piece[start : start + step]
                await asyncio.sleep(min(step, len(piece) - start) / fault.rate)
        elif (
            not after
            or at > mark
            or fault.kind == "slow"
            or (fault.kind == "stall" and not fault.bytes)
        ):
            yield piece
        elif fault.kind == "corrupt":
            yield before + bytes([after[0] ^ 0xFF]) + after[1:]
        else:
            yield before
            if fault.kind != "stall":
                await asyncio.sleep(0.05)  # let it arrive before the cut
                raise _CutOffError
            await asyncio.sleep(fault.seconds)
            yield after
        at += len(piece)
