"""Frozen dataclasses that outlive a restart: in memory for reading, a journal for keeping."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar, Generic, Protocol, TypeVar


class _Dataclass(Protocol):
    __dataclass_fields__: ClassVar[dict[str, Any]]


Row = TypeVar("Row", bound=_Dataclass)


class Journal:
    """A file with a line of JSON for each change; the last one about a key counts.

    A change is in the file when the call returns. A line that was cut off is forgotten at the
    next opening, which writes the file anew.

    Threading: `lock` (re-entrant) guards the file, the numbers and every `Rows` on it; whoever
    reads, decides and writes takes it around all three.
    """

    def __init__(self, path: Path) -> None:
        self.lock = threading.RLock()
        self._kept: dict[str, dict[str, Any]] = {}
        for line in path.read_bytes().splitlines(keepends=True) if path.exists() else ():
            if line.endswith(b"\n"):
                kind, key, value = json.loads(line)
                self._kept.setdefault(kind, {})[key] = value
        self._numbers = self._kept.setdefault("number", {})
        fresh = path.with_suffix(".new")
        self._file = fresh.open("wb", buffering=0)
        whole = [(kind, it, rows[it]) for kind, rows in self._kept.items() for it in rows]
        self._file.write(b"".join(_line(*it) for it in whole))
        fresh.replace(path)

    def close(self) -> None:
        """Close the file; later changes fail."""
        with self.lock:
            self._file.close()

    def kept(self, kind: str) -> dict[str, Any]:
        """The rows of a kind by key, as they were at the opening; None for dropped ones."""
        return self._kept.get(kind, {})

    def put(self, kind: str, key: str, value: Any) -> None:
        """Keep a row, or with None that there is none."""
        with self.lock:
            self._file.write(_line(kind, key, value))

    def next_number(self, name: str) -> int:
        """The next number of a counter, from 1 on, never handed out twice."""
        with self.lock:
            number: int = self._numbers.get(name, 0) + 1
            self._numbers[name] = number
            self.put("number", name, number)
            return number


def _line(kind: str, key: str, value: Any) -> bytes:
    return json.dumps([kind, key, value]).encode() + b"\n"


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list) else value


class Rows(Generic[Row]):
    """All rows of one kind by key, and by what they belong to.

    Some may be grown instead of kept: they follow from something else (`order.py`), and only what
    was changed or dropped of them is in the journal. `source`, where there is one, is asked once
    for each key that is missing and for each owner, and tells the rows to grow.
    """

    def __init__(
        self,
        journal: Journal,
        row_type: type[Row],
        kind: str,
        key: Callable[[Row], str],
        belongs: Callable[[Row], Iterable[str]] = lambda _row: (),
    ) -> None:
        self.source: Callable[[str], Iterable[Row]] | None = None
        self._journal = journal
        self._kind = kind
        self._key = key
        self._belongs = belongs
        self._rows: dict[str, Row] = {}
        self._index: dict[str, dict[str, None]] = {}
        self._dropped: set[str] = set()
        self._asked: set[str] = set()
        for name, fields in journal.kept(kind).items():
            if fields is None:
                self._dropped.add(name)
            else:
                self._remember(row_type(**{it: _frozen(fields[it]) for it in fields}))

    def grow(self, rows: Iterable[Row]) -> None:
        """Know rows that are not kept, as far as they were not changed or dropped."""
        with self._journal.lock:
            for row in rows:
                if self._key(row) not in self._rows and self._key(row) not in self._dropped:
                    self._remember(row)

    def _ask(self, question: str) -> None:
        if self.source is not None and question not in self._asked:
            self._asked.add(question)
            self.grow(self.source(question))

    def get(self, key: str) -> Row | None:
        """The row of a key."""
        with self._journal.lock:
            if key not in self._rows:
                self._ask(key)
            return self._rows.get(key)

    def is_dropped(self, key: str) -> bool:
        """Whether there was a row of this key once."""
        with self._journal.lock:
            return key in self._dropped and key not in self._rows

    def all(self) -> list[Row]:
        """Every row that is known by now, oldest first."""
        with self._journal.lock:
            return list(self._rows.values())

    def of(self, owner: str) -> list[Row]:
        """The rows that belong to an owner, oldest first."""
        with self._journal.lock:
            self._ask(owner)
            return [self._rows[key] for key in self._index.get(owner, ())]

    def put(self, row: Row) -> Row:
        """Add or replace a row; returns it."""
        with self._journal.lock:
            self._remember(row)
            fields = {name: getattr(row, name) for name in row.__dataclass_fields__}
            self._journal.put(self._kind, self._key(row), fields)
            return row

    def drop(self, key: str) -> None:
        """Remove a row, if it is there."""
        with self._journal.lock:
            row = self._rows.pop(key, None)
            if row is not None:
                for owner in self._belongs(row):
                    self._index[owner].pop(key, None)
                self._dropped.add(key)
                self._journal.put(self._kind, key, None)

    def _remember(self, row: Row) -> None:
        key, owners = self._key(row), set(self._belongs(row))
        former = self._rows.get(key)
        for owner in set(self._belongs(former) if former else ()) - owners:
            self._index[owner].pop(key, None)
        for owner in owners:  # a replaced row keeps its place in the order
            self._index.setdefault(owner, {}).setdefault(key)
        self._rows[key] = row
