"""Doing something with many files at once, until it is done, or somebody presses Ctrl-C."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from typing import Generic, TypeVar

from xnatfs.errors import (
    DiskFault,
    Interrupted,
    LoginRefused,
    NotXnat,
    ServerFault,
    SpaceProblem,
    TimedOut,
    XnatfsError,
)
from xnatfs.transfer.tally import Tally
from xnatfs.waiting import POLL_S, Workers

T = TypeVar("T")

# Groups at once. The files of a group follow each other: a resource of small files comes as one
# stream, a large file in parallel ranges, so a few groups fill a line.
GROUPS = 3

# What the next file would meet as well: a full disk, a login that ended.
_FOR_ALL = (DiskFault, LoginRefused, NotXnat, SpaceProblem)

# So many files in a row that the server did not give: it is gone, and each took its time to fail.
_IN_A_ROW = 2 * GROUPS


class Engine(Generic[T]):
    """Works off groups of files on threads of its own.

    Args:
        tally: of the transfer.
        shown: called a few times a second while it runs.

    Threading: ``stop`` is read and set by all; ``_mu`` guards how many failed in a row; the rest
    belongs to ``run``.
    """

    def __init__(self, tally: Tally, shown: Callable[[], None]) -> None:
        self._tally = tally
        self._shown = shown
        self.stop = threading.Event()
        self._mu = threading.Lock()
        self._in_a_row = 0

    def run(
        self,
        groups: Iterable[Sequence[T]],
        work: Callable[[T], None],
        path_of: Callable[[T], str],
    ) -> None:
        """Do ``work`` for every file of every group; what fails is counted, and the rest goes on.

        It ends early when what failed would fail for every file.

        Raises: KeyboardInterrupt, after the threads have put their work down.
        """
        waiting: queue.SimpleQueue[Sequence[T]] = queue.SimpleQueue()
        for group in groups:
            waiting.put(group)
        workers = Workers(GROUPS, "transfer")
        running = [
            workers.submit(self._work_off, waiting, work, path_of)
            for _ in range(min(GROUPS, waiting.qsize()))
        ]
        try:
            while wait(running, timeout=POLL_S).not_done:
                self._shown()
        except KeyboardInterrupt:
            self.stop.set()
            # Each puts its file down first.
            wait(running)
            raise

    def _work_off(
        self,
        waiting: queue.SimpleQueue[Sequence[T]],
        work: Callable[[T], None],
        path_of: Callable[[T], str],
    ) -> None:
        while not self.stop.is_set():
            try:
                group = waiting.get_nowait()
            except queue.Empty:
                return
            for file in group:
                if self.stop.is_set():
                    return
                try:
                    work(file)
                except Interrupted:
                    return
                except XnatfsError as error:
                    self._failed(path_of(file), error)
                except Exception as error:  # noqa: BLE001 -- a fault of ours is one file's, too
                    self._failed(path_of(file), ServerFault(f"unexpected {error!r}"))
                else:
                    with self._mu:
                        self._in_a_row = 0

    def _failed(self, path: str, error: XnatfsError) -> None:
        with self._mu:
            if self.stop.is_set():
                # The others at work meet the same; it was told once.
                return
            self._tally.failed(path, error)
            silent = error.temporary or isinstance(error, TimedOut)
            self._in_a_row = self._in_a_row + 1 if silent else 0
            if isinstance(error, _FOR_ALL) or self._in_a_row >= _IN_A_ROW:
                self.stop.set()
