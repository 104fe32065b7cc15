"""From the spool to the server: one upload at a time per resource, verified, retried.

``fs`` calls ``send`` on a worker when a file is closed, ``outbox`` calls ``send_all`` for what
waits. The spool copy of a file is kept until the server's MD5 of it was seen; ``send`` may
succeed before.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

from cachetools import LRUCache

from xnatfs.config import Limits
from xnatfs.errors import BadReply, DiskFault, QuotaExceeded, ServerFault, WaitEnded, XnatfsError
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.rest.archive import Archive
from xnatfs.rest.transfer import Transfer
from xnatfs.upload import batch
from xnatfs.upload.batch import Batch
from xnatfs.upload.debts import Debt, Debts, proves
from xnatfs.upload.glance import Glances
from xnatfs.upload.outcomes import Outcome, ends_all, note
from xnatfs.upload.receipts import Receipts
from xnatfs.upload.record import Base
from xnatfs.upload.sending import LONGEST_PAUSE_S, Sending
from xnatfs.upload.turns import Turns
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# A listing costs the server the whole catalog: within this time of one, a HEAD shows the size
# and the MD5 is owed. Seconds.
LISTING_EVERY_S = 2.0

# In the background nothing is kept from its turn by a pause that is longer than this. Seconds.
BACKGROUND_PAUSE_S = 0.5

# Resources whose latest listing is remembered.
REMEMBERED = 64


@dataclass(frozen=True, slots=True)
class _Seen:
    """The latest listing of a resource."""

    rows: Mapping[str, RemoteFile]
    # Monotonic time at which it had arrived.
    at: float


class Uploader:
    """Sends uploads and sees to it that the server holds them.

    Args:
        archive, transfer: the server.
        receipts: where it is remembered what this user made.
        limits: how long a send may be kept by what it finds wrong with others' files.
        on_listing: told every fresh listing of a resource's files.
        on_stored: told what the server has and its latest listing does not show.

    Threading: ``_mu`` guards what is known of resources. What happens to one resource
    happens in its turn (``Turns``), on the thread that has it.
    """

    def __init__(
        self,
        archive: Archive,
        transfer: Transfer,
        receipts: Receipts,
        limits: Limits,
        on_listing: Callable[[Item, list[RemoteFile]], None],
        on_stored: Callable[[Item, RemoteFile], None],
    ) -> None:
        self._archive = archive
        self._transfer = transfer
        self._receipts = receipts
        self._limits = limits
        self._on_listing = on_listing
        self._on_stored = on_stored
        self._sending = partial(Sending, archive, transfer, self._list, Glances(archive))
        self._turns = Turns()
        self._debts = Debts()
        self._mu = threading.Lock()
        self._listed: LRUCache[str, _Seen] = LRUCache(REMEMBERED)
        # Resources in which the server gave the last file that we sent a digest. Where it gives
        # none, the time of a listed file is its version, and a HEAD for the size is no proof.
        self._digests: set[str] = set()
        # A proxy before the server may take no larger bodies (413). Bytes.
        self._most_bytes = batch.MOST_BYTES
        # Resource id → archives that failed in a row.
        self._faults: LRUCache[str, int] = LRUCache(REMEMBERED)

    def send(
        self,
        upload: Upload,
        resource: Item,
        waiter: Waiter,
        *,
        comes_again: bool = False,
        orphan: bool = False,
    ) -> RemoteFile:
        """Send an upload that is SEALED, or FAILED after it was sealed.

        On success the server has it; the upload is gone when its MD5 was seen, else that is owed
        (``settle``). On an error the record says why: CONFLICT where somebody else's version
        stands in the way; SEALED still after Interrupted and for what comes again; else FAILED.

        Args:
            upload: what.
            resource: where to; its address and id count.
            waiter: how long; bytes that move, also those of others before it, are progress.
            comes_again: the caller tries again later what ``may_pass``: no long pauses here.
            orphan: as with ``Sending``.

        Returns: the file as the server holds it (``digest`` "" where the server has none).

        Raises: AlreadyExists, Conflict: somebody else's file. NotPermitted, BadName, NotFound (the
            resource is gone), QuotaExceeded (413), LoginRefused: for good. Unreachable,
            ServerBusy, TransferBroken, TimedOut: for as long as the waiter allowed. ServerFault,
            BadReply, Contradiction: the server failed every time. Protected: it was never sealed.
            Interrupted. DiskFault: the spool copy cannot be read.
        """
        record = upload.resume()
        what = f"the upload of {record.target.labels}"
        sending: Sending | None = None
        try:
            with self._turns.turn(resource.id, waiter, what) as moved:
                sending = self._sending(
                    upload,
                    resource,
                    waiter,
                    moved,
                    longest_pause_s=BACKGROUND_PAUSE_S if comes_again else LONGEST_PAUSE_S,
                    orphan=orphan,
                )
                stored, seen = sending.run(by_head=lambda: self._listed_lately(resource))
                debt = Debt(upload, resource, record, time.monotonic())
                self._took(debt, stored, waiter, seen=seen)
                # On behalf of files that were closed before: what takes longer, ``settle`` does.
                self._repair(resource, Waiter(total_s=self._limits.io_timeout_s), moved)
        except XnatfsError as error:
            asked = sending is not None and sending.asked
            if asked:
                self._forget_listing(resource)
            note(upload, error, asked=asked, comes_again=comes_again)
            raise
        return stored

    def send_all(
        self, uploads: Sequence[Upload], resource: Item, waiter: Waiter
    ) -> Iterator[tuple[Upload, Outcome]]:
        """Send many to one resource, small ones together; what ``may_pass`` comes again.

        Args: as for ``send``.

        Yields: every upload once, as soon as its fate is known: what the server holds, or the
            error. One that concerns the server, not a file, ends it: the rest are not tried.
        """
        left = dict.fromkeys(uploads)
        orphans: set[Upload] = set()
        ended: XnatfsError | None = None
        small = [upload for upload in uploads if batch.fits(upload)]
        for group in batch.groups(small, self._most_bytes):
            if len(group) < batch.FEWEST or ended is not None or self._is_faulty(resource):
                continue
            for upload, outcome in self._send_archive(group, resource, waiter, orphans):
                ended = ended or ends_all(outcome)
                del left[upload]
                yield upload, outcome
        for upload in left:
            if ended is not None:
                yield upload, ended
                continue
            outcome = self._send_one(upload, resource, waiter, orphan=upload in orphans)
            ended = ends_all(outcome)
            yield upload, outcome

    def look(self, upload: Upload, resource: Item, waiter: Waiter) -> RemoteFile | None:
        """Whether an upload, whose answer was lost, has arrived; then it counts as sent.

        Returns: what the server holds: it, or an earlier version of it, which was sent before it
            was written over; None: it has nothing of ours under that name.

        Raises: what a listing raises.
        """
        record = upload.resume()
        what = f"a look at {record.target.labels}"
        with self._turns.turn(resource.id, waiter, what):
            row = self._list(resource, waiter).get(record.target.path)
            if row is not None and row.digest and proves(row, record):
                self._took(Debt(upload, resource, record, time.monotonic()), row, waiter, seen=True)
                return row
            if row is not None and Base(row.digest, row.size or 0) in record.perhaps:
                self._receipts.add(resource.id, row.path, row.digest, row.size or 0)
                return row
            upload.absent()
            return None

    def settle(self, waiter: Waiter, only: Item | None = None) -> None:
        """See the MD5s that are still owed, with one listing per resource.

        What turns out to be wrong is sent again; where that fails, the upload says why.

        Args:
            waiter: how long.
            only: this resource's; None: all.

        Raises: the first error by which a resource could not be listed; its files stay owed.
        """
        first: XnatfsError | None = None
        for resource in self._debts.resources():
            if only is not None and resource.id != only.id:
                continue
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
        self._debts.prove(resource, {row.path: row for row in rows})

    def removed(self, resource: Item, path: str) -> None:
        """We have removed a file of a resource whose turn is ours: its MD5 is owed no more."""
        self._forget_listing(resource)
        for debt in self._debts.on(resource):
            if debt.record.target.path == path:
                self._debts.pay(debt)

    def owed(self) -> int:
        """How many files the server has taken whose MD5 was not seen yet."""
        return len(self.owed_ids())

    def owed_ids(self) -> set[str]:
        """The ids of those uploads."""
        return self._debts.ids()

    @contextmanager
    def turn(self, resource_id: str, waiter: Waiter) -> Iterator[None]:
        """Wait until nothing is sent to a resource, and keep it so: for deletes (R§4.6).

        Raises: TimedOut, Interrupted.
        """
        with self._turns.turn(resource_id, waiter, f"the uploads to resource {resource_id}"):
            yield

    def _send_one(self, upload: Upload, resource: Item, waiter: Waiter, *, orphan: bool) -> Outcome:
        try:
            return self.send(upload, resource, waiter, comes_again=True, orphan=orphan)
        except XnatfsError as error:
            return error

    def _send_archive(
        self, uploads: Sequence[Upload], resource: Item, waiter: Waiter, orphans: set[Upload]
    ) -> Iterator[tuple[Upload, Outcome]]:
        """Send small ones together; those that are not yielded have to go by themselves."""
        ready = []
        for upload in uploads:
            try:
                upload.resume()
                ready.append(upload)
            except XnatfsError as error:
                note(upload, error, asked=False, comes_again=True)
                yield upload, error
        made: Batch | None = None
        try:
            what = f"the upload of {len(ready)} files to {resource.address}"
            with self._turns.turn(resource.id, waiter, what) as moved:
                made = Batch(
                    self._transfer,
                    lambda: self._list(resource, waiter),
                    ready,
                    resource,
                    waiter,
                    moved,
                )
                made.run(self._known(resource))
                now = time.monotonic()
                for upload, row in made.stored.items():
                    self._took(Debt(upload, resource, upload.record, now), row, waiter, seen=True)
            orphans |= made.orphans
            with self._mu:
                self._faults.pop(resource.id, None)
            yield from made.stored.items()
        except QuotaExceeded as error:
            self._most_bytes = max(sum(upload.size for upload in ready) // 2, 1)
            log.info("%s: archives of %d bytes at most from now on", error, self._most_bytes)
        except DiskFault as error:
            # The copy of one of them is not readable; whose, each finds out by itself.
            log.info("%s: its company goes without it", error)
        except XnatfsError as error:
            asked = made is not None and made.asked
            with self._mu:
                if asked:
                    self._listed.pop(resource.id, None)
                if isinstance(error, ServerFault | BadReply):
                    self._faults[resource.id] = self._faults.get(resource.id, 0) + 1
            for upload in ready:
                note(upload, error, asked=asked, comes_again=True)
                yield upload, error

    def _is_faulty(self, resource: Item) -> bool:
        """Whether archives are no use there: one bad file, or a server that unpacks none."""
        with self._mu:
            return bool(self._faults.get(resource.id, 0) >= batch.MOST_FAULTS)

    def _forget_listing(self, resource: Item) -> None:
        with self._mu:
            self._listed.pop(resource.id, None)

    def _known(self, resource: Item) -> Mapping[str, RemoteFile] | None:
        """What the resource holds, where it was looked at a moment ago."""
        with self._mu:
            seen = self._listed.get(resource.id)
        if seen is None or time.monotonic() - seen.at >= LISTING_EVERY_S:
            return None
        return seen.rows

    def _listed_lately(self, resource: Item) -> bool:
        return self._known(resource) is not None and resource.id in self._digests

    def _list(self, resource: Item, waiter: Waiter) -> Mapping[str, RemoteFile]:
        """A fresh listing by path, which pays what it proves."""
        rows = self._archive.files(resource, waiter)
        by_path = {row.path: row for row in rows}
        with self._mu:
            self._listed[resource.id] = _Seen(by_path, time.monotonic())
        self._on_listing(resource, rows)
        self._debts.prove(resource, by_path)
        return by_path

    def _took(self, debt: Debt, stored: RemoteFile, waiter: Waiter, *, seen: bool) -> None:
        """The server has it: remember that, and what is still owed."""
        record = debt.record
        size = record.size
        # Without a digest a version is known by its time.
        modified = "" if stored.digest else self._modified(debt, waiter)
        debt.upload.stored(Base(stored.digest, size, modified))
        with self._mu:
            latest = self._listed.get(debt.resource.id)
        if latest is None or latest.rows.get(stored.path) != stored:
            self._on_stored(debt.resource, stored)
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
        self._debts.add(debt)
        if seen:
            self._debts.pay(debt)

    def _modified(self, debt: Debt, waiter: Waiter) -> str:
        try:
            return self._archive.head(debt.resource, debt.record.target.path, waiter).modified
        except XnatfsError as error:
            # The file is stored whatever comes now; "" makes it count as somebody else's later.
            log.info("no Last-Modified of %s: %s", debt.record.target.labels, error)
            return ""

    def _repair(self, resource: Item, waiter: Waiter, moved: Callable[[], None]) -> None:
        """Look into what the latest listing has contradicted. Its turn is ours."""
        with self._mu:
            seen = self._listed.get(resource.id)
        for debt in self._debts.on(resource):
            if seen is None or debt.since >= seen.at:
                continue
            try:
                sending = self._sending(debt.upload, resource, waiter, moved)
                sending.recheck()
            except XnatfsError as error:
                if isinstance(error, WaitEnded) or error.temporary:
                    log.warning("%s: its MD5 is still owed: %s", debt.record.target.labels, error)
                    return
                log.error("%s did not arrive: %s", debt.record.target.labels, error)
                note(debt.upload, error, asked=True, comes_again=False)
            else:
                self._debts.pay(debt)
