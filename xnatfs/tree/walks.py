"""Walks through a project: what the next sessions and subjects hold is asked for ahead.

Who looks into one session after the other (``find``, ``ls -R``, a loop of a shell) in the order of
the listing or of the names will look into the next ones. Each collection counts for itself: who
wants the scans only gets no files ahead. A look into one session, or into some here and there,
asks for nothing more.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass

from cachetools import LRUCache

from xnatfs.model.entities import Item
from xnatfs.model.levels import EXPERIMENT, PROJECT, SUBJECT
from xnatfs.tree.listings import Listings

# The most objects that are asked ahead of a walk.
MOST_AHEAD = 32

# Objects of which is remembered when they were looked into.
_MOST_VISITS = 20_000


@dataclass(frozen=True, slots=True)
class _Order:
    """The objects of a project in an order in which they may be walked through."""

    objects: Sequence[Item]
    place: dict[str, int]


class Walks:
    """The walks through the projects of one mount.

    Args:
        listings: of the archive.
        ahead_s: what is asked for ahead is to be wanted within this time. Seconds.

    Threading: ``_mu`` guards the visits and the orders; ``_latest`` is replaced as a whole.
    """

    def __init__(self, listings: Listings, ahead_s: float) -> None:
        self._listings = listings
        self._ahead_s = ahead_s
        self._mu = threading.Lock()
        # When one of its collections was looked into, by collection and address.
        self._visits: LRUCache[tuple[str, str], float] = LRUCache(_MOST_VISITS)
        self._latest: tuple[str, Item] | None = None
        # What orders were made from, and those orders.
        self._orders: LRUCache[tuple[str, str], tuple[object, object, list[_Order]]]
        self._orders = LRUCache(16)

    def visits(self, collection: str, at: Item, project: Item) -> None:
        """Somebody looks into a collection of an object in a project; asks, but does not wait."""
        if at.level.listed_at != PROJECT.name:
            return
        latest = self._latest
        if latest is not None and latest[1] is at and latest[0] == collection:
            return
        self._latest = (collection, at)
        key = (collection, at.address)
        now = time.monotonic()
        with self._mu:
            fresh = now - self._visits.get(key, -self._ahead_s) >= self._ahead_s
            if fresh:
                self._visits[key] = now
        if fresh:
            for order in self._orders_of(at, project):
                ahead = self._ahead(collection, order, order.place[at.address], now)
                if ahead:
                    self._listings.foresee_many(collection, ahead)
                    return

    def _ahead(self, collection: str, order: _Order, place: int, now: float) -> list[Item]:
        """What is to be asked for now: nothing, or as many as are missing in front of a walk."""
        many = self._pace(collection, order, place, now)
        following = order.objects[place + 1 : place + 1 + many]
        missing = self._listings.missing(collection, following)
        # Not one by one, but when half of them were used up, or the very next is wanted.
        if not missing or (len(missing) < many // 2 and missing[0] is not following[0]):
            return []
        return missing

    def _pace(self, collection: str, order: _Order, place: int, now: float) -> int:
        """How many objects a walk that has come to a place will look into within ``ahead_s``.

        At most twice as many as it has looked into one after the other.
        """
        since = now
        run = 0
        with self._mu:
            while run < min(place, MOST_AHEAD // 2):
                before = order.objects[place - run - 1]
                visit = self._visits.get((collection, before.address))
                if visit is None or now - visit > self._ahead_s:
                    break
                since = visit
                run += 1
        if not run:
            return 0
        each_s = (now - since) / run
        return min(2 * run, int(self._ahead_s / each_s) if each_s else MOST_AHEAD)

    def _orders_of(self, at: Item, project: Item) -> list[_Order]:
        """The orders in which an object stands, as far as they are known without asking."""
        subjects = self._listings.peek(SUBJECT, project)
        found = subjects if at.level is SUBJECT else self._listings.peek(at.level, project)
        if found is None or subjects is None:
            return []
        key = (at.level.name, project.address)
        with self._mu:
            made = self._orders.get(key)
        if made is None or made[0] is not found.rows or made[1] is not subjects.rows:
            orders = [_order(rows) for rows in _ways(found.rows, subjects.rows)]
            made = (found.rows, subjects.rows, orders)
            with self._mu:
                self._orders[key] = made
        return [order for order in made[2] if at.address in order.place]


def _order(objects: Sequence[Item]) -> _Order:
    return _Order(objects, {item.address: place for place, item in enumerate(objects)})


def _ways(rows: Sequence[Item], subjects: Sequence[Item]) -> list[Sequence[Item]]:
    """The objects of a project in the order of the listings and of the names, by subject."""
    if rows is subjects:
        return [rows, sorted(rows, key=lambda item: item.label)]
    column = EXPERIMENT.parent_column
    label = {item.id: item.label for item in subjects}
    place = {item.id: number for number, item in enumerate(subjects)}
    mine = [item for item in rows if item.cells.get(column, "") in place]
    return [
        sorted(mine, key=lambda item: place[item.cells[column]]),
        sorted(mine, key=lambda item: (label[item.cells[column]], item.label)),
    ]
