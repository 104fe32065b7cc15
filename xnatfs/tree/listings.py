"""The server's listings, cached: asked once, shared by all who wait, corrected by our own changes.

Those who wait are threads of this process, and by the records on disk (``Shelf``) the processes
of one account. ``namespace`` builds names from them. Nothing here knows file names or FUSE.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from xnatfs.config import Limits
from xnatfs.errors import BadReply
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.levels import BY_COLLECTION, PROJECT, RESOURCE, Level
from xnatfs.rest.archive import Archive
from xnatfs.tree.catalog import file_count
from xnatfs.tree.held import Cached, FileListing, Held, Listing, Row, weight
from xnatfs.tree.sharing import Key, Sharing, Told
from xnatfs.tree.sheets import FILES, RIGHTS, SESSION
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)

# A session with at most this many files is listed whole in one request (R§1.3). The server reads
# every catalog of the session for it, so beyond that each resource is asked on its own.
WHOLE_SESSION_FILES = 20_000

# From this many rows on a listing that is in use is asked for again before its time is over, so
# that a walk over its entries does not stand still for it again and again.
LARGE = 10_000


# On what a right may be; each is a listing (R§10.7).
_RIGHTS_ON = ("projects", "sessions")


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request on its way, and when it was made."""

    future: Future[Any]
    since: float


class Listings:
    """Cached listings of one archive.

    Args:
        archive: whom to ask.
        workers: the threads that ask.
        limits: ages and patience.
        sharing: with the other processes of the account.

    Threading: ``_mu`` guards ``_asking``, and is taken before that of ``Held``; nothing is asked
    and no disk is touched under it.
    """

    def __init__(
        self, archive: Archive, workers: Workers, limits: Limits, sharing: Sharing
    ) -> None:
        self._archive = archive
        self._workers = workers
        self._limits = limits
        self._sharing = sharing
        self._ttl = math.inf if sharing.offline else limits.listing_ttl_s
        self._held = Held(self._ttl, 2 * limits.io_timeout_s)
        self._mu = threading.Lock()
        self._asking: dict[Key, _Asking] = {}
        # Of large listings: when the one was asked for that is being renewed, or was in vain.
        self._renewing: dict[Key, float] = {}

    @property
    def changes(self) -> int:
        """Grows with every listing that comes or is forgotten."""
        return self._held.changes

    # -- what can be asked

    def items(
        self, level: Level, at: Item | None, waiter: Waiter, not_before: float = 0.0
    ) -> Listing[Item]:
        """All objects of ``level`` in the listing of ``at`` (the row's ``listed_at`` object).

        Args:
            level: the row of the levels table.
            at: the object asked; None for the archive.
            waiter: the limits of the caller's wait.
            not_before: time.monotonic() at which the listing may have been asked at the earliest.
        """
        return self._rows(
            Key(level.name, at.address if at else ""),
            lambda worker: self._archive.items(level, at, worker),
            waiter,
            not_before,
            f"the {level.collection} of {at.label or at.id if at else 'the archive'}",
        )

    def experiments(self, waiter: Waiter, not_before: float = 0.0) -> Listing[Item]:
        """Every session that the user may see, in all projects."""
        return self._rows(
            Key("experiments", ""), self._archive.experiments, waiter, not_before, "all experiments"
        )

    def resources(self, at: Item, waiter: Waiter, not_before: float = 0.0) -> Listing[Item]:
        """The resources of ``at``; of a session with all that lies below it."""
        return self._rows(
            Key("resources", at.address),
            lambda worker: self._archive.resources(at, worker),
            waiter,
            not_before,
            f"the resources of {at.label or at.id}",
        )

    def inputs(self, session: Item, owner: Item, waiter: Waiter) -> Listing[Item]:
        """The ``in`` resources of an assessor or reconstruction of a session."""
        return self._rows(
            Key("inputs", owner.address),
            lambda worker: self._archive.input_resources(session, owner.level, [owner.id], worker),
            waiter,
            0.0,
            f"the inputs of {owner.label or owner.id}",
        )

    def files(
        self,
        resource: Item,
        session: Item | None,
        waiter: Waiter,
        not_before: float = 0.0,
    ) -> FileListing:
        """The files of a resource.

        Args:
            resource: whose files.
            session: the session that it lies in, if any; its resources are then listed together
                as long as they are few.
            waiter: the limits of the caller's wait.
            not_before: as with ``items``.
        """
        key = Key(FILES, resource.address)
        ask = partial(self._archive.files, resource)
        what = f"the files of {resource.label or resource.id}"
        known = self._held.get(key)
        if isinstance(known, FileListing) and known.asked >= not_before:
            self._renew(key, known, ask, what)
            return known
        # Offline a resource's own listing may know more than the session's.
        alone = self._sharing.offline and self._sharing.has(key)
        if not not_before and session is not None and not alone:
            resources = self.resources(session, waiter).rows
            if file_count(resources) <= WHOLE_SESSION_FILES and resource in resources:
                all_ = f"the files of {session.label or session.id}"
                ask_all = partial(self._whole_session, session)
                try:
                    self._get(Key(SESSION, session.address), ask_all, waiter, 0.0, all_)
                except BadReply as error:
                    log.info("%s cannot be listed at once: %s", all_, error)
        return cast("FileListing", self._get(key, ask, waiter, not_before, what))

    def rights(self, right: str, waiter: Waiter) -> tuple[tuple[str, ...], ...]:
        """Ids of the projects where the user has ``right`` ("edit" or "delete"): a hint.

        The same tuples as long as they are the same listings.
        """
        asked = [self._begin_rights(right, on) for on in _RIGHTS_ON]
        return tuple(self._wait(one, waiter, "the rights").rows for one in asked)

    def _begin_rights(self, right: str, on: str) -> Listing[str] | _Asking:
        ask = partial(self._archive.projects_where, right, on)
        begun = self._begin(Key(f"{RIGHTS}{right}-{on}", ""), ask, 0.0, "the rights")
        return cast("Listing[str] | _Asking", begun)

    def warm_up(self) -> None:
        """Ask for what the first look at anything needs, without waiting."""
        self._begin(
            Key(PROJECT.name, ""), partial(self._archive.items, PROJECT, None), 0.0, "projects"
        )
        for on in _RIGHTS_ON:
            self._begin_rights("edit", on)

    def foresee(self, item: Item) -> None:
        """Ask for what is asked next when a path leads through ``item``, without waiting."""
        for collection in item.level.walked:
            level = BY_COLLECTION[collection]
            key, ask = Key(level.name, item.address), partial(self._archive.items, level, item)
            if level is RESOURCE:
                key, ask = Key("resources", item.address), partial(self._archive.resources, item)
            self._begin(key, ask, 0.0, f"the {collection} of {item.label or item.id}")

    def foresee_files(self, session: Item) -> None:
        """Ask for the files of a session, of which nobody knows yet how many there are."""
        ask = partial(self._whole_session, session)
        self._begin(Key(SESSION, session.address), ask, 0.0, f"the files of {session.label}")

    def holds(self, level: Level, at: Item | None) -> bool:
        """Whether the objects of ``level`` are known without asking."""
        return self._holds(Key(level.name, at.address if at else ""))

    # -- our own changes, and what else is known

    def put_files(self, resource: Item, rows: Sequence[RemoteFile], asked: float) -> None:
        """A fresh listing of a resource, asked for because we changed something there."""
        self._held.take(Key(FILES, resource.address), Told(rows, asked))
        self._sharing.void(resource.address)

    def own_file(self, resource: Item, path: str, row: RemoteFile | None) -> None:
        """Remember our own change at once: ``row`` stands there now, or nothing (None).

        A listing that was asked for before the change is corrected when it arrives, and what
        other processes find on disk is outdated.
        """
        self._held.own_file(resource.address, path, row)
        self._sharing.void(resource.address)

    def latest(self, resource: Item, row: RemoteFile) -> RemoteFile:
        """A row as it is known by now: since it was looked up our own change may have come."""
        held = self._held.get(Key(FILES, resource.address))
        known = held.catalog.get(row.path) if isinstance(held, FileListing) else None
        return known or row

    def learned(self, resource: Item, row: RemoteFile) -> None:
        """The server was asked about one file: what the listing did not tell of it."""
        self._held.learned(resource.address, row)

    def keep(self, resource: Item, waiter: Waiter) -> None:
        """Write down what is known of a resource's files, with what was learned of each."""
        listing = self.files(resource, None, waiter)
        rows = self._held.completed(resource.address, listing.catalog.rows())
        self._sharing.keep(Key(FILES, resource.address), Told(rows, listing.asked))

    def forget(self, item: Item | None) -> None:
        """Forget what lies at or below ``item`` (None: everything)."""
        address = item.address if item is not None else ""
        self._held.forget(address)
        self._sharing.void(address)

    # -- the mechanism

    def _whole_session(self, session: Item, worker: Waiter) -> dict[str, list[RemoteFile]]:
        """The files of all resources of a session, by the resources' addresses."""
        rows = self._archive.session_files(session, worker)
        addresses = {item.id: item.address for item in self.resources(session, worker).rows}
        found: dict[str, list[RemoteFile]] = {address: [] for address in addresses.values()}
        for row in rows:
            if row.resource_id in addresses:
                found[addresses[row.resource_id]].append(row)
        return found

    def _rows(
        self,
        key: Key,
        ask: Callable[[Waiter], Sequence[Row]],
        waiter: Waiter,
        not_before: float,
        what: str,
    ) -> Listing[Row]:
        return cast("Listing[Row]", self._get(key, ask, waiter, not_before, what))

    def _get(
        self,
        key: Key,
        ask: Callable[[Waiter], Any],
        waiter: Waiter,
        not_before: float,
        what: str,
    ) -> Cached:
        return cast("Cached", self._wait(self._begin(key, ask, not_before, what), waiter, what))

    @staticmethod
    def _wait(begun: Cached | _Asking, waiter: Waiter, what: str) -> Any:
        return waiter.result(begun.future, what) if isinstance(begun, _Asking) else begun

    def _begin(
        self, key: Key, ask: Callable[[Waiter], Any], not_before: float, what: str
    ) -> Cached | _Asking:
        """What is cached, or the request for it, which is made unless it is on its way."""
        if self._sharing.offline:
            not_before = 0.0
        with self._mu:
            cached = self._held.get(key)
            if cached is not None and cached.asked >= not_before:
                return cached
            asking = self._asking.get(key)
            if asking is None or asking.since < not_before:
                since = time.monotonic()
                future = self._workers.submit(self._ask, key, ask, since, not_before, what)
                self._asking[key] = asking = _Asking(future, since)
            return asking

    def _renew(self, key: Key, known: Cached, ask: Callable[[Waiter], Any], what: str) -> None:
        """Ask for a large listing again, once, when most of its time is over."""
        if weight(known) < LARGE:
            return
        young = time.monotonic() - self._ttl / 3
        if young - known.asked > self._ttl / 3 and self._renewing.get(key) != known.asked:
            self._renewing[key] = known.asked
            self._begin(key, ask, young, what)

    def _holds(self, key: Key) -> bool:
        return self._held.get(key) is not None

    def _ask(
        self,
        key: Key,
        ask: Callable[[Waiter], Any],
        since: float,
        not_before: float,
        what: str,
    ) -> Cached:
        try:
            # Whoever waits has a budget of their own; the request goes on as long as it moves,
            # so that a second try finds the listing.
            patient = Waiter(idle_s=self._limits.io_timeout_s)
            oldest = max(not_before, since - self._ttl)
            told = self._sharing.fetch(key, ask, oldest, what, patient)
            return self._held.take(key, told)
        finally:
            with self._mu:
                # A younger request may have taken the place, and may even be over.
                asking = self._asking.get(key)
                if asking is not None and asking.since == since:
                    del self._asking[key]
