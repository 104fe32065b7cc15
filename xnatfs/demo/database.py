"""Rows of frozen dataclasses that survive a restart: in memory for reading, SQLite for keeping.

Every kind of object of the archive is one `Rows`. A change is on disk when the call returns.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    Row = TypeVar("Row", bound=DataclassInstance)
else:
    Row = TypeVar("Row")

_SCHEMA = """
CREATE TABLE IF NOT EXISTS rows
  (number INTEGER PRIMARY KEY, kind TEXT, key TEXT, value TEXT, UNIQUE (kind, key));
CREATE TABLE IF NOT EXISTS counters (name TEXT PRIMARY KEY, value INTEGER);
"""
_PUT = """
INSERT INTO rows (kind, key, value) VALUES (?, ?, ?)
  ON CONFLICT (kind, key) DO UPDATE SET value = excluded.value
"""
_COUNT = """
INSERT INTO counters (name, value) VALUES (?, 1)
  ON CONFLICT (name) DO UPDATE SET value = value + 1 RETURNING value
"""

_DROPPED = "null"  # instead of a row: a grown one that is not to grow again


class Database:
    """One SQLite file of rows and counters.

    Threading: `lock` (re-entrant) guards the connection and every `Rows` on it; callers that
    read, decide and write take it around all three.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.execute("PRAGMA journal_mode=WAL")
        self._connection.execute("PRAGMA synchronous=NORMAL")
        self._connection.executescript(_SCHEMA)

    def close(self) -> None:
        """Close the file; later changes fail."""
        with self.lock:
            self._connection.close()

    def next_number(self, name: str) -> int:
        """The next number of a counter, from 1 on, never handed out twice."""
        with self.lock:
            value: int = self._connection.execute(_COUNT, (name,)).fetchone()[0]
            return value

    @contextmanager
    def batch(self) -> Iterator[None]:
        """Keep all changes inside together, with one write to disk."""
        with self.lock:
            self._connection.execute("BEGIN")
            try:
                yield
            finally:
                self._connection.execute("COMMIT")

    def load(self, kind: str) -> list[tuple[str, str]]:
        """Key and JSON text of all rows of a kind, in the order of their making."""
        query = "SELECT key, value FROM rows WHERE kind = ? ORDER BY number"
        with self.lock:
            return self._connection.execute(query, (kind,)).fetchall()

    def put(self, kind: str, key: str, value: str) -> None:
        """Keep one row."""
        with self.lock:
            self._connection.execute(_PUT, (kind, key, value))

    def drop(self, kind: str, key: str) -> None:
        """Forget one row."""
        with self.lock:
            self._connection.execute("DELETE FROM rows WHERE kind = ? AND key = ?", (kind, key))


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


class Rows(Generic[Row]):
    """All rows of one kind by key, and by what they belong to.

    Some may be grown instead of kept: they follow from something else, and only what was changed
    or dropped of them is on disk.
    """

    def __init__(
        self,
        database: Database,
        row_type: type[Row],
        kind: str,
        key: Callable[[Row], str],
        belongs: Callable[[Row], Iterable[str]] = lambda _row: (),
    ) -> None:
        self.database = database
        self._kind = kind
        self._key = key
        self._belongs = belongs
        self._rows: dict[str, Row] = {}
        self._index: dict[str, dict[str, None]] = {}
        self._grown: set[str] = set()
        self._dropped: set[str] = set()
        self._asked: set[str] = set()
        self._source: Callable[[str], Iterable[Row]] | None = None
        self._owner_of: Callable[[str], str] = str
        for name, text in database.load(kind):
            if text == _DROPPED:
                self._dropped.add(name)
            else:
                self._remember(row_type(**{k: _frozen(v) for k, v in json.loads(text).items()}))

    def grow(self, rows: Iterable[Row]) -> None:
        """Know rows that are not kept, as far as they were not changed or dropped since."""
        with self.database.lock:
            for row in rows:
                key = self._key(row)
                self._grown.add(key)
                if key not in self._rows and key not in self._dropped:
                    self._remember(row)

    def grow_later(
        self, source: Callable[[str], Iterable[Row]], owner_of: Callable[[str], str]
    ) -> None:
        """Let rows grow when somebody asks: `source` makes those of an owner."""
        self._source, self._owner_of = source, owner_of

    def _ask(self, owner: str) -> None:
        if self._source is not None and owner not in self._asked:
            self._asked.add(owner)
            self.grow(self._source(owner))

    def get(self, key: str) -> Row | None:
        """The row of a key."""
        with self.database.lock:
            if key not in self._rows:
                self._ask(self._owner_of(key))
            return self._rows.get(key)

    def all(self) -> list[Row]:
        """Every row that is known by now, oldest first."""
        with self.database.lock:
            return list(self._rows.values())

    def of(self, owner: str) -> list[Row]:
        """The rows that belong to an owner, oldest first."""
        with self.database.lock:
            self._ask(owner)
            return [self._rows[key] for key in self._index.get(owner, ())]

    def put(self, row: Row) -> Row:
        """Add or replace a row; returns it."""
        with self.database.lock:
            self._remember(row)
            fields = {f.name: getattr(row, f.name) for f in dataclasses.fields(row)}
            self.database.put(self._kind, self._key(row), json.dumps(fields))
            return row

    def drop(self, key: str) -> None:
        """Remove a row, if it is there."""
        with self.database.lock:
            row = self._rows.pop(key, None)
            if row is None:
                return
            for owner in self._belongs(row):
                self._index[owner].pop(key, None)
            if key in self._grown:
                self._dropped.add(key)
                self.database.put(self._kind, key, _DROPPED)
            else:
                self.database.drop(self._kind, key)

    def _remember(self, row: Row) -> None:
        key, owners = self._key(row), set(self._belongs(row))
        former = self._rows.get(key)
        for owner in set(self._belongs(former) if former else ()) - owners:
            self._index[owner].pop(key, None)
        for owner in owners:  # a replaced row keeps its place in the order
            self._index.setdefault(owner, {}).setdefault(key)
        self._rows[key] = row
