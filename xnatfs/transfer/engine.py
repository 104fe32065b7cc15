"""Doing something with many files at once, until it is done, or somebody presses Ctrl-C."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import wait
from typing import Generic, TypeVar

from xnatfs.errors import Interrupted, ServerFault, XnatfsError
from xnatfs.transfer.tally import Tally
from xnatfs.waiting import POLL_S, Workers

T = TypeVar("T")

# Groups at once. The files of a group follow each other: a resource of small files comes as one
# stream, a large file in parallel ranges, so a few groups fill a line.
GROUPS = 3


class Engine(Generic[T]):
    """Works off groups of files on threads of its own.

    Args:
        tally: of the transfer.
        shown: called a few times a second while it runs.

    Threading: ``stop`` is read and set by all; the rest belongs to ``run``.
    """

    def __init__(self, tally: Tally, shown: Callable[[], None]) -> None:
        self._tally = tally
        self._shown = shown
        self.stop = threading.Event()

    def run(
        self,
        groups: Iterable[Sequence[T]],
        work: Callable[[T], None],
        path_of: Callable[[T], str],
    ) -> None:
        """Do ``work`` for every file of every group; what fails is counted, and the rest goes on.

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
                    self._tally.failed(path_of(file), error)
                except Exception as error:  # noqa: BLE001 -- a fault of ours is one file's, too
                    self._tally.failed(path_of(file), ServerFault(f"unexpected {error!r}"))
