"""The turn at one open file: one writer, sender or renamer at a time."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from xnatfs.waiting import Waiter


class Turn:
    """Who may change the state of a file, or its bytes in the spool.

    A turn is a flag, not a held lock: whoever has it may wait for the network, and pass it on to
    another thread; who waits for it can be interrupted.

    Threading: ``_mu`` guards the rest; held only to look and to change.
    """

    def __init__(self) -> None:
        self._mu = threading.Condition()
        self._busy = False
        # The waiter of the work that is done in the turn: what moves there is progress.
        self._work: Waiter | None = None
        # Set when somebody waits for the turn that the background sender has.
        self._wanted: threading.Event | None = None

    def take(self, waiter: Waiter, what: str) -> None:
        """Wait for the turn.

        Raises: TimedOut, Interrupted.
        """

        def free() -> bool:
            if self._work is not None:
                waiter.follow(self._work)
            if self._wanted is not None:
                self._wanted.set()
            return not self._busy

        with self._mu:
            waiter.until(self._mu, free, what)
            self._busy = True

    def take_if_free(self, wanted: threading.Event) -> bool:
        """Take the turn unless somebody has it; ``wanted`` is set when another waits for it."""
        with self._mu:
            if self._busy:
                return False
            self._busy = True
            self._wanted = wanted
            return True

    def follow(self, work: Waiter) -> None:
        """Called with the turn: what moves in ``work`` is progress for who waits."""
        self._work = work

    def end(self) -> None:
        """Let the next one in; any thread may end it."""
        with self._mu:
            self._busy = False
            self._work = self._wanted = None
            self._mu.notify_all()

    @contextmanager
    def held(self, waiter: Waiter, what: str) -> Iterator[None]:
        """Wait for the turn and keep it for a while. Raises as ``take``."""
        self.take(waiter, what)
        try:
            yield
        finally:
            self.end()
