"""Files of the archive into a folder, or into one zip: checked, resumable, not twice.

What is fetched goes through the store, which knows how to resume at the byte and what is true;
a file appears under its name when all of it is there.
"""

from __future__ import annotations

import fcntl
import fnmatch
import hashlib
import os
import secrets
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from email.utils import parsedate_to_datetime
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

from xnatfs.config import MIB, Settings
from xnatfs.errors import AlreadyExists, ContentProblem, NotFound, UsageError
from xnatfs.fs.below import Below, Open
from xnatfs.fs.filesystem import FileSystem
from xnatfs.transfer.engine import Engine
from xnatfs.transfer.tally import Tally
from xnatfs.upload.disk import local_disk
from xnatfs.waiting import Waiter

# In the names of files that are not complete.
_PART = ".xnatfs-part-"


class Get:
    """Brings everything below some paths to a folder.

    Args:
        fs: connected.
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
        self._engine: Engine[tuple[Below, Path]] = Engine(tally, shown)

    def into_folder(
        self, paths: Iterable[str], folder: Path, *, flat: bool, include: Sequence[str] = ()
    ) -> None:
        """Bring files to a folder; one that is there with the right content is left alone.

        Args:
            paths: in the archive.
            folder: made if need be. The path of one file may have another file's name here.
            flat: all files directly in the folder, in place of the archive's own layout.
            include: names of the files wanted (with ``*`` and ``?``); empty: all.

        Raises: UsageError: two files would have one name. NotFound: a path, or any such file;
            DiskFault, NoSpace,
            QuotaExceeded; what a listing raises; KeyboardInterrupt.
        """
        targets = self._targets(list(paths), folder, include, flat=flat)
        _refuse_clashes(targets)
        for place in {place.parent for _, place in targets}:
            _remove_leftovers(place)
        groups = groupby(targets, key=lambda target: target[0].resource)
        self._engine.run(
            [list(group) for _, group in groups], self._bring, lambda target: target[0].path
        )

    def into_zip(
        self, paths: Iterable[str], place: Path, *, flat: bool, include: Sequence[str] = ()
    ) -> None:
        """Bring files into one zip, without compression, as the archive's own.

        Args, raises: as ``into_folder``; ``place``: of the zip, replaced when all are in it.
        """
        targets = self._targets(list(paths), Path(), include, flat=flat)
        _refuse_clashes(targets)
        waiter = self._waiter()
        with (
            _beside(place) as file,
            zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive,
        ):
            # One after the other: the store brings what comes next meanwhile.
            self._engine.run(
                [targets],
                lambda target: self._pack(*target, archive, waiter),
                lambda target: target[0].path,
            )
            if self._tally.failures:
                raise ContentProblem(
                    f"{place} was not made: {len(self._tally.failures)} files are missing"
                )

    def _targets(
        self, paths: Sequence[str], folder: Path, include: Sequence[str], *, flat: bool
    ) -> list[tuple[Below, Path]]:
        seen: set[str] = set()
        targets = []
        for path in paths:
            for file in self._fs.depth.files(path, self._waiter()):
                name = file.path.rpartition("/")[2]
                wanted = not include or any(fnmatch.fnmatchcase(name, it) for it in include)
                if file.path in seen or not wanted:
                    continue
                seen.add(file.path)
                self._tally.expect(file.row.size or 0)
                targets.append((file, folder / (name if flat else file.place)))
        if include and not targets:
            raise NotFound(f"no file {' or '.join(include)} there")
        return targets

    def _bring(self, target: tuple[Below, Path]) -> None:
        file, place = target
        waiter = self._waiter()
        with self._fs.depth.open(file, waiter) as opened:
            before = _is_there(place, opened)
            if before:
                self._tally.moved(opened.version.size)
            else:
                with _beside(place) as copy:
                    self._copy(opened, copy.write, waiter)
                _set_time(place, opened.version.modified)
        self._tally.done(before=before)

    def _pack(self, file: Below, place: Path, archive: zipfile.ZipFile, waiter: Waiter) -> None:
        with self._fs.depth.open(file, waiter) as opened:
            about = zipfile.ZipInfo(str(place))
            about.external_attr = 0o644 << 16
            about.file_size = opened.version.size
            with local_disk(str(place)), archive.open(about, "w") as entry:
                self._copy(opened, entry.write, waiter)
        self._tally.done(before=False)

    def _copy(self, opened: Open, write: Callable[[bytes], object], waiter: Waiter) -> None:
        """The bytes, compared with the MD5 once more: the last block of a file is."""
        md5 = hashlib.md5(usedforsecurity=False)
        done = 0
        try:
            for piece in opened.pieces(waiter):
                md5.update(piece)
                write(piece)
                done += len(piece)
                self._tally.moved(len(piece))
            digest = opened.version.digest
            if digest and md5.hexdigest() != digest and self._settings.store.verify != "warn":
                raise ContentProblem("what arrived is not what the catalog says")
        except BaseException:
            self._tally.moved(-done)
            raise

    def _waiter(self) -> Waiter:
        idle_s = self._settings.limits.io_timeout_s
        return Waiter(idle_s=idle_s, interrupted=self._engine.stop.is_set)


def _refuse_clashes(targets: Sequence[tuple[Below, Path]]) -> None:
    first: dict[Path, Below] = {}
    for file, place in targets:
        other = first.setdefault(place, file)
        if other is not file:
            raise UsageError(
                f"{other.path} and {file.path} would both be {place}: get them into different "
                "folders, or without --flat"
            )


def _is_there(place: Path, opened: Open) -> bool:
    """Whether a file is here already, with that content."""
    version = opened.version
    try:
        stat = os.stat(place)
    except OSError:
        return False
    if stat.st_size != version.size:
        return False
    if version.digest:
        return md5_of(place) == version.digest
    return version.modified != "" and int(stat.st_mtime) == _seconds(version.modified)


def md5_of(place: Path) -> str:
    """The MD5 of a local file in lower-case hex.

    Raises: DiskFault.
    """
    md5 = hashlib.md5(usedforsecurity=False)
    with local_disk(str(place)), place.open("rb") as file:
        while piece := file.read(MIB):
            md5.update(piece)
    return md5.hexdigest()


def _seconds(modified: str) -> int:
    """Seconds since the epoch of a ``Last-Modified``; -1 for what is none."""
    try:
        return int(parsedate_to_datetime(modified).timestamp())
    except ValueError:
        return -1


def _set_time(place: Path, modified: str) -> None:
    """Without a digest it is the date by which the next call knows the file again."""
    if modified and (seconds := _seconds(modified)) >= 0:
        with local_disk(str(place)):
            os.utime(place, (seconds, seconds))


@contextmanager
def _beside(place: Path) -> Iterator[BinaryIO]:
    """A new file that gets its name when it is complete, and else vanishes.

    Raises: AlreadyExists: a folder stands there. DiskFault, NoSpace, QuotaExceeded.
    """
    if place.is_dir():
        raise AlreadyExists(f"{place} is a folder")
    part = place.with_name(f".{place.name[:200]}{_PART}{secrets.token_hex(4)}")
    with local_disk(str(place)):
        place.parent.mkdir(parents=True, exist_ok=True)
        try:
            with part.open("xb") as file:
                # The sign of life for ``_remove_leftovers``.
                with suppress(OSError):
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                yield file
                file.flush()
                part.replace(place)
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def _remove_leftovers(folder: Path) -> None:
    """Remove what a killed ``get`` left: a converter would take it for a slice.

    Where there are no locks nobody can tell it from the work of another ``get``, and it stays.
    """
    for part in folder.glob(f".*{_PART}*"):
        with suppress(OSError), part.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            part.unlink()
