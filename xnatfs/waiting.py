"""Waiting: every wait of xnatfs goes through one ``Waiter``, so every wait has an end.

``fuse`` makes a Waiter for each request of the kernel and hands it down; ``cli`` makes one for
each command. Blocking work (HTTP, fsync of large files) runs on ``Workers``; the caller waits
for its Future with ``Waiter.result``, which polls whether the caller was interrupted.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import ParamSpec, TypeVar

from xnatfs.errors import Interrupted, TimedOut

P = ParamSpec("P")
T = TypeVar("T")

# A person feels 100 ms as "at once", and ten polls a second cost nothing measurable.
POLL_S = 0.1

# A worker that had nothing to do for this long ends; the next submit starts another.
IDLE_S = 30.0


def _never() -> bool:
    return False


class Waiter:
    """The limits of one wait.

    Args:
        total_s: seconds until the wait ends in any case; None for no such limit.
        idle_s: seconds without ``progress()`` after which the wait ends; None for no limit.
        interrupted: asked every 100 ms on the waiting thread; True ends the wait.

    Threading: belongs to the request it was made for. ``progress`` and ``remaining`` may be
    called from any thread (they touch one float); the rest on the thread that waits.
    """

    def __init__(
        self,
        total_s: float | None = None,
        idle_s: float | None = None,
        interrupted: Callable[[], bool] = _never,
    ) -> None:
        self._ends = None if total_s is None else time.monotonic() + total_s
        self.idle_s = idle_s
        self._moved = time.monotonic()
        self._interrupted = interrupted

    def progress(self) -> None:
        """Tell that something moved: the no-progress clock starts again."""
        self._moved = time.monotonic()

    def follow(self, work: Waiter) -> None:
        """What moves in ``work`` is progress here too: somebody else does what is waited for."""
        self._moved = max(self._moved, work._moved)

    def remaining(self) -> float | None:
        """Seconds until the earliest limit (never below 0), or None without limits."""
        now = time.monotonic()
        limits = []
        if self._ends is not None:
            limits.append(self._ends - now)
        if self.idle_s is not None:
            limits.append(self._moved + self.idle_s - now)
        return max(0.0, min(limits)) if limits else None

    def check(self, what: str) -> None:
        """Raise if the wait is over.

        Args:
            what: what is waited for, for the error text ("the listing of /projects").

        Raises:
            Interrupted: the waiting process got a signal.
            TimedOut: a limit is reached.
        """
        if self._interrupted():
            raise Interrupted(f"interrupted while waiting for {what}")
        if self.remaining() == 0.0:
            if self.idle_s is not None and time.monotonic() - self._moved >= self.idle_s:
                raise TimedOut(f"no progress for {self.idle_s:g} s with {what}")
            raise TimedOut(f"gave up waiting for {what}")

    def _step(self, at_most: float | None = None) -> float:
        step = POLL_S if at_most is None else min(POLL_S, at_most)
        left = self.remaining()
        return step if left is None else min(step, left)

    def sleep(self, seconds: float, what: str) -> None:
        """Sleep; raises like ``check`` when a limit comes first."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.check(what)
            time.sleep(self._step(left))

    def result(self, future: Future[T], what: str, work: Waiter | None = None) -> T:
        """Wait for a Future of a worker and return its result, or raise its error.

        The work itself goes on when the wait ends early: somebody else may wait for it too.

        Args:
            future: of the work.
            what: what is waited for, for the error text.
            work: the waiter of the work, whose progress counts here.
        """
        done = threading.Event()
        future.add_done_callback(lambda _future: done.set())
        while not done.wait(self._step()):
            if work is not None:
                self.follow(work)
            self.check(what)
        return future.result()

    def until(self, condition: threading.Condition, met: Callable[[], bool], what: str) -> None:
        """Wait until ``met()`` is true. The caller holds ``condition``."""
        while not met():
            self.check(what)
            condition.wait(self._step())


class Workers:
    """Daemon threads for blocking work; they never keep a process from ending.

    (``ThreadPoolExecutor`` joins its threads at exit, so a stalled server would hold the
    unmount for as long as its socket timeout.)

    Args:
        most: the largest number of threads.
        name: prefix of the thread names.

    Threading: ``_mu`` guards the counters; jobs travel through the queue.
    """

    def __init__(self, most: int, name: str) -> None:
        self._most = most
        self._name = name
        self._jobs: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._mu = threading.Lock()
        self._threads = 0
        self._idle = 0
        self._started = 0

    def submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``work`` on a worker and return its Future."""
        future: Future[T] = Future()

        def job() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = work(*args, **kwargs)
            except BaseException as error:  # noqa: BLE001 -- the Future hands it to the waiter
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._mu:
            self._jobs.put(job)
            start = self._idle < self._jobs.qsize() and self._threads < self._most
            if start:
                self._threads += 1
                self._started += 1
                name = f"{self._name}-{self._started}"
        if start:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        return future

    def _run(self) -> None:
        while True:
            with self._mu:
                self._idle += 1
            try:
                job = self._jobs.get(timeout=IDLE_S)
            except queue.Empty:
                with self._mu:
                    self._idle -= 1
                    # A job may have come between the timeout and the lock.
                    if not self._jobs.empty():
                        continue
                    self._threads -= 1
                return
            with self._mu:
                self._idle -= 1
            job()
            del job
