"""Local files into the archive: the same way as a write through a mount, without one."""

from __future__ import annotations

import fnmatch
import os
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from xnatfs.config import MIB, Settings
from xnatfs.errors import AlreadyExists, NotFound, UsageError, WaitEnded
from xnatfs.fs.filesystem import FileSystem
from xnatfs.fs.values import Caller
from xnatfs.transfer.engine import Engine
from xnatfs.transfer.get import md5_of
from xnatfs.transfer.tally import Tally
from xnatfs.upload.disk import local_disk
from xnatfs.waiting import Waiter

_BELOW = "/files"


@dataclass(frozen=True, slots=True)
class Source:
    """One local file, and the path that it gets: below the folder it goes to, then whole."""

    local: Path
    path: str
    # Bytes.
    size: int


class Put:
    """Sends local files to one folder of the archive.

    Args:
        fs: connected and adopted, with write-back: many small files go as one archive.
        settings: of the file system.
        tally: of this transfer.
        shown: called a few times a second while it runs.

    Threading: for one thread; ``Engine`` has its own.
    """

    def __init__(
        self, fs: FileSystem, settings: Settings, tally: Tally, shown: Callable[[], None]
    ) -> None:
        self._fs = fs
        self._settings = settings
        self._tally = tally
        self._shown = shown
        self._engine: Engine[Source] = Engine(tally, shown)

    def run(self, sources: Sequence[Source], folder: str) -> str:
        """Send files; one that is there with the same content is left alone.

        Args:
            sources: from ``local_files``.
            folder: as ``target_folder`` has it; its resource is made if need be.

        Returns: the folder by its names.

        Raises: NotFound, NotPermitted, BadName; what an upload raises; KeyboardInterrupt. What
            could not be sent is in the tally, and in the spool.
        """
        folder = self._by_names(folder)
        placed = [replace(source, path=f"{folder}/{source.path}") for source in sources]
        for source in placed:
            self._tally.expect(source.size)
        self._make_folders(folder, placed)
        self._engine.run([placed], self._send, lambda source: str(source.local))
        # As long as bytes move, however many there are.
        self._drain()
        return folder

    def _by_names(self, folder: str) -> str:
        """What has the resource may be meant by its id, or by links; the rest need not be there."""
        owner = _resource(folder).rpartition("/resources/")[0]
        return self._fs.search.resolve(owner, self._waiter()) + folder.removeprefix(owner)

    def _make_folders(self, folder: str, sources: Sequence[Source]) -> None:
        resource = _resource(folder)
        wanted = [resource]
        for path in sorted({os.path.dirname(source.path) for source in sources}):
            parts = path.removeprefix(f"{resource}{_BELOW}").strip("/").split("/")
            for depth in range(1, len(parts) + 1):
                if parts[0]:
                    wanted.append(f"{resource}{_BELOW}/" + "/".join(parts[:depth]))
        for path in dict.fromkeys(wanted):
            try:
                self._fs.getattr(path, None, self._waiter())
            except NotFound:
                self._fs.mkdir(path, self._waiter())

    def _send(self, source: Source) -> None:
        waiter = self._waiter()
        before = self._is_there(source, waiter)
        if before:
            self._tally.moved(source.size)
        else:
            self._write(source, waiter)
        self._tally.done(before=before)

    def _is_there(self, source: Source, waiter: Waiter) -> bool:
        try:
            if self._fs.getattr(source.path, None, waiter).size != source.size:
                return False
        except NotFound:
            return False
        digest = self._fs.search.look(source.path, waiter).digest
        return digest != "" and md5_of(source.local) == digest

    def _write(self, source: Source, waiter: Waiter) -> None:
        fs, me = self._fs, Caller(os.getpid())
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC
        try:
            handle = fs.create(source.path, flags | os.O_EXCL, 0o644, me, waiter).handle
        except AlreadyExists:
            handle = fs.open(source.path, os.O_WRONLY | os.O_TRUNC, me, waiter).handle
        try:
            with local_disk(str(source.local)):
                self._pour(source.local, handle, waiter)
            fs.flush(handle, me, waiter)
        finally:
            fs.release(handle, waiter)

    def _pour(self, local: Path, handle: int, waiter: Waiter) -> None:
        offset = 0
        with local.open("rb") as file:
            while piece := file.read(MIB):
                self._fs.write(handle, piece, offset, waiter)
                offset += len(piece)
                self._tally.moved(len(piece))
                waiter.progress()

    def _drain(self) -> None:
        try:
            self._fs.drain(Waiter(idle_s=self._settings.limits.io_timeout_s))
        except WaitEnded:
            # What did not arrive is told by ``FileSystem.pending``.
            return
        finally:
            self._shown()

    def _waiter(self) -> Waiter:
        idle_s = self._settings.limits.io_timeout_s
        return Waiter(idle_s=idle_s, interrupted=self._engine.stop.is_set)


def _resource(folder: str) -> str:
    """The resource of a folder as ``target_folder`` has it."""
    return (folder + "/").partition(_BELOW + "/")[0]


def target_folder(path: str) -> str:
    """The folder below ``files`` that a PATH means, by its names alone.

    Raises: UsageError: it names no resource.
    """
    path = path.rstrip("/")
    parts = path.split("/")
    for at in range(1, len(parts)):
        if parts[at - 1] == "resources":
            if len(parts) == at + 1:
                return path + _BELOW
            if parts[at + 1] == "files":
                return path
    raise UsageError(f"{path}: say which resource: …/resources/NAME, or a folder below its files/")


def local_files(
    given: Iterable[Path],
    *,
    recursive: bool,
    include: Sequence[str] = (),
    follow_links: bool = False,
) -> list[Source]:
    """What is to be sent, and where to below the folder that is meant.

    Args:
        given: files, and with ``recursive`` folders, whose own names come along as with ``cp -r``.
        recursive: take folders.
        include: names of the files wanted in folders (with ``*`` and ``?``); empty: all.
        follow_links: send what links lead to; else they are an error.

    Raises: UsageError: a folder without ``recursive``, a link, what is no file, two that would
        have one name, nothing to send. NotFound.
    """
    found = []
    for path in given:
        if not path.exists() and not path.is_symlink():
            raise NotFound(f"{path}: no such file")
        _check_link(path, follow_links=follow_links)
        if path.is_dir():
            if not recursive:
                raise UsageError(f"{path} is a folder: -r sends all that is in it")
            base = path.resolve() if path.name in ("", ".", "..") else path
            for local in _walk(path, include, follow_links=follow_links):
                inner = local.relative_to(path)
                found.append(_source(local, f"{base.name}/{inner}"))
        else:
            found.append(_source(path, path.name))
    if not found:
        raise UsageError("nothing to send")
    first: dict[str, Source] = {}
    for source in found:
        other = first.setdefault(source.path, source)
        # One that is given twice is sent once.
        if not other.local.samefile(source.local):
            raise UsageError(f"{other.local} and {source.local} would both be {source.path} there")
    return list(first.values())


def _walk(folder: Path, include: Sequence[str], *, follow_links: bool) -> Iterator[Path]:
    for above, folders, names in os.walk(folder, followlinks=follow_links):
        folders.sort()
        for name in folders:
            _check_link(Path(above, name), follow_links=follow_links)
        for name in sorted(names):
            if include and not any(fnmatch.fnmatchcase(name, it) for it in include):
                continue
            _check_link(Path(above, name), follow_links=follow_links)
            yield Path(above, name)


def _check_link(path: Path, *, follow_links: bool) -> None:
    if path.is_symlink() and not follow_links:
        raise UsageError(
            f"{path} is a link, which XNAT cannot store: --follow-links sends the file"
        )
    if path.is_dir() and path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve()):
        raise UsageError(f"{path} is a link to a folder that it lies in")


def _source(local: Path, path: str) -> Source:
    if local.is_symlink() and not local.exists():
        raise NotFound(f"{local} is a link that leads nowhere")
    with local_disk(str(local)):
        about = local.stat()
    # To read from a pipe would be to wait for whoever writes into it.
    if not stat.S_ISREG(about.st_mode):
        raise UsageError(f"{local} is neither a file nor a folder")
    return Source(local, path, about.st_size)
