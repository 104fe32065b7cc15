"""From the spool to the server: one upload at a time per resource, verified, retried.

``fs`` calls ``send`` on a worker when a file is closed, ``queue``'s uploads go the same way. The
spool copy of a file is kept until the server's MD5 of it was seen; ``send`` may succeed before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from xnatfs.config import Limits
from xnatfs.errors import (
    AlreadyExists,
    Conflict,
    Interrupted,
    WaitEnded,
    XnatfsError,
)
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.rest.archive import Archive
from xnatfs.rest.transfer import Transfer
from xnatfs.upload.receipts import Receipts
from xnatfs.upload.record import Base, Record
from xnatfs.upload.sending import Sending
from xnatfs.upload.turns import Turns
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# A listing costs the server the whole catalog: within this time of one, a HEAD shows the size
# and the MD5 is owed. Seconds.
LISTING_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class _Debt:
    """An upload that the server has taken and whose MD5 was not seen yet."""

    upload: Upload
    resource: Item
    # As sent: an upload that was written again is no longer meant.
    record: Record
    # Monotonic time at which the server was seen to have it.
    since: float

    @property
    def stands(self) -> bool:
        return not self.upload.gone and self.upload.record is self.record


class Uploader:
    """Sends uploads and sees to it that the server holds them.

    Args:
        archive, transfer: the server.
        receipts: where it is remembered what this user made.
        limits: how long a send may be kept by what it finds wrong with others' files.
        on_listing: told every fresh listing of a resource's files.

    Threading: ``_mu`` guards the debts and what is known of listings. What happens to one resource
    happens in its turn (``Turns``), on the thread that has it.
    """

    def __init__(
        self,
        archive: Archive,
        transfer: Transfer,
        receipts: Receipts,
        limits: Limits,
        on_listing: Callable[[Item, list[RemoteFile]], None],
    ) -> None:
        self._archive = archive
        self._transfer = transfer
        self._receipts = receipts
        self._limits = limits
        self._on_listing = on_listing
        self._turns = Turns()
        self._mu = threading.Lock()
        # Resource id → upload id → debt.
        self._debts: dict[str, dict[str, _Debt]] = {}
        self._listed: dict[str, float] = {}
        # Resources in which the server gave the last file that we sent a digest. Where it gives
        # none, the time of a listed file is its version, and a HEAD for the size is no proof.
        self._digests: set[str] = set()

    def send(self, upload: Upload, resource: Item, waiter: Waiter) -> RemoteFile:
        """Send an upload that is SEALED, or FAILED after it was sealed.

        On success the server has it; the upload is gone when its MD5 was seen, else that is owed
        (``settle``). On an error the record says why: SEALED still after Interrupted, CONFLICT
        where somebody else's version stands in the way, else FAILED.

        Args:
            upload: what.
            resource: where to; its address and id count.
            waiter: how long; bytes that move, also those of others before it, are progress.

        Returns: the file as the server holds it (``digest`` "" where the server has none).

        Raises: AlreadyExists, Conflict: somebody else's file. NotPermitted, BadName, NotFound (the
            resource is gone), QuotaExceeded (413), LoginRefused: for good. Unreachable,
            ServerBusy, TransferBroken, TimedOut: for as long as the waiter allowed. ServerFault,
            BadReply, Contradiction: the server failed every time. Protected: it was never sealed.
            Interrupted. DiskFault: the spool copy cannot be read.
        """
        record = upload.resume()
        what = f"the upload of {record.target.labels}"
        try:
            with self._turns.turn(resource.id, waiter, what) as moved:
                sending = self._sending(upload, resource, waiter, moved)
                stored, seen = sending.run(by_head=lambda: self._listed_lately(resource))
                debt = _Debt(upload, resource, record, time.monotonic())
                self._took(debt, stored, waiter, seen=seen)
                # On behalf of files that were closed before: what takes longer, ``settle`` does.
                self._repair(resource, Waiter(total_s=self._limits.io_timeout_s), moved)
        except XnatfsError as error:
            _note(upload, error)
            raise
        return stored

    def settle(self, waiter: Waiter) -> None:
        """See the MD5s that are still owed, with one listing per resource.

        What turns out to be wrong is sent again; where that fails, the upload says why.

        Raises: the first error by which a resource could not be listed; its files stay owed.
        """
        first: XnatfsError | None = None
        with self._mu:
            resources = [next(iter(debts.values())).resource for debts in self._debts.values()]
        for resource in resources:
            try:
                with self._turns.turn(
                    resource.id, waiter, f"the MD5s of {resource.address}"
                ) as moved:
                    self._list(resource, waiter)
                    self._repair(resource, waiter, moved)
            except WaitEnded:
                raise
            except XnatfsError as error:
                log.warning("cannot see the MD5s of %s: %s", resource.address, error)
                first = first or error
        if first is not None:
            raise first

    def saw(self, resource: Item, rows: list[RemoteFile]) -> None:
        """Somebody else has listed a resource: what that proves is no longer owed."""
        by_path = {row.path: row for row in rows}
        for debt in self._owed_on(resource):
            row = by_path.get(debt.record.target.path)
            if row is not None and _proves(row, debt.record):
                self._pay(debt, row)

    def removed(self, resource: Item, path: str) -> None:
        """We have removed a file of a resource whose turn is ours: its MD5 is owed no more."""
        for debt in self._owed_on(resource):
            if debt.record.target.path == path:
                self._settled(debt)

    def owed(self) -> int:
        """How many files the server has taken whose MD5 was not seen yet."""
        return len(self.owed_ids())

    def owed_ids(self) -> set[str]:
        """The ids of those uploads."""
        with self._mu:
            return {
                debt.record.id
                for debts in self._debts.values()
                for debt in debts.values()
                if debt.stands
            }

    @contextmanager
    def turn(self, resource_id: str, waiter: Waiter) -> Iterator[None]:
        """Wait until nothing is sent to a resource, and keep it so: for deletes (R§4.6).

        Raises: TimedOut, Interrupted.
        """
        with self._turns.turn(resource_id, waiter, f"the uploads to resource {resource_id}"):
            yield

    def _sending(
        self, upload: Upload, resource: Item, waiter: Waiter, moved: Callable[[], None]
    ) -> Sending:
        return Sending(self._archive, self._transfer, self._list, upload, resource, waiter, moved)

    def _listed_lately(self, resource: Item) -> bool:
        with self._mu:
            lately = time.monotonic() - self._listed.get(resource.id, -60.0) < LISTING_EVERY_S
            return lately and resource.id in self._digests

    def _list(self, resource: Item, waiter: Waiter) -> list[RemoteFile]:
        """A fresh listing, which pays what it proves."""
        rows = self._archive.files(resource, waiter)
        with self._mu:
            self._listed[resource.id] = time.monotonic()
        self._on_listing(resource, rows)
        self.saw(resource, rows)
        return rows

    def _owed_on(self, resource: Item) -> list[_Debt]:
        """The debts on a resource that still stand; the others are dropped."""
        with self._mu:
            debts = self._debts.get(resource.id, {})
            for debt in [debt for debt in debts.values() if not debt.stands]:
                del debts[debt.record.id]
            if not debts:
                self._debts.pop(resource.id, None)
            return list(debts.values())

    def _took(self, debt: _Debt, stored: RemoteFile, waiter: Waiter, *, seen: bool) -> None:
        """The server has it: remember that, and what is still owed."""
        record = debt.record
        size = record.size
        # Without a digest a version is known by its time.
        modified = "" if stored.digest else self._modified(debt, waiter)
        debt.upload.stored(Base(stored.digest, size, modified))
        try:
            self._receipts.add(
                record.target.resource_id, record.target.path, stored.digest, size, modified
            )
        except XnatfsError as error:
            # The file is where it belongs; only its protection is stricter than it need be.
            log.warning("no receipt for %s: %s", record.target.labels, error)
        with self._mu:
            if seen and stored.digest:
                self._digests.add(debt.resource.id)
            elif seen:
                self._digests.discard(debt.resource.id)
            self._debts.setdefault(debt.resource.id, {})[record.id] = debt
        if seen:
            self._pay(debt, stored)

    def _modified(self, debt: _Debt, waiter: Waiter) -> str:
        try:
            return self._archive.head(debt.resource, debt.record.target.path, waiter).modified
        except XnatfsError as error:
            # The file is stored whatever comes now; "" makes it count as somebody else's later.
            log.info("no Last-Modified of %s: %s", debt.record.target.labels, error)
            return ""

    def _pay(self, debt: _Debt, row: RemoteFile) -> None:
        log.debug("%s is on the server: %s", debt.record.target.labels, row)
        self._settled(debt)

    def _settled(self, debt: _Debt) -> None:
        with self._mu:
            self._debts.get(debt.resource.id, {}).pop(debt.record.id, None)
            if not self._debts.get(debt.resource.id):
                self._debts.pop(debt.resource.id, None)
        debt.upload.done()

    def _repair(self, resource: Item, waiter: Waiter, moved: Callable[[], None]) -> None:
        """Look into what the latest listing has contradicted. Its turn is ours."""
        with self._mu:
            listed = self._listed.get(resource.id, -60.0)
        for debt in self._owed_on(resource):
            if debt.since >= listed:
                continue
            try:
                sending = self._sending(debt.upload, resource, waiter, moved)
                stored, _ = sending.recheck()
            except XnatfsError as error:
                if isinstance(error, WaitEnded) or error.temporary:
                    log.warning("%s: its MD5 is still owed: %s", debt.record.target.labels, error)
                    return
                log.error("%s did not arrive: %s", debt.record.target.labels, error)
                _note(debt.upload, error)
            else:
                self._pay(debt, stored)


def _proves(row: RemoteFile, record: Record) -> bool:
    """Whether a listing's row shows that the server has what was sent."""
    if row.digest:
        return row.digest == record.md5 and row.size in (None, record.size)
    return row.size == record.size


def _note(upload: Upload, error: XnatfsError) -> None:
    """Put the reason into the record."""
    if isinstance(error, Interrupted):
        upload.trouble(str(error))
    elif isinstance(error, AlreadyExists | Conflict):
        upload.conflict(str(error))
    else:
        upload.fail(str(error))
