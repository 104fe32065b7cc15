"""The look-alike server under plain HTTP: a client that sends exactly what it is told."""

from __future__ import annotations

import base64
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from xnatfs.demo.server import DemoServer, ServerOptions

BOUNDARY = "----demo-boundary"


@dataclass
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def rows(self) -> list[dict[str, str]]:
        found: list[dict[str, str]] = self.json()["ResultSet"]["Result"]
        return found

    def cookies(self) -> dict[str, str]:
        pairs = [it.partition(";")[0] for it in self.headers.get_all("Set-Cookie") or []]
        return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


@dataclass
class Client:
    """One request per connection; `user` signs in with the password of the same name."""

    url: str
    user: str | None = "admin"
    headers: dict[str, str] = field(default_factory=dict)

    def as_(self, user: str | None) -> Client:
        return Client(self.url, user, self.headers)

    def ask(
        self,
        verb: str,
        path: str,
        body: bytes | None = None,
        headers: dict[str, str] | None = None,
        password: str | None = None,
    ) -> Answer:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(parts.netloc, timeout=20)
        sent = dict(self.headers)
        if self.user is not None:
            pair = f"{self.user}:{self.user if password is None else password}"
            sent["Authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        sent |= headers or {}
        try:
            connection.putrequest(verb, parts.path + path, skip_accept_encoding=True)
            if body is not None and "Transfer-Encoding" not in sent:
                sent.setdefault("Content-Length", str(len(body)))
            for name, value in sent.items():
                connection.putheader(name, value)
            connection.endheaders(body)
            answer = connection.getresponse()
            return Answer(answer.status, answer.headers, answer.read())
        finally:
            connection.close()

    def get(self, path: str, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("GET", path, headers=named)

    def head(self, path: str) -> Answer:
        return self.ask("HEAD", path)

    def put(self, path: str, body: bytes | None = None, **headers: str) -> Answer:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return self.ask("PUT", path, body if body is not None else b"", named)

    def delete(self, path: str) -> Answer:
        return self.ask("DELETE", path)

    def send(
        self, path: str, content: bytes, name: str = "upload.bin", verb: str = "PUT"
    ) -> Answer:
        """A file as multipart/form-data."""
        body = multipart(content, name)
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        return self.ask(verb, path, body, {"Content-Type": kind})


def multipart(content: bytes, name: str) -> bytes:
    return (
        f"--{BOUNDARY}\r\n".encode()
        + f'Content-Disposition: form-data; name="file"; filename="{name}"\r\n'.encode()
        + b"Content-Type: application/octet-stream\r\n\r\n"
        + content
        + f"\r\n--{BOUNDARY}--\r\n".encode()
    )


Start = Callable[..., tuple[DemoServer, Client]]


@pytest.fixture(scope="session")
def sample_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("demo") / "archive"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A server of its own for each test module."""
    options = ServerOptions(root=tmp_path_factory.mktemp("demo"), sample="small")
    running = DemoServer(options)
    running.start()
    yield running
    running.stop()


@pytest.fixture
def client(server: DemoServer) -> Client:
    server.faults.clear()
    server.clear_log()
    return Client(server.url)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Start further servers with options of their own; `root` may be given to reuse one."""
    running: list[DemoServer] = []

    def begin(**options: Any) -> tuple[DemoServer, Client]:
        settings = {"root": tmp_path / "archive", "sample": "small"} | options
        made = DemoServer(ServerOptions(**settings))
        made.start()
        running.append(made)
        return made, Client(made.url)

    yield begin
    for one in running:
        one.stop()


@pytest.fixture
def session() -> str:
    """The sample session's address by labels."""
    return "/data/projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"


@pytest.fixture
def accession() -> str:
    """The same session by its accession id."""
    return "/data/experiments/XNAT_E00001"
