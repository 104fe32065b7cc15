"""Asking for listings: once for all who wait, from memory, from records on disk, from the server.

What can be asked, and what the answers mean, is in ``listings``.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any

from xnatfs.config import Limits
from xnatfs.errors import XnatfsError
from xnatfs.tree.held import Cached, Held, weight
from xnatfs.tree.sharing import Key, Sharing, Told
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)

# From this many rows on a listing that is in use is asked for again before its time is over, so
# that a walk over its entries does not stand still for it again and again.
LARGE = 10_000


@dataclass(frozen=True, slots=True)
class Question:
    """One listing that can be asked for."""

    key: Key
    # Asks the server; on a worker.
    ask: Callable[[Waiter], Any]
    # The listing, for people.
    what: str


@dataclass(frozen=True, slots=True)
class Begun:
    """A request on its way, and when it was made."""

    future: Future[Any]
    since: float


class Asking:
    """The listings of one archive on their way.

    Args:
        workers: the threads that ask.
        limits: ages and patience.
        sharing: with the other processes of the account.

    Threading: ``_mu`` guards ``_begun``, and is taken before that of ``Held``; nothing is asked
    and no disk is touched under it.
    """

    def __init__(self, workers: Workers, limits: Limits, sharing: Sharing) -> None:
        self._workers = workers
        self._limits = limits
        self._sharing = sharing
        self._ttl = math.inf if sharing.offline else limits.listing_ttl_s
        self.held = Held(self._ttl, 2 * limits.io_timeout_s)
        self._mu = threading.Lock()
        self._begun: dict[Key, Begun] = {}
        # Of large listings: when the one was asked for that is being renewed, or was in vain.
        self._renewing: dict[Key, float] = {}

    def get(self, question: Question, waiter: Waiter, not_before: float = 0.0) -> Any:
        """The listing, or the error of asking for it.

        Args:
            question: which.
            waiter: the limits of the caller's wait.
            not_before: time.monotonic() at which it may have been asked for at the earliest.
        """
        return self.wait(self.begin(question, not_before), waiter, question.what)

    @staticmethod
    def wait(begun: Cached | Begun, waiter: Waiter, what: str) -> Any:
        """The listing that was begun."""
        return waiter.result(begun.future, what) if isinstance(begun, Begun) else begun

    def begin(self, question: Question, not_before: float = 0.0) -> Cached | Begun:
        """What is held, or the request for it, which is made unless it is on its way."""
        if self._sharing.offline:
            not_before = 0.0
        key = question.key
        with self._mu:
            cached = self.held.get(key)
            if cached is not None and cached.asked >= not_before:
                return cached
            begun = self._begun.get(key)
            if begun is None or begun.since < not_before:
                since = time.monotonic()
                future = self._workers.submit(self._ask, question, since, not_before)
                self._begun[key] = begun = Begun(future, since)
            return begun

    def begin_many(
        self,
        questions: Sequence[Question],
        ask: Callable[[Waiter], Mapping[str, Any]],
    ) -> None:
        """Make one request for several listings; those that are on their way come from there.

        Args:
            questions: which.
            ask: asks the server; returns what is told, by address. What it leaves out, or all if
                it fails, is asked for one by one.
        """
        since = time.monotonic()
        with self._mu:
            mine = {
                question: Future[Any]()
                for question in questions
                if self.held.get(question.key) is None and question.key not in self._begun
            }
            for question, future in mine.items():
                self._begun[question.key] = Begun(future, since)
        if mine:
            self._workers.submit(self._ask_many, mine, ask, since)

    def is_begun(self, key: Key) -> bool:
        """Whether a listing is held or on its way."""
        return self.held.get(key) is not None or key in self._begun

    def renew(self, known: Cached, question: Question) -> None:
        """Ask for a large listing again, once, when most of its time is over."""
        if weight(known) < LARGE:
            return
        young = time.monotonic() - self._ttl / 3
        if young - known.asked > self._ttl / 3 and self._renewing.get(question.key) != known.asked:
            self._renewing[question.key] = known.asked
            self.begin(question, young)

    def _ask(self, question: Question, since: float, not_before: float) -> Cached:
        try:
            # Whoever waits has a budget of their own; the request goes on as long as it moves,
            # so that a second try finds the listing.
            patient = Waiter(idle_s=self._limits.io_timeout_s)
            oldest = max(not_before, since - self._ttl)
            told = self._sharing.fetch(question.key, question.ask, oldest, question.what, patient)
            return self.held.take(question.key, told)
        finally:
            self._over(question.key, since)

    def _ask_many(
        self,
        mine: Mapping[Question, Future[Any]],
        ask: Callable[[Waiter], Mapping[str, Any]],
        since: float,
    ) -> None:
        found: dict[Key, Told] = {}
        try:
            for question in mine:
                told = self._sharing.told_lately(question.key, since - self._ttl)
                if told is not None:
                    found[question.key] = told
            if len(found) < len(mine):
                found |= self._told_together(mine, ask)
        except XnatfsError as error:
            log.info("listings are asked for one by one: %s", error)
        finally:
            for question, future in mine.items():
                if (told := found.get(question.key)) is not None:
                    future.set_result(self.held.take(question.key, told))
                    self._over(question.key, since)
                else:
                    alone = self._workers.submit(self._ask, question, since, 0.0)
                    alone.add_done_callback(partial(_hand_on, future))

    def _told_together(
        self, mine: Mapping[Question, Future[Any]], ask: Callable[[Waiter], Mapping[str, Any]]
    ) -> dict[Key, Told]:
        asked = time.monotonic()
        rows = ask(Waiter(idle_s=self._limits.io_timeout_s))
        found = {
            question.key: Told(rows[question.key.address], asked)
            for question in mine
            if question.key.address in rows
        }
        for key, told in found.items():
            self._sharing.keep(key, told)
        return found

    def _over(self, key: Key, since: float) -> None:
        with self._mu:
            # A younger request may have taken the place, and may even be over.
            begun = self._begun.get(key)
            if begun is not None and begun.since == since:
                del self._begun[key]


def _hand_on(to: Future[Any], done: Future[Any]) -> None:
    error = done.exception()
    if error is not None:
        to.set_exception(error)
    else:
        to.set_result(done.result())
