"""fsspec's view of the archive: its methods by those of ``fs``, nothing more.

Paths are those of a mount without the slash in front: ``projects/P/subjects/S/…``; ids,
accessions and links are understood. The archive's own limits hold here too: files live below the
``files`` folder of a resource, and what others made is changed only with ``allow_overwrite`` and
``allow_delete``.
"""

from __future__ import annotations

import argparse
import os
import posixpath
import shutil
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from fsspec import AbstractFileSystem

from xnatfs.config import Settings
from xnatfs.configuration import choose
from xnatfs.errors import AlreadyExists, IsAFolder, NotAFolder, NotFound, UsageError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.fs.search import Seen
from xnatfs.fs.values import Kind
from xnatfs.fsspec.connections import connections
from xnatfs.fsspec.errors import translated
from xnatfs.fsspec.files import BUFFER, MODES, RawFile, buffered
from xnatfs.options import option_of
from xnatfs.rest.login import find_credentials
from xnatfs.waiting import Waiter

# fsspec's own arguments; our listings have a cache of their own.
_FSSPEC = frozenset(
    {"use_listings_cache", "listings_expiry_time", "max_paths", "asynchronous", "loop"}
)
_SECRETS = frozenset({"password", "passwd", "secret", "token"})


class XnatFileSystem(AbstractFileSystem):  # type: ignore[misc]  # fsspec has no types
    """An XNAT archive.

    Args:
        host: its address, or its name in config.toml; "" means that of the environment or of the
            configuration, as with the command line.
        options: the options of the command line by their names with underscores
            (``cache_dir="/scratch/me"``, ``allow_overwrite=True``). No secret is among them: they
            travel with tasks and show in representations.

    Raises: ValueError.
    """

    protocol = "xnat"
    root_marker = ""
    cachable = True

    @translated
    def __init__(self, host: str = "", **options: Any) -> None:
        super().__init__(**{name: options.pop(name) for name in _FSSPEC & options.keys()})
        if secrets := _SECRETS & options.keys():
            raise UsageError(
                f"{min(secrets)}: a secret here would travel with every task; run `xnatfs login`, "
                "or set XNAT_USER and XNAT_PASS"
            )
        self._options = {"server": host or None}
        for name, value in options.items():
            self._options[option_of(name, "storage_options").key] = value
        self._known: tuple[int, FileSystem, Settings] | None = None

    # -- the connection

    def _connected(self) -> tuple[FileSystem, Settings]:
        """The file system of this process; the environment is read when it is first needed."""
        if self._known is None or self._known[0] != os.getpid():
            settings = choose(argparse.Namespace(**self._options), os.environ).settings
            settings = replace(settings, view=replace(settings.view, path="/"))
            login = find_credentials(
                settings.server, os.environ, None, state_folder=settings.state_folder
            )
            waiter = Waiter(total_s=settings.limits.io_timeout_s)
            self._known = (os.getpid(), connections.get(settings, login, waiter), settings)
        return self._known[1], self._known[2]

    @property
    def _fs(self) -> FileSystem:
        return self._connected()[0]

    @property
    @translated
    def server(self) -> str:
        """The archive's address."""
        return self._connected()[1].server.url

    def _waiter(self) -> Waiter:
        """For names."""
        return Waiter(total_s=self._connected()[1].limits.io_timeout_s)

    def _patience(self) -> Waiter:
        """For bytes: as long as they move."""
        return Waiter(idle_s=self._connected()[1].limits.io_timeout_s)

    # -- names

    @classmethod
    def _strip_protocol(cls, path: Any) -> Any:
        stripped = super()._strip_protocol(path)
        return stripped if isinstance(stripped, list) else stripped.lstrip("/")

    def _look(self, path: str, *, now: bool = True) -> Seen:
        """What is there. Other workers make files too: a "no" of a while ago does not count."""
        return self._fs.search.look("/" + self._strip_protocol(path), self._waiter(), now=now)

    def _seen(self, path: str, *, now: bool = True) -> Seen | None:
        try:
            return self._look(path, now=now)
        except (NotFound, NotAFolder):
            return None

    def _place(self, path: str) -> str:
        """The path by names of what is there or shall be made there."""
        folder, name = posixpath.split(self._strip_protocol(path))
        return posixpath.join(self._look(folder).path, name)

    @translated
    def info(self, path: str, **_kwargs: Any) -> dict[str, Any]:
        """Name, size and type of one entry; the MD5 of a file where the server has one."""
        return _info(self._strip_protocol(path), self._look(path))

    @translated
    def exists(self, path: str, **_kwargs: Any) -> bool:
        """Whether it is there; that the server cannot be asked is no "no"."""
        return self._seen(path) is not None

    @translated
    def isdir(self, path: str) -> bool:
        """Whether it is a folder."""
        seen = self._seen(path)
        return seen is not None and seen.kind is Kind.FOLDER

    @translated
    def isfile(self, path: str) -> bool:
        """Whether it is a file."""
        seen = self._seen(path)
        return seen is not None and seen.kind is Kind.FILE

    # Not remembered between calls: what the workers of a computation have just made is there.
    @translated
    def ls(
        self,
        path: str,
        detail: bool = True,
        *,
        links: bool = True,
        fresh: bool = True,
        **_kwargs: Any,
    ) -> list[Any]:
        """The entries of a folder, or the one entry of a file.

        Args:
            path: of it.
            detail: dictionaries as of ``info``, else names.
            links: show the links of ``projects/P/experiments``, as the folders they lead to.
            fresh: ask the server, in the place of what is remembered of this folder.
        """
        path = self._strip_protocol(path)
        seen = self._look(path)
        if fresh:
            self._fs.search.forget(seen.path, self._waiter())
        if seen.kind is Kind.FOLDER:
            found = [
                _info(posixpath.join(path, posixpath.basename(entry.path)), entry)
                for entry in self._fs.search.entries(seen.path, self._waiter())
                if links or entry.kind is not Kind.LINK
            ]
        else:
            found = [_info(path, seen)]
        return found if detail else [entry["name"] for entry in found]

    @translated
    def walk(
        self,
        path: str,
        maxdepth: int | None = None,
        topdown: bool = True,
        on_error: Any = "omit",
        **kwargs: Any,
    ) -> Iterator[Any]:
        """As fsspec's, but for two things.

        A session is met once, in its own place, unless the walk begins at the links. What is
        omitted is what is gone: an error of the server is no empty folder.
        """
        path = self._strip_protocol(path)
        if "links" not in kwargs:
            kwargs["links"] = posixpath.basename(path) == "experiments"
            # The first folder asks the server for all below it.
            kwargs["fresh"] = False
            if (seen := self._seen(path)) is not None:
                self._fs.search.forget(seen.path, self._waiter())
        handler = _omit if on_error == "omit" else on_error
        walked: Iterator[Any] = super().walk(path, maxdepth, topdown, handler, **kwargs)
        return walked

    @translated
    def modified(self, path: str) -> datetime:
        """When its session was made, or a file of this process was last written."""
        attributes = self._fs.getattr(self._look(path).path, None, self._waiter())
        return datetime.fromtimestamp(attributes.mtime, UTC)

    def created(self, path: str) -> datetime:
        """XNAT tells no other time."""
        return self.modified(path)

    def invalidate_cache(self, path: str | None = None) -> None:
        """Ask the server anew; what this process changes is seen without."""
        del path
        if self._known is not None:
            self._fs.refresh("/", self._waiter())

    # -- changes of names

    @translated
    def mkdir(self, path: str, create_parents: bool = True, **_kwargs: Any) -> None:
        """Make a resource, or a folder below ``files`` that becomes real with its first file."""
        path = self._strip_protocol(path)
        if self._seen(path, now=False) is not None:
            raise AlreadyExists(f"{path} exists")
        if create_parents:
            self._make_all(posixpath.dirname(path))
        self._fs.mkdir(self._place(path), self._waiter())

    @translated
    def makedirs(self, path: str, exist_ok: bool = False) -> None:
        """Make a folder and those above it that are not there."""
        path = self._strip_protocol(path)
        if not exist_ok and self._seen(path, now=False) is not None:
            raise AlreadyExists(f"{path} exists")
        self._make_all(path)

    def _make_all(self, path: str) -> None:
        seen = self._seen(path, now=False)
        if seen is None:
            self._make_all(posixpath.dirname(path))
            try:
                # A new resource comes with its ``files``.
                if self._seen(path, now=False) is None:
                    self._fs.mkdir(self._place(path), self._waiter())
            except AlreadyExists:
                pass  # another process was faster
        elif seen.kind is not Kind.FOLDER:
            raise NotAFolder(f"{path} is a file")

    def _imply(self, folder: str) -> None:
        """Make what is missing of a folder below ``files``; a resource is made by name only."""
        above = folder
        while above and self._seen(above, now=False) is None:
            above = posixpath.dirname(above)
        if above != folder and self._look(above).in_files:
            self._make_all(folder)

    @translated
    def rmdir(self, path: str) -> None:
        """Remove an empty folder."""
        self._fs.rmdir(self._look(path).path, self._waiter())

    @translated
    def rm_file(self, path: str) -> None:
        """Remove a file, exactly that one."""
        self._fs.unlink(self._look(path).path, self._waiter())

    @translated
    def rm(self, path: Any, recursive: bool = False, maxdepth: int | None = None) -> None:
        """Remove files, with ``recursive`` also folders and what is in them."""
        for found in reversed(self.expand_path(path, recursive=recursive, maxdepth=maxdepth)):
            if not self.isdir(found):
                self.rm_file(found)
            elif not recursive:
                raise IsAFolder(f"{found} is a folder")
            else:
                self.rmdir(found)

    @translated
    def cp_file(self, path1: str, path2: str, **_kwargs: Any) -> None:
        """Copy within the archive; the bytes come and go over the network."""
        if self.isdir(path1):
            self.makedirs(path2, exist_ok=True)
            return
        self.makedirs(self._parent(path2), exist_ok=True)
        with self.open(path1, "rb") as source, self.open(path2, "wb") as target:
            shutil.copyfileobj(source, target, BUFFER)

    # -- files

    @translated
    def get_file(self, rpath: str, lpath: Any, callback: Any = None, **kwargs: Any) -> None:
        """Download a file; the local one appears, or is replaced, when all of it is there."""
        more = kwargs if callback is None else {**kwargs, "callback": callback}
        if not isinstance(lpath, str) or os.path.isdir(lpath) or self.isdir(rpath):
            super().get_file(rpath, lpath, **more)
            return
        folder, name = os.path.split(lpath)
        os.makedirs(folder or ".", exist_ok=True)
        beside = os.path.join(folder, f".{name[:200]}.{os.getpid()}-{threading.get_ident():x}")
        try:
            super().get_file(rpath, beside, **more)
            os.replace(beside, lpath)
        finally:
            with suppress(FileNotFoundError):
                os.unlink(beside)

    @translated
    def _open(
        self,
        path: str,
        mode: str = "rb",
        block_size: int | None = None,
        autocommit: bool = True,
        cache_options: Any = None,
        **_kwargs: Any,
    ) -> Any:
        del cache_options
        if mode not in MODES:
            raise UsageError(f"mode {mode!r}: one of {', '.join(MODES)} is needed")
        if not autocommit:
            raise UsageError("there are no transactions: a file is stored when it is closed")
        if MODES[mode] & os.O_CREAT:
            self._imply(posixpath.dirname(self._strip_protocol(path)))
            place = self._place(path)
        else:
            place = self._look(path).path
        raw = RawFile(self._fs, place, mode, self._patience)
        return buffered(raw, block_size or BUFFER)


def _omit(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError | NotADirectoryError):
        raise error


def _info(name: str, seen: Seen) -> dict[str, Any]:
    is_file = seen.kind is Kind.FILE
    found = {"name": name, "size": seen.size, "type": "file" if is_file else "directory"}
    if seen.digest:
        found["md5"] = seen.digest
    return found
