"""Receipts: what this user created through xnatfs, and may therefore change again.

    <state>/receipts/<host>-<hash>/<resource id>      one text file for each resource, 0600
        + 0cc175b9c0f1b6a831c399e269772661 1 sub/a.nii        stored by us
        - sub/a.nii                                           removed by us

Any number of processes append; a line is one write. A line that was cut by a crash or mixed with
another is not recognised, which errs on the safe side: the file counts as somebody else's.
"""

from __future__ import annotations

import hashlib
import os
import re
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, unquote, urlsplit

from cachetools import LRUCache

from xnatfs.config import make_private
from xnatfs.model.versions import Version
from xnatfs.upload.disk import local_disk

_UNREADABLE = re.compile(r"[^A-Za-z0-9._-]+")
_STORED = re.compile(r"\+ (?P<key>[0-9a-fx-]{3,100}) (?P<path>\S+)")
_REMOVED = re.compile(r"- (?P<path>\S+)")

# Kept readable in a line: everything of a path but what would break the line.
_PLAIN = "/!$&'()*,:;=@~+-._#[]{}^|\"<>?"

# Resources whose receipts are kept in memory.
KEPT = 64


@dataclass(slots=True)
class _Sheet:
    """The receipts of one resource, as far as the file was read."""

    read_to: int = 0
    keys: dict[str, set[str]] = field(default_factory=dict)


class Receipts:
    """The receipts of one account on one server, shared by all its processes.

    Args:
        state_folder: the state folder; the receipts stand in ``receipts`` below it.
        server: base URL; account: login name there.

    Threading: ``_mu`` guards the sheets; it is held while a sheet reads on, which is a local
    file of a few lines.
    """

    def __init__(self, state_folder: Path, server: str, account: str) -> None:
        host = _UNREADABLE.sub("_", urlsplit(server).hostname or "server")[:60]
        mark = hashlib.sha256(f"{server}\0{account}".encode()).hexdigest()[:12]
        self._folder = state_folder / "receipts" / f"{host}-{mark}"
        self._mu = threading.Lock()
        self._sheets: LRUCache[str, _Sheet] = LRUCache(KEPT)

    def add(self, resource_id: str, path: str, digest: str, size: int, modified: str = "") -> None:
        """Remember a version that we stored.

        Args:
            resource_id: numeric id of the resource.
            path: below the resource's ``files``, as the server stores it.
            digest: MD5 in lower-case hex; "" where the server has none, then ``modified`` counts.
            size: bytes.
            modified: ``Last-Modified`` of the server.

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        key = Version(resource_id, path, size, digest, modified).key
        self._append(resource_id, f"+ {key} {_line_name(path)}")

    def holds(
        self, resource_id: str, path: str, digest: str, size: int, modified: str = ""
    ) -> bool:
        """Whether this very version was stored by us, by any process of this user.

        Args: as for ``add``: what the server holds now.

        Raises: DiskFault.
        """
        if not digest and not modified:
            # By its size alone a file is nobody's.
            return False
        key = Version(resource_id, path, size, digest, modified).key
        with self._mu:
            return key in self._read_on(resource_id).keys.get(path, ())

    def remove(self, resource_id: str, path: str) -> None:
        """Forget a file: it was removed, or renamed away. Raises like ``add``."""
        self._append(resource_id, f"- {_line_name(path)}")

    def _file(self, resource_id: str) -> Path:
        return self._folder / _UNREADABLE.sub("_", resource_id)

    def _append(self, resource_id: str, line: str) -> None:
        path = self._file(resource_id)
        with local_disk(f"the receipts {path}"):
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
            try:
                fd = os.open(path, flags, 0o600)
            except FileNotFoundError:
                make_private(self._folder)
                fd = os.open(path, flags, 0o600)
            try:
                # The break before it parts it from a line that a crash has cut.
                os.write(fd, f"\n{line}\n".encode())
            finally:
                os.close(fd)

    def _read_on(self, resource_id: str) -> _Sheet:
        """The sheet with what was appended since it was read. ``_mu`` is held."""
        sheet = self._sheets.get(resource_id)
        path = self._file(resource_id)
        with local_disk(f"the receipts {path}"):
            try:
                file = open(path, "rb")  # noqa: SIM115 -- closed by the with below
            except FileNotFoundError:
                self._sheets.pop(resource_id, None)
                return _Sheet()
            with file:
                if sheet is None or os.fstat(file.fileno()).st_size < sheet.read_to:
                    sheet = self._sheets[resource_id] = _Sheet()
                file.seek(sheet.read_to)
                text = file.read()
        # Up to the last whole line; another process may be writing the next one.
        whole = text[: text.rfind(b"\n") + 1]
        sheet.read_to += len(whole)
        for line in whole.decode("ascii", "replace").split("\n"):
            _apply(sheet, line)
        return sheet


def _apply(sheet: _Sheet, line: str) -> None:
    if found := _STORED.fullmatch(line):
        sheet.keys.setdefault(_path_of(found), set()).add(found["key"])
    elif found := _REMOVED.fullmatch(line):
        sheet.keys.pop(_path_of(found), None)


def _line_name(path: str) -> str:
    return quote(path.encode("utf-8", "surrogatepass"), safe=_PLAIN)


def _path_of(found: re.Match[str]) -> str:
    return unquote(found["path"], errors="surrogatepass")
