"""An account on an XNAT, and the machine of a user who mounts it."""

from __future__ import annotations

import base64
import hashlib
import http.cookiejar
import json
import netrc
import os
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from xnatfs.fuse import mounts

BIN = Path(sys.executable).parent
BOUNDARY = "xnatfs-acceptance-4f0c2a"


def password_of(url: str, user: str, variable: str) -> str:
    """From the environment or a netrc file; never from the command line, which others can read."""
    if os.environ.get(variable):
        return os.environ[variable]
    parts = urlsplit(url)
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, netrc.NetrcParseError) as error:
        raise LookupError(f"no password for {user}: set {variable} or write {error}") from error
    for machine in (parts.netloc, parts.hostname or ""):
        entry = known.hosts.get(machine)
        if entry is not None and entry[0] == user:
            return entry[2]
    raise LookupError(f"no password for {user} at {parts.netloc}: set {variable} or a netrc entry")


@dataclass
class Account:
    """A user of an XNAT, by plain HTTP: the second opinion on what the mount did."""

    url: str
    user: str
    password: str = field(repr=False)

    def __post_init__(self) -> None:
        # One session for all requests: a site allows a user only so many.
        jar = urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar())
        self._opener = urllib.request.build_opener(jar)

    def ask(self, verb: str, path: str, body: bytes | None = None, kind: str = "") -> bytes:
        request = urllib.request.Request(f"{self.url}/data{path}", body, method=verb)
        pair = base64.b64encode(f"{self.user}:{self.password}".encode()).decode()
        request.add_header("Authorization", f"Basic {pair}")
        request.add_header("User-Agent", "xnatfs-acceptance")
        if body is not None:
            request.add_header("Content-Type", kind)
        with self._opener.open(request, timeout=100) as reply:
            return bytes(reply.read())

    def status(self, verb: str, path: str) -> int:
        try:
            self.ask(verb, path)
        except urllib.error.HTTPError as error:
            with error:
                return error.code
        return 200

    def rows(self, path: str) -> list[dict[str, str]]:
        found: list[dict[str, str]] = json.loads(self.ask("GET", f"{path}?format=json"))[
            "ResultSet"
        ]["Result"]
        return found

    def upload(self, resource: str, name: str, content: bytes) -> None:
        part = (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="{name}"\r\n'
            "Content-Type: application/octet-stream\r\n\r\n"
        )
        body = part.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
        kind = f"multipart/form-data; boundary={BOUNDARY}"
        assert self.ask("PUT", f"{resource}/files/{quote(name)}", body, kind) == b""

    def files(self, resource: str) -> dict[str, bytes]:
        """Path below ``files`` → bytes, of every file of a resource."""
        rows = self.rows(f"{resource}/files")
        paths = [row["URI"].partition("/files/")[2] for row in rows]
        return {path: self.ask("GET", f"{resource}/files/{quote(path)}") for path in paths}


@dataclass
class Machine:
    """Where a user mounts the archive: a home of its own, and the ``xnatfs`` command."""

    folder: Path
    account: Account
    options: tuple[str, ...] = ()

    @property
    def point(self) -> Path:
        return self.folder / "xnat"

    def xnatfs(self, *words: str | Path) -> subprocess.CompletedProcess[str]:
        kept = {it: value for it, value in os.environ.items() if not it.startswith(("XNAT", "XDG"))}
        places = {
            f"XDG_{it.upper()}_HOME": str(self.folder / it) for it in ("cache", "state", "config")
        }
        login = {"XNAT_USER": self.account.user, "XNAT_PASS": self.account.password}
        return subprocess.run(
            [BIN / "xnatfs", *map(str, words)], env=kept | places | login, check=False,
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100,
        )  # fmt: skip

    @contextmanager
    def mounted(self) -> Iterator[Path]:
        """The mount; at its end everything has arrived."""
        self.point.mkdir(parents=True, exist_ok=True)
        done = self.xnatfs("mount", self.account.url, self.point, *self.options)
        assert done.returncode == 0, done.stderr
        try:
            yield self.point
            done = self.xnatfs("umount", self.point)
            assert (done.returncode, done.stderr) == (0, ""), done
        finally:
            if mounts.mounted_at(self.point.resolve()) is not None:
                mounts.unmount(self.point.resolve(), lazy=True)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()
