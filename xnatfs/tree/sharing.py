"""Listings shared with the other processes of the account, by records on disk.

One process asks the server, the others find what it was told, as long as that is young enough;
offline, however old it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

from xnatfs.cache.claims import Claims
from xnatfs.cache.shelf import Record, Shelf
from xnatfs.errors import Offline
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.tree import sheets
from xnatfs.tree.sheets import FILES, SESSION
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)


class Key(NamedTuple):
    """Which listing: what is listed, and the address of the object that is asked."""

    # A level's name, or one of the other kinds; safe as a file name.
    kind: str
    address: str

    def __str__(self) -> str:
        return f"{self.kind} of {self.address or '/'}"


@dataclass(frozen=True, slots=True)
class Told:
    """What a listing told, and when (time.monotonic() just before it was asked for).

    Rows of one kind (objects, files, texts), or for SESSION files by their resource's address.
    """

    rows: Any
    asked: float


class Sharing:
    """The records of listings of one server and account.

    Args:
        shelf: where they lie.
        claims: who of the processes asks.
        gone: told of each file that the server does not show any more.
        offline: never ask; serve what is there.

    Threading: holds no state.
    """

    def __init__(
        self, shelf: Shelf, claims: Claims, gone: Callable[[RemoteFile], None], *, offline: bool
    ) -> None:
        self._shelf = shelf
        self._claims = claims
        self._gone = gone
        self.offline = offline

    def fetch(
        self,
        key: Key,
        ask: Callable[[Waiter], Any],
        oldest: float,
        what: str,
        waiter: Waiter,
    ) -> Told:
        """What another process was told lately, else what the server says now. On a worker.

        Args:
            key: which listing.
            ask: asks the server.
            oldest: time.monotonic() before which a listing is too old.
            what: the listing, for people.
            waiter: the limits of the wait.

        Raises: Offline; what ``ask`` and the waiter raise.
        """
        if self.offline:
            told = self._load(key)
            if told is None:
                raise Offline(
                    f"{what}: not listed before, and no network is used (--offline); "
                    "`xnatfs prefetch` lists it where there is one"
                )
            return told
        found: Told | None = None

        def arrived() -> bool:
            nonlocal found
            found = self.told_lately(key, oldest)
            return found is not None

        claim = self._claims.obtain(str(key), arrived, waiter.progress, waiter)
        if claim is None:
            assert found is not None
            return found
        with claim:
            asked = time.monotonic()
            told = Told(ask(waiter), asked)
            self.keep(key, told)
        return told

    def told_lately(self, key: Key, oldest: float) -> Told | None:
        """What another process was told and what is not too old; ``oldest`` as with ``fetch``."""
        return self._load(key, oldest)

    def has(self, key: Key) -> bool:
        """Whether there is a record, however old."""
        return self._shelf.read(key.kind, key.address) is not None

    def keep(self, key: Key, told: Told) -> None:
        """Write down what a listing told, and drop what it does not show any more."""
        body = sheets.of(key.kind).encode(told.rows)
        before = self._shelf.read(key.kind, key.address)
        asked = time.time() - (time.monotonic() - told.asked)
        self._shelf.write(Record(key.kind, key.address, asked, body))
        if before is not None and before.body != body:
            self._drop(_rows_of(before), _flat(key.kind, told.rows))

    def void(self, address: str) -> None:
        """What was told until now about an object and what is below it is outdated."""
        if not self.offline:
            self._shelf.void(address)

    def _load(self, key: Key, oldest: float | None = None) -> Told | None:
        """A record; with ``oldest`` only one that is young enough and not outdated."""
        record = self._shelf.read(key.kind, key.address)
        if record is None:
            return None
        age = time.time() - record.asked
        asked = time.monotonic() - age
        if oldest is not None and (
            # A clock that was set back, or another machine's that is ahead.
            age < 0 or asked < oldest or self._shelf.is_void(key.address, record.asked)
        ):
            return None
        try:
            rows = sheets.of(key.kind).decode(record.body)
        except sheets.UNREADABLE as error:
            log.info("the record of the %s cannot be read: %s", key, error)
            return None
        if key.kind == SESSION:
            rows = {
                address: files
                for address, files in rows.items()
                if not self._is_better_known(address, record.asked)
            }
        return Told(rows, asked)

    def _is_better_known(self, resource: str, asked: float) -> bool:
        """Whether a session's listing is not to be believed about one of its resources."""
        if self.offline:
            # Its own listing may tell what was asked about single files.
            return self.has(Key(FILES, resource))
        return self._shelf.is_void(resource, asked)

    # -- what is not there any more

    def _drop(self, old: list[Any], new: list[Any]) -> None:
        """Forget what is only in an older listing: the user may see it no more."""
        files = {_identity(row) for row in new if isinstance(row, RemoteFile)}
        objects = {row.address for row in new if isinstance(row, Item)}
        for row in old:
            if isinstance(row, RemoteFile) and _identity(row) not in files:
                self._gone(row)
            elif isinstance(row, Item) and row.address not in objects:
                self._drop_object(row.address)

    def _drop_object(self, address: str) -> None:
        for record in list(self._shelf.below(address)):
            for row in _rows_of(record):
                if isinstance(row, RemoteFile):
                    self._gone(row)
                elif isinstance(row, Item) and not row.address.startswith(address + "/"):
                    # A project's sessions have addresses of their own.
                    self._drop_object(row.address)
        self._shelf.remove(address)


def _identity(row: RemoteFile) -> tuple[object, ...]:
    return (row.digest, row.size) if row.digest else (row.resource_id, row.path, row.size)


def _rows_of(record: Record) -> list[Any]:
    """Files and objects of a record; none when it cannot be read."""
    try:
        return _flat(record.kind, sheets.of(record.kind).decode(record.body))
    except sheets.UNREADABLE:
        return []


def _flat(kind: str, rows: Any) -> list[Any]:
    return [row for files in rows.values() for row in files] if kind == SESSION else list(rows)
