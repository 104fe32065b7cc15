"""Filling the store and its listings, so that a mount without a network has what it needs."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, groupby

from xnatfs.config import Settings
from xnatfs.errors import NoSpace, NotFound
from xnatfs.fs.below import Below
from xnatfs.fs.filesystem import FileSystem
from xnatfs.transfer.engine import Engine
from xnatfs.transfer.tally import Tally
from xnatfs.waiting import Waiter

# The store begins to remove what was used longest ago when it is fuller than this.
_USABLE = 0.85


class Prefetch:
    """Brings everything below some paths into the store.

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
        self._shown = shown
        self._engine: Engine[Below] = Engine(tally, shown)
        # Paths that may be in the store already; later a stream may be ahead of us.
        self._before: set[str] = set()

    def run(self, paths: Iterable[str], resources: Sequence[str] = ()) -> None:
        """List everything below the paths, and bring the files.

        Args:
            paths: in the archive.
            resources: labels of the resources whose files are wanted (with ``*`` and ``?``);
                empty: of all. Listed is everything.

        Raises: NotFound: a path, or any file of such resources; NoSpace: the store's bound is
            too small; what a listing raises; KeyboardInterrupt.
        """
        self._fs.depth.prepare(self._waiter())
        listed = [list(group) for group in self._groups(paths)]
        groups = [group for group in listed if _wanted(group[0], resources)]
        if listed and not groups:
            labels = ", ".join(sorted({group[0].label for group in listed} - {""}))
            raise NotFound(f"no files of resource {', '.join(resources)} there; it has {labels}")
        for file in chain.from_iterable(groups):
            self._tally.expect(file.row.size or 0)
            if self._fs.depth.may_be_here(file):
                self._before.add(file.path)
        usable = int(self._settings.store.size * _USABLE)
        if self._tally.bytes > usable:
            raise NoSpace(
                f"{self._tally.bytes} bytes do not stay in a store of "
                f"{self._settings.store.size} bytes: see --cache-size"
            )
        self._engine.run(groups, self._bring, lambda file: file.path)
        for group in groups:
            # What the listing did not tell was asked for on the way; offline nobody can ask.
            if any(not file.row.digest or file.row.size is None for file in group):
                self._fs.depth.keep(group[0], self._waiter())

    def _groups(self, paths: Iterable[str]) -> Iterator[list[Below]]:
        seen: set[str] = set()
        for path in paths:
            files = self._fs.depth.files(path, self._waiter())
            for _resource, below in groupby(files, key=lambda file: file.resource):
                group = [file for file in below if file.path not in seen]
                seen |= {file.path for file in group}
                self._shown()
                if group:
                    yield group

    def _bring(self, file: Below) -> None:
        waiter = self._waiter()
        with self._fs.depth.open(file, waiter) as opened:
            before = opened.here and file.path in self._before
            if opened.here:
                self._tally.moved(opened.version.size)
            else:
                for piece in opened.pieces(waiter):
                    self._tally.moved(len(piece))
            if not opened.kept and opened.version.size:
                raise NoSpace("the store has no room for it: see --cache-dir and --cache-size")
        self._tally.done(before=before)

    def _waiter(self) -> Waiter:
        idle_s = self._settings.limits.io_timeout_s
        return Waiter(idle_s=idle_s, interrupted=self._engine.stop.is_set)


def _wanted(file: Below, resources: Sequence[str]) -> bool:
    return not resources or any(fnmatch.fnmatchcase(file.label, it) for it in resources)
