"""What the server has taken and whose MD5 was not seen yet: the spool keeps it until then."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from dataclasses import dataclass

from xnatfs.model.entities import Item, RemoteFile
from xnatfs.upload.record import Record
from xnatfs.upload.upload import Upload

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Debt:
    """An upload that the server has taken and whose MD5 is owed."""

    upload: Upload
    resource: Item
    # As sent: an upload that was written again is no longer meant.
    record: Record
    # Monotonic time at which the server was seen to have it.
    since: float

    @property
    def stands(self) -> bool:
        """Whether it is still owed."""
        return not self.upload.gone and self.upload.record is self.record


class Debts:
    """All debts of a mount.

    Threading: ``_mu`` guards the table; uploads end outside of it.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        # Resource id → upload id → debt.
        self._table: dict[str, dict[str, Debt]] = {}

    def add(self, debt: Debt) -> None:
        """The server has taken it."""
        with self._mu:
            self._table.setdefault(debt.resource.id, {})[debt.record.id] = debt

    def on(self, resource: Item) -> list[Debt]:
        """The debts on a resource that still stand; the others are dropped."""
        with self._mu:
            debts = self._table.get(resource.id, {})
            for debt in [debt for debt in debts.values() if not debt.stands]:
                del debts[debt.record.id]
            if not debts:
                self._table.pop(resource.id, None)
            return list(debts.values())

    def resources(self) -> list[Item]:
        """Where something is owed."""
        with self._mu:
            return [next(iter(debts.values())).resource for debts in self._table.values()]

    def ids(self) -> set[str]:
        """The ids of the uploads that are owed."""
        with self._mu:
            return {
                debt.record.id
                for debts in self._table.values()
                for debt in debts.values()
                if debt.stands
            }

    def pay(self, debt: Debt) -> None:
        """It was seen, or is wanted no more: the upload is gone."""
        with self._mu:
            self._table.get(debt.resource.id, {}).pop(debt.record.id, None)
            if not self._table.get(debt.resource.id):
                self._table.pop(debt.resource.id, None)
        debt.upload.done()

    def prove(self, resource: Item, rows: Mapping[str, RemoteFile]) -> None:
        """Pay what a listing (by path) shows."""
        for debt in self.on(resource):
            row = rows.get(debt.record.target.path)
            if row is not None and proves(row, debt.record):
                log.debug("%s is on the server: %s", debt.record.target.labels, row)
                self.pay(debt)


def proves(row: RemoteFile, record: Record) -> bool:
    """Whether a listing's row shows that the server has what was sent."""
    if row.digest:
        return row.digest == record.md5 and row.size in (None, record.size)
    return row.size == record.size
