"""Turns: one upload at a time for each resource, several resources at once (R§4.6, R§10.6)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xnatfs.waiting import Waiter


class Turns:
    """Who may change which resource now.

    A turn is a name in a table, not a held lock, so that it may last as long as a transfer and
    whoever waits for it can be interrupted.

    Threading: ``_mu`` guards the tables; held only to look and to change them.
    """

    def __init__(self) -> None:
        self._mu = threading.Condition()
        self._busy: set[str] = set()
        # How often the work on a resource has moved: whoever waits behind work that moves has
        # no reason to give up.
        self._moves: dict[str, int] = {}

    @contextmanager
    def turn(self, resource_id: str, waiter: Waiter, what: str) -> Iterator[Callable[[], None]]:
        """Wait for the turn and hold it.

        Yields: what to call whenever the work moves.

        Raises: TimedOut: nothing moved for as long as the waiter allows. Interrupted.
        """
        seen = -1

        def free() -> bool:
            nonlocal seen
            if (moves := self._moves.get(resource_id, 0)) != seen:
                seen = moves
                waiter.progress()
            return resource_id not in self._busy

        def moved() -> None:
            with self._mu:
                self._moves[resource_id] = self._moves.get(resource_id, 0) + 1

        with self._mu:
            waiter.until(self._mu, free, what)
            self._busy.add(resource_id)
        try:
            yield moved
        finally:
            with self._mu:
                self._busy.discard(resource_id)
                self._moves[resource_id] = self._moves.get(resource_id, 0) + 1
                self._mu.notify_all()
