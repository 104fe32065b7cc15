"""A reply on its way out, with the faults that happen on the way."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from typing import BinaryIO

from aiohttp import web
from multidict import CIMultiDict

from xnatfs.demo.faults import Fault
from xnatfs.demo.wire import FileSlice, Reply

_PIECE = 1 << 20
_ON_THE_WAY = ("reset_after", "truncate", "slow", "corrupt", "stall")


class _CutOffError(Exception):
    """The rest of the body is not sent."""


class Sender:
    """Sends one reply; `sent` counts the bytes of its body.

    `note` is told the number of body bytes before the client can see the end of the reply, so
    that whoever has the reply also finds it in the log.
    """

    def __init__(
        self,
        request: web.BaseRequest,
        workers: Executor,
        fault: Fault | None,
        note: Callable[[int], None],
    ) -> None:
        self._request = request
        self._note = note
        self._workers = workers
        self._fault = fault if fault and fault.kind in _ON_THE_WAY else None
        self.sent = 0

    def reset(self) -> web.StreamResponse:
        """Reset the connection instead of answering."""
        transport = self._request.transport
        if transport is not None:
            connection = transport.get_extra_info("socket")
            linger = struct.pack("ii", 1, 0)  # a close with these sends RST
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            transport.abort()
        return web.Response()

    async def send(self, reply: Reply, *, last: bool) -> web.StreamResponse:
        """Send it; `last` closes the connection afterwards."""
        length = _length(reply)
        response = self._response(reply, length)
        empty = self._request.method == "HEAD" or reply.status in (204, 304)
        short = length is not None and not empty and length != _available(reply)
        if last or short or not self._request.content.at_eof():
            response.force_close()
        try:
            writer = await response.prepare(self._request)
        except ConnectionError:  # the client is gone already
            _close(reply.body)
            return response
        if writer is None:
            return response
        if empty:
            self._note(0)
            _close(reply.body)
        else:
            try:
                await self._body(response, reply, length)
            except _CutOffError:
                if self._fault is not None and self._fault.kind == "truncate":
                    return self._hang_up(response)
                return self.reset()
            except ConnectionError:
                return response
            except OSError:
                return self.reset()  # the file broke off: no proper end of the stream
        if short:
            return self._hang_up(response)
        await response.write_eof()
        return response

    def _hang_up(self, response: web.StreamResponse) -> web.StreamResponse:
        """Close the connection after what was sent, without a proper end."""
        if self._request.transport is not None:
            self._request.transport.close()
        return response

    def _response(self, reply: Reply, length: int | None) -> web.StreamResponse:
        headers: CIMultiDict[str] = CIMultiDict(reply.headers)
        headers["Server"] = "Noelios-Restlet-Engine/1.1.10"
        if reply.media_type:
            headers["Content-Type"] = reply.media_type
        elif reply.status != 304:
            headers["Content-Type"] = "text/plain"
        response = web.StreamResponse(status=reply.status, headers=headers)
        if length is None:
            if self._request.version >= (1, 1) and self._request.method != "HEAD":
                response.enable_chunked_encoding()
        elif reply.status not in (204, 304):
            response.headers["Content-Length"] = str(length)
        return response

    async def _body(self, response: web.StreamResponse, reply: Reply, length: int | None) -> None:
        body = reply.body
        known = _available(reply) if self._fault is None else None
        if known is not None:
            self._note(known)
        if isinstance(body, FileSlice) and self._fault is None:
            await self._file(response, body)
            return
        pieces = self._pieces(body)
        try:
            if self._fault is not None:
                pieces = _spoiled(pieces, self._fault, length)
            async for piece in pieces:
                await response.write(piece)
                self.sent += len(piece)
        finally:
            _close(body)
            if known is None:
                self._note(self.sent)

    async def _file(self, response: web.StreamResponse, part: FileSlice) -> None:
        with part.path.open("rb") as stream:
            transport = self._request.transport
            if part.count > _PIECE // 8 and transport and not _is_tls(transport):
                await response.write(b"")  # the headers go out before the file
                loop = asyncio.get_running_loop()
                self.sent = await loop.sendfile(transport, stream, part.start, part.count)
                return
            async for piece in self._read(stream, part):
                await response.write(piece)
                self.sent += len(piece)

    async def _pieces(self, body: bytes | FileSlice | Iterator[bytes]) -> AsyncIterator[bytes]:
        if isinstance(body, bytes):
            for at in range(0, len(body), _PIECE):
                yield body[at : at + _PIECE]
        elif isinstance(body, FileSlice):
            with body.path.open("rb") as stream:
                async for piece in self._read(stream, body):
                    yield piece
        else:
            loop = asyncio.get_running_loop()
            while (piece := await loop.run_in_executor(self._workers, next, body, b"")) != b"":
                yield piece

    async def _read(self, stream: BinaryIO, part: FileSlice) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        stream.seek(part.start)
        left = part.count
        while left > 0:
            wanted = min(left, _PIECE)
            if wanted <= _PIECE // 8:
                piece = stream.read(wanted)  # from the page cache, sooner than a thread answers
            else:
                piece = await loop.run_in_executor(self._workers, stream.read, wanted)
            if not piece:
                raise OSError("the file became shorter")
            left -= len(piece)
            yield piece


def _is_tls(transport: asyncio.Transport) -> bool:
    return transport.get_extra_info("sslcontext") is not None


def _available(reply: Reply) -> int | None:
    body = reply.body
    if isinstance(body, bytes):
        return len(body)
    return body.count if isinstance(body, FileSlice) else None


def _length(reply: Reply) -> int | None:
    """The Content-Length to announce, None for a stream."""
    if reply.announced is not None:
        return reply.announced
    return None if reply.streamed else _available(reply)


def _close(body: object) -> None:
    close = getattr(body, "close", None)
    if close is not None:
        close()


async def _spoiled(
    pieces: AsyncIterator[bytes], fault: Fault, length: int | None
) -> AsyncIterator[bytes]:
    """The pieces with what the fault does to them. Raises _CutOffError."""
    mark = fault.bytes if fault.bytes is not None else (length or 0) // 2
    at = 0
    async for whole in pieces:
        piece = whole
        if fault.kind == "corrupt" and at <= mark < at + len(piece):
            spoiled = bytearray(piece)
            spoiled[mark - at] ^= 0xFF
            piece = bytes(spoiled)
        if fault.kind == "slow" and fault.rate:
            step = max(1, int(fault.rate / 20))
            for start in range(0, len(piece), step):
                yield piece[start : start + step]
                await asyncio.sleep(min(step, len(piece) - start) / fault.rate)
            continue
        if fault.kind in ("truncate", "reset_after") and at + len(piece) > mark:
            yield piece[: mark - at]
            await asyncio.sleep(0.05)  # let it arrive before the cut
            raise _CutOffError
        if fault.kind == "stall" and fault.bytes and at <= mark < at + len(piece):
            yield piece[: mark - at]
            await asyncio.sleep(fault.seconds)
            piece, at = piece[mark - at :], mark
        at += len(piece)
        yield piece
