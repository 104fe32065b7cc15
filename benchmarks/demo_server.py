"""How fast the look-alike server is by itself: what it may take part in measuring.

    python benchmarks/demo_server.py [--seconds S]

Prints a table and the machine. The client is a bare socket in a process of its own, so that what
is measured is the server: one file of 256 MB by GET, the same by several connections, files of
128 KB one after the other, a zip, an upload, and a listing. File GETs should reach 300 MB/s.
"""

from __future__ import annotations

import argparse
import base64
import os
import platform
import re
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from xnatfs.demo.order import Order
from xnatfs.demo.server import DemoServer, ServerOptions

LARGE = 256 << 20
SMALL = 128 << 10
SESSION = "/data/experiments/XNAT_E1000001"
LARGE_FILE = f"{SESSION}/resources/LARGE/files/large.bin"
WANTED = 300.0  # MB/s, of file GETs


class Wire:
    """One keep-alive connection that reads answers as fast as the kernel gives them."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._address = (parts.hostname or "", parts.port or 80)
        pair = base64.b64encode(b"admin:admin").decode()
        self._head = f"Host: {parts.netloc}\r\nAuthorization: Basic {pair}\r\n"
        self._buffer = memoryview(bytearray(1 << 20))
        self._socket = socket.create_connection(self._address)

    def ask(self, verb: str, path: str, size: int = 0) -> int:
        """One request, with a body of so many zeros; returns the bytes of the reply's body."""
        more = f"Content-Length: {size}\r\n" if size else ""
        self._socket.sendall(f"{verb} {path} HTTP/1.1\r\n{self._head}{more}\r\n".encode())
        piece = bytes(1 << 20)
        for at in range(0, size, len(piece)):
            self._socket.sendall(piece[: size - at])
        return self._reply()

    def _reply(self) -> int:
        held = b""
        while b"\r\n\r\n" not in held:
            piece = self._socket.recv(1 << 16)
            if not piece:
                raise ConnectionError("no reply")
            held += piece
        head, _, body = held.partition(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200"):
            raise ConnectionError(head.decode())
        if cookie := re.search(rb"JSESSIONID=\w+", head):
            self._head = re.sub("Cookie: .*\r\n", "", self._head)
            self._head += f"Cookie: {cookie[0].decode()}\r\n"
        length = re.search(rb"(?i)content-length: (\d+)", head)
        got, tail = len(body), body[-5:]
        while got < int(length[1]) if length else not tail.endswith(b"0\r\n\r\n"):
            count = self._socket.recv_into(self._buffer)
            if not count:
                raise ConnectionError("the reply ended early")
            got += count
            tail = (tail + bytes(self._buffer[:count][-5:]))[-5:]
        if b"connection: close" in head.lower():
            self._socket.close()
            self._socket = socket.create_connection(self._address)
        return got


def client(url: str, what: str, seconds: float) -> None:
    """Do one thing over and over for some time; print requests, bytes and seconds."""
    wire = Wire(url)
    number = 0

    def small() -> int:
        nonlocal number
        number += 1
        return wire.ask(
            "GET", f"{SESSION}/scans/1/resources/DICOM/files/IM{number % 100 + 1:06}.dcm"
        )

    deeds: dict[str, Callable[[], int]] = {
        "large": lambda: wire.ask("GET", LARGE_FILE),
        "small": small,
        "zip": lambda: wire.ask("GET", f"{SESSION}/scans/1/files?format=zip"),
        "list": lambda: wire.ask("GET", f"{SESSION}/scans/1/resources/DICOM/files?format=json"),
        "put": lambda: LARGE + wire.ask(
            "PUT", f"{SESSION}/resources/PUT/files/f?inbody=true&overwrite=true", LARGE),
    }  # fmt: skip
    deeds[what]()  # the catalog of what is on order is made when it is first asked for
    began, count, moved = time.perf_counter(), 0, 0
    while not count or time.perf_counter() - began < seconds:
        moved += deeds[what]()
        count += 1
    print(count, moved, time.perf_counter() - began)


def measure(url: str, what: str, clients: int, seconds: float) -> tuple[float, float]:
    """Requests and megabytes per second of some clients at once."""
    words = [sys.executable, __file__, "--client", url, what, "--seconds", str(seconds)]

    def one(_number: int) -> list[float]:
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        return [float(it) for it in done.stdout.split()]

    with ThreadPoolExecutor(clients) as pool:
        found = list(pool.map(one, range(clients)))
    return sum(it[0] / it[2] for it in found), sum(it[1] / it[2] for it in found) / 1e6


def machine() -> str:
    """What this was measured on."""
    model, memory = platform.processor() or platform.machine(), ""
    with suppress(OSError, AttributeError):
        model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())[1]  # type: ignore[index]
        kilobytes = int(re.search(r"MemTotal:\s*(\d+)", Path("/proc/meminfo").read_text())[1])  # type: ignore[index]
        memory = f", {kilobytes / (1 << 20):.1f} GiB"
    return (
        f"{os.cpu_count()} x {model}{memory}, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d')}"
    )


ROWS = (
    ("file of 256 MB", "large", 1),
    ("file of 256 MB, 4 connections", "large", 4),
    ("files of 128 KB", "small", 1),
    ("files of 128 KB, 4 connections", "small", 4),
    ("zip of 100 files of 128 KB", "zip", 1),
    ("listing of 100 files", "list", 1),
    ("upload of 256 MB in the body", "put", 1),
)


def main() -> int:
    """Measure everything; 1 if file GETs are slower than they should be."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--client", nargs=2, metavar=("URL", "WHAT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.client:
        client(*arguments.client, arguments.seconds)
        return 0
    with tempfile.TemporaryDirectory(prefix="xnatfs-benchmark-") as folder:
        order = Order(sessions=1, scans=1, files=100, file_size=SMALL)
        server = DemoServer(ServerOptions(root=Path(folder), sample="none", order=order))
        server.start()
        Wire(server.url).ask("PUT", f"{LARGE_FILE}?inbody=true", LARGE)
        print(machine())
        print(f"\n{'':<36}{'requests/s':>12}{'MB/s':>10}")
        rates = {}
        for name, what, clients in ROWS:
            per_second, rates[name] = measure(server.url, what, clients, arguments.seconds)
            print(f"{name:<36}{per_second:>12.1f}{rates[name]:>10.0f}", flush=True)
        server.stop()
    slowest = min(rates[name] for name, what, _clients in ROWS if what in ("large", "small"))
    verdict = "at least" if slowest >= WANTED else "LESS THAN"
    print(f"\nfile GETs: {slowest:.0f} MB/s or more, {verdict} {WANTED:.0f}")
    return 0 if slowest >= WANTED else 1


if __name__ == "__main__":
    sys.exit(main())
