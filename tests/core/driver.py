"""Drives a FileSystem as the kernel would, without one."""

from __future__ import annotations

import base64
import io
import json
import os
import urllib.error
import urllib.request
import zipfile
from dataclasses import dataclass, field
from typing import Any

from xnatfs.demo.server import DemoServer
from xnatfs.errors import NotFound
from xnatfs.fs.filesystem import FileSystem
from xnatfs.fs.values import Attributes, Caller, Kind
from xnatfs.waiting import Waiter

SESSION = "/projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"
SCAN4 = SESSION + "/scans/4"
NAMES = SESSION + "/resources/NAMES/files"
ME = Caller(os.getpid())


def soon() -> Waiter:
    return Waiter(total_s=30)


@dataclass
class Driver:
    fs: FileSystem

    def names(self, path: str) -> list[str]:
        return [entry.name for entry in self.fs.readdir(path, soon())]

    def stat(self, path: str) -> Attributes:
        return self.fs.getattr(path, None, soon())

    def exists(self, path: str) -> bool:
        try:
            self.stat(path)
        except NotFound:
            return False
        return True

    def walk(self, path: str) -> list[str]:
        found = []
        for entry in self.fs.readdir(path, soon()):
            child = f"{path.rstrip('/')}/{entry.name}"
            self.stat(child)
            found.append(child)
            if entry.kind is Kind.FOLDER:
                found += self.walk(child)
        return found

    def open(self, path: str, flags: int = os.O_RDONLY, caller: Caller = ME) -> int:
        return self.fs.open(path, flags, caller, soon()).handle

    def create(self, path: str, flags: int = 0, mode: int = 0o644, caller: Caller = ME) -> int:
        flags |= os.O_CREAT | os.O_RDWR
        return self.fs.create(path, flags, mode, caller, soon()).handle

    def close(self, handle: int, caller: Caller = ME) -> None:
        try:
            self.fs.flush(handle, caller, soon())
        finally:
            self.fs.release(handle, soon())

    def read(self, path: str) -> bytes:
        size = self.stat(path).size
        handle = self.open(path)
        try:
            return self.fs.read(handle, size + 100, 0, soon())
        finally:
            self.close(handle)

    def write(self, path: str, data: bytes) -> None:
        if self.exists(path):
            handle = self.open(path, os.O_WRONLY | os.O_TRUNC)
        else:
            handle = self.create(path)
        try:
            if data:
                self.fs.write(handle, data, 0, soon())
        except BaseException:
            self.fs.release(handle, soon())
            raise
        self.close(handle)

    def mkdir(self, path: str) -> None:
        self.fs.mkdir(path, soon())


@dataclass
class Rest:
    """Plain HTTP beside the client, for looking at what the server really holds."""

    server: DemoServer
    user: str = "admin"
    # Keeps the session's cookie: a site has only so many sessions for a user (R§6).
    browser: urllib.request.OpenerDirector = field(
        default_factory=lambda: urllib.request.build_opener(
            urllib.request.ProxyHandler({}), urllib.request.HTTPCookieProcessor()
        )
    )

    def ask(self, verb: str, path: str, body: bytes | None = None) -> bytes:
        request = urllib.request.Request(self.server.url + path, body, method=verb)
        secret = base64.b64encode(f"{self.user}:{self.user}".encode()).decode()
        request.add_header("Authorization", f"Basic {secret}")
        if body is not None:
            request.add_header("Content-Type", "application/octet-stream")
        with self.browser.open(request, timeout=20) as reply:
            return bytes(reply.read())

    def rows(self, path: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = json.loads(self.ask("GET", path))["ResultSet"]["Result"]
        return found

    def files(self, address: str) -> dict[str, bytes]:
        """Path below ``files`` → bytes, of every file of a resource, by one zip."""
        try:
            raw = self.ask("GET", f"/data{address}/files?format=zip")
        except urllib.error.HTTPError as error:
            if error.code == 404:  # no files (R§3.4)
                return {}
            raise
        with zipfile.ZipFile(io.BytesIO(raw)) as archive:
            return {name.partition("/files/")[2]: archive.read(name) for name in archive.namelist()}


def requests(server: DemoServer) -> list[str]:
    return [f"{entry.verb} {entry.path}" for entry in server.log]
