"""The server's listings, cached: asked once, shared by all who wait, corrected by our own changes.

``namespace`` builds names from them. Nothing here knows file names or FUSE.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from functools import partial
from typing import Generic, TypeVar, cast

from cachetools import TTLCache

from xnatfs.config import Limits
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.levels import BY_COLLECTION, RESOURCE, Level
from xnatfs.rest.archive import Archive
from xnatfs.waiting import Waiter, Workers

Row = TypeVar("Row")

# Rows that all cached listings may hold together; a row costs about 0.6 KB.
MOST_ROWS = 400_000

# A session with at most this many files is listed whole in one request (R§1.3). The server reads
# every catalog of the session for it, so beyond that each resource is asked on its own.
WHOLE_SESSION_FILES = 20_000


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """One listing as it was received."""

    rows: tuple[Row, ...]
    # time.monotonic() just before it was asked for.
    asked: float


@dataclass(frozen=True, slots=True)
class _Own:
    """A change of our own to a listing of files: the row, or None for a removed one."""

    at: float
    row: RemoteFile | None


@dataclass(frozen=True, slots=True)
class _Asking:
    """A request on its way, and when it was made."""

    future: Future[Listing[object]]
    since: float


class Listings:
    """Cached listings of one archive.

    Threading: ``_mu`` guards ``_cache``, ``_asking`` and ``_own``; no request is made under it.
    """

    def __init__(self, archive: Archive, workers: Workers, limits: Limits) -> None:
        self._archive = archive
        self._workers = workers
        self._limits = limits
        self._mu = threading.Lock()
        self._cache: TTLCache[Hashable, Listing[object]] = TTLCache(
            MOST_ROWS,
            max(limits.metadata_ttl_s / 2, 0.001),
            timer=time.monotonic,
            getsizeof=lambda listing: min(len(listing.rows) + 1, MOST_ROWS),
        )
        self._asking: dict[Hashable, _Asking] = {}
        self._own: dict[str, dict[str, _Own]] = {}
        # Grows with every listing that comes and every change; read without the lock.
        self.changes = 0

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
        return self._get(
            (level.name, at.address if at else ""),
            lambda worker: self._archive.items(level, at, worker),
            waiter,
            not_before,
            f"the {level.collection} of {at.label or at.id if at else 'the archive'}",
        )

    def experiments(self, waiter: Waiter, not_before: float = 0.0) -> Listing[Item]:
        """Every session that the user may see, in all projects."""
        return self._get(
            "experiments", self._archive.experiments, waiter, not_before, "all experiments"
        )

    def resources(self, at: Item, waiter: Waiter, not_before: float = 0.0) -> Listing[Item]:
        """The resources of ``at``; of a session with all that lies below it."""
        return self._get(
            ("resources", at.address),
            lambda worker: self._archive.resources(at, worker),
            waiter,
            not_before,
            f"the resources of {at.label or at.id}",
        )

    def inputs(
        self, session: Item, level: Level, ids: Sequence[str], waiter: Waiter
    ) -> Listing[Item]:
        """The ``in`` resources of a session's assessors or reconstructions."""
        return self._get(
            ("inputs", session.address, level.name),
            lambda worker: self._archive.input_resources(session, level, ids, worker),
            waiter,
            0.0,
            f"the inputs of the {level.collection} of {session.label or session.id}",
        )

    def files(
        self,
        resource: Item,
        session: Item | None,
        waiter: Waiter,
        not_before: float = 0.0,
    ) -> Listing[RemoteFile]:
        """The files of a resource.

        Args:
            resource: whose files.
            session: the session that it lies in, if any; its resources are then listed together
                as long as they are few.
            waiter: the limits of the caller's wait.
            not_before: as with ``items``.
        """
        key = ("files", resource.address)
        what = f"the files of {resource.label or resource.id}"
        if not not_before and session is not None and not self._holds(key):
            resources = self.resources(session, waiter).rows
            counts = (item.cells.get("file_count", "") for item in resources)
            total = sum(int(count) for count in counts if count.isdigit())
            if total <= WHOLE_SESSION_FILES and resource in resources:
                whole = ("session files", session.address)
                self._get(
                    whole,
                    lambda worker: self._whole_session(session, resources, worker),
                    waiter,
                    time.monotonic() - self._limits.negative_ttl_s,
                    f"the files of {session.label or session.id}",
                )
        return self._get(
            key, lambda worker: self._archive.files(resource, worker), waiter, not_before, what
        )

    def rights(self, right: str, waiter: Waiter) -> Listing[str]:
        """Ids of the projects where the user has ``right`` ("edit" or "delete"): a hint."""
        return self._get(
            ("rights", right), partial(self._projects_where, right), waiter, 0.0, "the rights"
        )

    def foresee_rights(self, right: str) -> None:
        """Ask for ``rights``, which the attributes of everything need."""
        self._begin(("rights", right), partial(self._projects_where, right))

    def _projects_where(self, right: str, worker: Waiter) -> list[str]:
        return sorted(self._archive.projects_where(right, worker))

    def foresee(self, item: Item) -> None:
        """A path is walked through ``item``: ask at once for what will be asked next."""
        for collection in item.level.walked:
            level = BY_COLLECTION[collection]
            if level is RESOURCE:
                self._begin(("resources", item.address), partial(self._archive.resources, item))
            else:
                self._begin((level.name, item.address), partial(self._archive.items, level, item))

    def holds(self, level: Level, at: Item | None) -> bool:
        """Whether the objects of ``level`` are known without asking."""
        return self._holds((level.name, at.address if at else ""))

    # -- our own changes

    def put_files(self, resource: Item, rows: Sequence[RemoteFile], asked: float) -> None:
        """A fresh listing of a resource that came along another way (a verification)."""
        with self._mu:
            self._store(("files", resource.address), Listing(tuple(rows), asked))

    def own_file(self, resource: Item, path: str, row: RemoteFile | None) -> None:
        """Remember our own change at once: ``row`` stands there now, or nothing (None).

        A listing that was asked for before the change is corrected when it arrives.
        """
        key = ("files", resource.address)
        now = time.monotonic()
        with self._mu:
            oldest = now - 2 * self._limits.io_timeout_s
            own = self._own.setdefault(resource.address, {})
            for path_, change in list(own.items()):
                if change.at < oldest:
                    del own[path_]
            own[path] = _Own(now, row)
            self.changes += 1
            listing = cast("Listing[RemoteFile] | None", self._cache.get(key))
            if listing is not None:
                rows = _corrected(listing.rows, {path: own[path]})
                self._cache[key] = Listing(rows, listing.asked)

    def forget(self, item: Item | None) -> None:
        """Forget what lies at or below ``item`` (None: everything)."""
        with self._mu:
            self.changes += 1
            for key in list(self._cache):
                address = key[1] if isinstance(key, tuple) else ""
                if item is None or address == item.address or _below(address, item.address):
                    self._cache.pop(key, None)

    # -- the mechanism

    def _whole_session(
        self, session: Item, resources: Sequence[Item], worker: Waiter
    ) -> list[RemoteFile]:
        asked = time.monotonic()
        by_resource: dict[str, list[RemoteFile]] = {item.id: [] for item in resources}
        for row in self._archive.session_files(session, worker):
            by_resource.setdefault(row.resource_id, []).append(row)
        with self._mu:
            for item in resources:
                self._store(("files", item.address), Listing(tuple(by_resource[item.id]), asked))
        return []

    def _get(
        self,
        key: Hashable,
        ask: Callable[[Waiter], Sequence[Row]],
        waiter: Waiter,
        not_before: float,
        what: str,
    ) -> Listing[Row]:
        found = self._begin(key, ask, not_before)
        if isinstance(found, _Asking):
            return cast("Listing[Row]", waiter.result(found.future, what))
        return cast("Listing[Row]", found)

    def _begin(
        self,
        key: Hashable,
        ask: Callable[[Waiter], Sequence[object]],
        not_before: float = 0.0,
    ) -> Listing[object] | _Asking:
        """What is cached, or the request for it, which is made unless it is on its way."""
        with self._mu:
            cached = self._cached(key)
            if cached is not None and cached.asked >= not_before:
                return cached
            asking = self._asking.get(key)
            if asking is None or asking.since < not_before:
                since = time.monotonic()
                future = self._workers.submit(self._ask, key, ask, since)
                self._asking[key] = asking = _Asking(future, since)
            return asking

    def _holds(self, key: Hashable) -> bool:
        with self._mu:
            return self._cached(key) is not None

    def _cached(self, key: Hashable) -> Listing[object] | None:
        """What is cached and young enough: a change of our own makes no listing younger."""
        listing = self._cache.get(key)
        if listing is None or time.monotonic() - listing.asked >= self._cache.ttl:
            return None
        return listing

    def _ask(
        self, key: Hashable, ask: Callable[[Waiter], Sequence[object]], since: float
    ) -> Listing[object]:
        try:
            # Whoever waits has a budget of their own; the request goes on as long as it moves,
            # so that a second try finds the listing.
            rows = ask(Waiter(idle_s=self._limits.io_timeout_s))
            with self._mu:
                return self._store(key, Listing(tuple(rows), since))
        finally:
            with self._mu:
                # A younger request may have taken the place, and may even be over.
                asking = self._asking.get(key)
                if asking is not None and asking.since == since:
                    del self._asking[key]

    def _store(self, key: Hashable, listing: Listing[object]) -> Listing[object]:
        newer = self._cache.get(key)
        if newer is not None and newer.asked > listing.asked:
            return newer
        if isinstance(key, tuple) and key[0] == "files":
            own = {
                path: change
                for path, change in self._own.get(key[1], {}).items()
                if change.at >= listing.asked
            }
            if own:
                rows = _corrected(cast("tuple[RemoteFile, ...]", listing.rows), own)
                listing = Listing(rows, listing.asked)
        self._cache[key] = listing
        self.changes += 1
        return listing


def _below(address: str, above: str) -> bool:
    return address.startswith(above + "/")


def _corrected(rows: tuple[RemoteFile, ...], own: dict[str, _Own]) -> tuple[RemoteFile, ...]:
    kept = [own[row.path].row if row.path in own else row for row in rows]
    seen = {row.path for row in rows}
    added = [change.row for path, change in own.items() if path not in seen]
    return tuple(row for row in (*kept, *added) if row is not None)
