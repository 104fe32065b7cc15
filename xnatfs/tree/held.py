"""The listings that a process holds: for their time, within a bound, corrected by our own changes.

``listings`` asks for what is not here. Nothing here asks anybody or touches a disk.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from cachetools import LRUCache

from xnatfs.model.entities import RemoteFile
from xnatfs.tree.catalog import Catalog
from xnatfs.tree.sharing import Key, Told
from xnatfs.tree.sheets import FILES, SESSION

Row = TypeVar("Row")

# Rows that all cached listings may hold together; a row costs about 0.6 KB.
MOST_ROWS = 400_000

# Resources of which is remembered what no listing tells.
MOST_LEARNED = 4096


@dataclass(frozen=True, slots=True)
class Listing(Generic[Row]):
    """One listing as it was received."""

    rows: tuple[Row, ...]
    # time.monotonic() just before it was asked for.
    asked: float


@dataclass(frozen=True, slots=True)
class FileListing:
    """The files of one resource, kept up to date with our own changes."""

    catalog: Catalog
    asked: float


Cached = Listing[Any] | FileListing


@dataclass(frozen=True, slots=True)
class _Own:
    """A change of our own to a listing of files: the row, or None for a removed one."""

    at: float
    row: RemoteFile | None


def weight(listing: Cached) -> int:
    """What a listing takes: its rows, and one for itself."""
    rows = listing.catalog if isinstance(listing, FileListing) else listing.rows
    return len(rows) + 1


class Held:
    """Listings in memory.

    Args:
        ttl_s: how long each is believed, from when it was asked for. Seconds; may be infinite.
        own_s: for how long our own changes are remembered for listings on their way. Seconds.

    Threading: ``_mu`` guards everything but ``changes``, which is read without it; so is
    ``_cache`` for one listing.
    """

    def __init__(self, ttl_s: float, own_s: float) -> None:
        self._ttl_s = ttl_s
        self._own_s = own_s
        self._mu = threading.Lock()
        # In the order in which they came, with what each weighed then.
        self._cache: dict[Key, tuple[Cached, int]] = {}
        self._weight = 0
        self._own: dict[str, dict[str, _Own]] = {}
        # What no listing tells, by resource and path.
        self._learned: LRUCache[str, dict[str, RemoteFile]] = LRUCache(MOST_LEARNED)
        # Grows with every listing that comes or is forgotten.
        self.changes = 0

    def get(self, key: Key) -> Cached | None:
        """What is here and young enough: a change of our own makes no listing younger."""
        listing = self._known(key)
        if listing is None or time.monotonic() - listing.asked >= self._ttl_s:
            return None
        return listing

    def _known(self, key: Key) -> Cached | None:
        held = self._cache.get(key)
        return held[0] if held is not None else None

    def take(self, key: Key, told: Told) -> Cached:
        """Hold what was told, and all that a session's listing tells of its resources.

        Returns: what is held now: a younger listing may have been faster.
        """
        if key.kind == FILES:
            return self._store(key, FileListing(self._catalog(key, told.rows), told.asked))
        if key.kind != SESSION:
            return self._store(key, Listing(tuple(told.rows), told.asked))
        for address, rows in told.rows.items():
            of_resource = Key(FILES, address)
            files = FileListing(self._catalog(of_resource, rows), told.asked)
            self._store(of_resource, files)
        return self._store(key, Listing((), told.asked))

    def _catalog(self, key: Key, rows: Sequence[RemoteFile]) -> Catalog:
        """The catalog of these rows: the one that is here if it has just these.

        What we change in it meanwhile is a change later than the listing, which ``_store`` makes
        again.
        """
        known = self._known(key)
        if isinstance(known, FileListing) and known.catalog.shows(rows):
            return known.catalog
        return Catalog(rows)

    def _store(self, key: Key, listing: Cached) -> Cached:
        with self._mu:
            newer = self._known(key)
            if newer is not None and newer.asked > listing.asked:
                return newer
            self._correct(key, listing)
            self._put(key, listing)
            self.changes += 1
            return listing

    def _correct(self, key: Key, listing: Cached) -> None:
        if isinstance(listing, FileListing):
            for path, change in self._own.get(key.address, {}).items():
                if change.at >= listing.asked:
                    listing.catalog.change(path, change.row)

    def _put(self, key: Key, listing: Cached) -> None:
        """Hold a listing, and within the bound what is not too old to be compared with."""
        self._pop(key)
        self._cache[key] = (listing, weight(listing))
        self._weight += weight(listing)
        too_old = time.monotonic() - 2 * self._ttl_s
        while (oldest := next(iter(self._cache))) != key and (
            self._weight > MOST_ROWS or self._cache[oldest][0].asked < too_old
        ):
            self._pop(oldest)

    def _pop(self, key: Key) -> None:
        held = self._cache.pop(key, None)
        if held is not None:
            self._weight -= held[1]

    def own_file(self, address: str, path: str, row: RemoteFile | None) -> None:
        """Our own change to the resource at an address: also of listings asked for before it."""
        now = time.monotonic()
        with self._mu:
            oldest = now - self._own_s
            own = self._own.setdefault(address, {})
            own.pop(path, None)
            own[path] = _Own(now, row)
            # In the order of the changes: the oldest stand in front.
            while (first := next(iter(own))) != path and own[first].at < oldest:
                del own[first]
            listing = self._known(Key(FILES, address))
            if isinstance(listing, FileListing):
                listing.catalog.change(path, row)

    def learned(self, address: str, row: RemoteFile) -> None:
        """What the listing of the resource at an address did not tell of a file."""
        with self._mu:
            self._learned.setdefault(address, {})[row.path] = row
            listing = self._known(Key(FILES, address))
            if isinstance(listing, FileListing) and listing.catalog.get(row.path) is not None:
                listing.catalog.change(row.path, row)

    def completed(self, address: str, rows: Sequence[RemoteFile]) -> list[RemoteFile]:
        """Rows with what was learned of those files, where they are still the same."""
        with self._mu:
            learned = dict(self._learned.get(address, {}))
        return [_completed(row, learned.get(row.path)) for row in rows]

    def forget(self, address: str) -> None:
        """Forget what lies at or below an address; "": everything."""
        with self._mu:
            self.changes += 1
            for key in list(self._cache):
                if key.address == address or key.address.startswith(address + "/"):
                    self._pop(key)


def _completed(row: RemoteFile, learned: RemoteFile | None) -> RemoteFile:
    if learned is None or row.digest != learned.digest or row.size not in (None, learned.size):
        return row
    return learned
