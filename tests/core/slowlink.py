"""A link that carries only so many bytes a second, between a client and a server."""

from __future__ import annotations

import socket
import threading
import time
from contextlib import suppress
from types import TracebackType
from urllib.parse import urlsplit

PIECE = 32 << 10


class SlowLink:
    """Forwards TCP connections; ``upward`` is the rate towards the server, bytes per second."""

    def __init__(self, url: str, upward: int) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self._far = (parts.hostname, parts.port)
        self._upward = upward
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        # Small: what lies in the kernel's buffers is not on its way yet.
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, PIECE)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}{parts.path}"

    def __enter__(self) -> SlowLink:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for end in (self._listener, *self._ends):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            far = socket.create_connection(self._far)
            self._ends += [near, far]
            for source, sink, rate in ((near, far, self._upward), (far, near, 0)):
                threading.Thread(target=_pour, args=(source, sink, rate), daemon=True).start()


def _pour(source: socket.socket, sink: socket.socket, rate: int) -> None:
    with suppress(OSError):
        while piece := source.recv(PIECE):
            sink.sendall(piece)
            if rate:
                time.sleep(len(piece) / rate)
        sink.shutdown(socket.SHUT_WR)
