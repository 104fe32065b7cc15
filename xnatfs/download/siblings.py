"""The files beside a file: a resource as the way in sees it, and in which order it is read.

Values and pure functions; ``bulk`` decides by them, ``fs`` makes the ``Siblings``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from xnatfs.cache.content import SMALL
from xnatfs.config import KIB, MIB
from xnatfs.model.entities import RemoteFile
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter

# What a request costs, as bytes: the server reads its whole catalog for each (R§3.3), and a round
# trip of 30 ms is 64 KiB on a line of 17 Mb/s. A stream that would bring fewer bytes in vain than
# the requests it spares is worth it.
_REQUEST = 64 * KIB

# A resource of so many files is likely to be read as a whole, and gains from beginning early.
_SERIES = 32

# Files fetched one by one ahead of a reader that walks: at most so many, and so many bytes.
_AHEAD_FILES = 8
_AHEAD_BYTES = 16 * MIB


class Opening(Protocol):
    """A version that is open for reading."""

    def prefetch(self) -> None:
        """Start bringing all of it, without waiting."""

    def close(self) -> None:
        """End the opening; what was started goes on."""


@dataclass(frozen=True, slots=True)
class Siblings:
    """The files of one resource, and the way to all of them at once."""

    # What tells the resource from others.
    key: str
    # The resource's folder, for texts.
    label: str
    # The listing, in the server's order; cached, so that it rarely asks.
    rows: Callable[[Waiter], Sequence[RemoteFile]]
    # One tar of the whole: (sink, waiter).
    fetch: Callable[[Callable[[bytes], None], Waiter], None]
    # Opens one of the files.
    open: Callable[[RemoteFile], Opening]
    # Whether the folder of a file (its path) was listed a short while ago.
    listed: Callable[[str], bool]
    # What is read next when another resource (its key) was read before this one; None: no idea.
    following: Callable[[str, Waiter], Siblings | None]


def version_of(row: RemoteFile) -> Version | None:
    """The version that a row means; None for what no stream may bring: large, or unverifiable."""
    if row.size is None or row.size > SMALL or not row.digest:
        return None
    return Version(row.resource_id, row.path, row.size, row.digest)


def streaming_pays(rows: Iterable[RemoteFile], missing: dict[str, Version], most: int) -> bool:
    """Whether one stream of a whole resource is better than a request for each missing file.

    Args:
        rows: of the whole resource.
        missing: by path, what is wanted of it.
        most: bytes that the store may take.
    """
    wanted = sum(version.size for version in missing.values())
    in_vain = sum(row.size or 0 for row in rows) - wanted
    return len(missing) > 1 and wanted <= most and in_vain <= len(missing) * _REQUEST


def following(orders: Iterable[Sequence[str]], before: str, now: str) -> list[str]:
    """What comes after ``now``, in the first order in which it comes right after ``before``.

    The archive's own order and the order of the names (a shell's ``*``) are tried; a reader that
    keeps to neither is not followed.
    """
    for order in orders:
        try:
            at = order.index(now)
        except ValueError:
            continue
        if at and order[at - 1] == before:
            return list(order[at + 1 :])
    return []


def begins_series(path: str, rows: Sequence[RemoteFile]) -> bool:
    """Whether somebody who reads all files of a large resource may begin with this one.

    That is the first in the archive's order, or in that of the names.
    """
    return len(rows) >= _SERIES and path in (rows[0].path, min(row.path for row in rows))


class Walk:
    """One reader's way through files that are fetched one by one.

    Args:
        rows: of the resource, in the server's order.
        missing: by path, what is not here.

    Threading: none of its own; the owner calls ``step`` from one thread at a time.
    """

    def __init__(self, rows: Iterable[RemoteFile], missing: Iterable[str]) -> None:
        self._rows = {row.path: row for row in rows}
        self._orders = (list(self._rows), sorted(self._rows))
        self._missing = set(missing)
        self._before = ""
        self._steps = 0

    def step(self, path: str) -> list[RemoteFile]:
        """A file is being read: which others to fetch now; none is named twice."""
        before, self._before = self._before, path
        self._missing.discard(path)
        ahead = following(self._orders, before, path)
        self._steps = self._steps + 1 if ahead else 0
        chosen: list[RemoteFile] = []
        total = 0
        for name in ahead[: min(2 * self._steps, _AHEAD_FILES)]:
            row = self._rows[name]
            total += row.size or 0
            if name in self._missing and total <= _AHEAD_BYTES:
                chosen.append(row)
        self._missing.difference_update(row.path for row in chosen)
        return chosen
