"""One upload's way to the server: ask, look, judge, and ask again.

The server's answer to an upload proves nothing (R§4.5: 200 for what it stored, for what existed
and for what the user may not), so what counts is what a listing shows. ``uploader`` makes one
Sending for each send and keeps the order among them.
"""

from __future__ import annotations

import hashlib
import logging
import random
from collections.abc import Callable, Mapping
from dataclasses import replace
from enum import Enum

from xnatfs.errors import (
    AlreadyExists,
    BadName,
    BadReply,
    Conflict,
    Contradiction,
    Interrupted,
    NotFound,
    NotPermitted,
    QuotaExceeded,
    ServerBusy,
    ServerFault,
    TimedOut,
    Unreachable,
    XnatfsError,
)
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.rest.addresses import literal
from xnatfs.rest.archive import Archive
from xnatfs.rest.transfer import Sent, Transfer
from xnatfs.upload.glance import Glances
from xnatfs.upload.record import Base
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# Pauses between attempts double from the first to the longest; each is shortened by up to half
# at random, so that the tasks of a job array do not come back together. Seconds.
FIRST_PAUSE_S = 0.02
LONGEST_PAUSE_S = 300.0

# A catalog conflict (R§4.6) is gone with the next attempt or two; a server that fails every time
# has another reason, and a person should hear of it.
MOST_FAULTS = 5

# How often other bytes than were sent may arrive before we give up.
MOST_CUTS = 2

# A name that exists but is in no listing is somebody's upload on its way into the catalog, which
# takes milliseconds, or what a broken one left (R§4.6). Seconds.
SETTLING_S = 1.0

# What ``Transfer.send`` raises when surely nothing was stored.
NOT_STORED = (BadName, NotPermitted, NotFound, QuotaExceeded, Unreachable)


class Found(Enum):
    """What a download shows of the server's bytes."""

    SAME = "ours"
    # A beginning of ours, or bytes that nobody meant to store.
    CUT = "a broken copy of ours"
    OTHER = "somebody else's"


class Sending:
    """One attempt after the other, until the server surely has it or the reason is known.

    Args:
        archive, transfer: the server.
        listing: a fresh listing of the resource, by path; pays what else it proves.
        glances: where a HEAD may stand for a listing.
        upload: sealed; resource: where it goes.
        waiter: how long.
        moved: called whenever bytes move.
        longest_pause_s: what needs a longer pause than this (seconds) is raised instead.
        orphan: a broken attempt of ours has left the name on the server's disk, unlisted.

    Threading: belongs to the thread that sends.
    """

    def __init__(
        self,
        archive: Archive,
        transfer: Transfer,
        listing: Callable[[Item, Waiter], Mapping[str, RemoteFile]],
        glances: Glances,
        upload: Upload,
        resource: Item,
        waiter: Waiter,
        moved: Callable[[], None],
        *,
        longest_pause_s: float = LONGEST_PAUSE_S,
        orphan: bool = False,
    ) -> None:
        self._archive = archive
        self._transfer = transfer
        self._listing = listing
        self._glances = glances
        self._upload = upload
        self._record = upload.record
        self._resource = resource
        self._waiter = waiter
        self._moved = moved
        self._path = upload.record.target.path
        self._labels = upload.record.target.labels
        # The version that may be replaced; None: none.
        self._base = upload.record.base
        # Look before sending: what is replaced must still be there, and an answer that was lost
        # may have been a success; and an archive (a name that no address carries) may only hold
        # names that a listing showed absent.
        self._look = (
            self._base is not None
            or upload.record.attempts > 0
            or bool(upload.record.perhaps)
            or literal(self._path) is None
            or orphan
        )
        # The name is taken on the server's disk by something that no listing shows.
        self._orphan = orphan
        self._longest_pause_s = longest_pause_s
        # Whether the server may have it without our knowing.
        self.asked = False
        # The server had it once: if it is gone now, somebody has removed it.
        self._was_there = False
        self._faults = 0
        self._cuts = 0
        self._pause_s = FIRST_PAUSE_S

    def run(self, *, by_head: Callable[[], bool]) -> tuple[RemoteFile, bool]:
        """Send until it is there.

        Args:
            by_head: whether a HEAD may stand for the listing that proves it.

        Returns: what the server holds, and whether its MD5 was seen (or there is none to see).

        Raises: as ``Uploader.send``.
        """
        return self._persist(lambda: self._attempt(by_head))

    def recheck(self) -> tuple[RemoteFile, bool]:
        """It was sent, but a listing contradicts: compare, and send again if need be."""
        self._was_there = self._look = True
        checks = [self._checked]

        def attempt() -> tuple[RemoteFile, bool]:
            return checks.pop()() if checks else self._attempt(lambda: False)

        return self._persist(attempt)

    def _persist(self, attempt: Callable[[], tuple[RemoteFile, bool]]) -> tuple[RemoteFile, bool]:
        while True:
            self._waiter.check(f"the upload of {self._labels}")
            if self._upload.gone or self._upload.record.md5 != self._record.md5:
                raise Interrupted(f"{self._labels} was changed or removed while it was sent")
            try:
                return attempt()
            except (ServerFault, BadReply) as error:
                self._faults += 1
                if self._faults > MOST_FAULTS:
                    raise
                self._pause(error)
            except XnatfsError as error:
                if not error.temporary:
                    raise
                self._pause(error)

    def _pause(self, error: XnatfsError) -> None:
        """Wait for the next attempt; raises ``error`` when there is no time for one."""
        asked = error.retry_after if isinstance(error, ServerBusy) else None
        pause_s = max(self._pause_s * random.uniform(0.5, 1.0), asked or 0.0)
        if pause_s > self._longest_pause_s:
            raise error
        self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)
        log.info("upload of %s: %s; again in %.2f s", self._labels, error, pause_s)
        try:
            self._waiter.sleep(pause_s, f"the next attempt to upload {self._labels}")
        except TimedOut:
            raise error from None

    def _attempt(self, by_head: Callable[[], bool]) -> tuple[RemoteFile, bool]:
        overwrite = False
        if self._look:
            row = self._find()
            if row is not None and self._holds_ours(row):
                return self._as_listed(row), True
            overwrite = self._may_replace(row)
        self._look = self.asked = True
        if overwrite or not by_head():
            sent = self._send(overwrite=overwrite)
        else:
            with self._glances.begin(self._resource, self._path, self._record.size) as glance:
                sent = self._send(overwrite=False)
                if sent is Sent.STORED and glance.shows(self._record.size, self._waiter):
                    return self._as_sent(), False
        return self._duplicate() if sent is Sent.DUPLICATE else self._checked()

    def _send(self, *, overwrite: bool) -> Sent:
        try:
            return self._transfer.send(
                self._resource,
                self._path,
                lambda: self._upload.open_body(self._moved),
                self._record.size,
                self._waiter,
                overwrite=overwrite,
            )
        except NOT_STORED:
            self.asked = False
            raise
        except (ServerFault, BadReply):
            # R§4.6: the bytes may be in place without an entry in the catalog; the name is then
            # refused as a duplicate unless it is overwritten.
            self._orphan = True
            raise

    def _find(self) -> RemoteFile | None:
        """The row of a fresh listing that has our name."""
        return self._listing(self._resource, self._waiter).get(self._path)

    def _has_size(self) -> bool:
        return self._glances.look(self._resource, self._path, self._waiter) == self._record.size

    def _is_ours(self, row: RemoteFile) -> bool:
        """Whether a row is surely what we send; without a digest nothing is sure."""
        return row.digest == self._record.md5 and row.size in (None, self._record.size)

    def _holds_ours(self, row: RemoteFile) -> bool:
        """Whether a row is what we send; without a digest its bytes are compared."""
        if row.digest or row.size != self._record.size:
            return self._is_ours(row)
        return self._compare(row) is Found.SAME

    def _as_sent(self) -> RemoteFile:
        return RemoteFile(self._resource.id, self._path, self._record.size, self._record.md5)

    def _as_listed(self, row: RemoteFile) -> RemoteFile:
        """The row, with the size and digest that were proven; "" stays ""."""
        digest = self._record.md5 if row.digest else ""
        return replace(row, size=self._record.size, digest=digest)

    def _may_replace(self, row: RemoteFile | None) -> bool:
        """Whether to send with overwrite, by what stands there now.

        Raises: AlreadyExists, Conflict: somebody else's version stands there, or is gone.
        """
        if row is None:
            if self._base is None:
                return self._orphan
            raise Conflict(f"{self._labels}: it was removed on the server meanwhile")
        if row.digest and Base(row.digest, self._record.size if row.size is None else row.size) in (
            self._record.perhaps
        ):
            return True
        if self._base is None:
            raise AlreadyExists(f"{self._labels}: the server has a file of this name already")
        if not self._is_base(row, self._base):
            raise Conflict(f"{self._labels}: somebody else has changed it on the server meanwhile")
        return True

    def _is_base(self, row: RemoteFile, base: Base) -> bool:
        if row.digest != base.digest or row.size not in (None, base.size):
            return False
        if base.digest or not base.modified:
            return True
        head = self._archive.head(self._resource, self._path, self._waiter)
        return head.modified == base.modified

    def _duplicate(self) -> tuple[RemoteFile, bool]:
        """Find out whose it is: the server has the name and stored nothing (R§4.5)."""
        row = self._find()
        if row is None:
            self._waiter.sleep(SETTLING_S, f"the catalog entry of {self._labels}")
            row = self._find()
        if row is None:
            self._orphan = True
            raise ServerFault(
                f"{self._labels}: the server refuses the name as taken, but does not list it"
            )
        if self._holds_ours(row):
            return self._as_listed(row), True
        self._may_replace(row)
        raise ServerFault(f"{self._labels}: the server refused to overwrite it")

    def _checked(self) -> tuple[RemoteFile, bool]:
        """What a fresh listing says about what was sent.

        Raises: NotPermitted: nothing was stored. Conflict: somebody else's bytes are there.
            ServerFault: other bytes than were sent; send again. Contradiction: too often.
        """
        row = self._find()
        if row is None and self._was_there:
            raise Conflict(f"{self._labels}: it was removed on the server meanwhile")
        if row is None:
            raise self._nothing_stored()
        if self._is_ours(row) or (self._base is None and self._has_only_size(row)):
            return self._as_listed(row), True
        log.log(
            logging.WARNING if row.digest else logging.DEBUG,
            "%s: sent as %d bytes, MD5 %s; the server lists %s bytes, MD5 %s: comparing",
            self._labels,
            self._record.size,
            self._record.md5,
            row.size,
            row.digest or "unknown",
        )
        found = self._compare(row)
        if found is Found.SAME:
            if row.digest:
                log.warning(
                    "%s: the bytes are right, the catalog is not; ask the owner of the project "
                    "to refresh it",
                    self._labels,
                )
            return self._as_listed(row), True
        if not self._cuts and self._base is not None and self._is_base(row, self._base):
            raise self._nothing_stored()
        if found is Found.OTHER:
            raise Conflict(f"{self._labels}: somebody else has changed it on the server meanwhile")
        self._cuts += 1
        if self._cuts > MOST_CUTS:
            raise Contradiction(
                f"{self._labels}: the server stored other bytes than were sent, {self._cuts} times"
            )
        # What lies there is a piece of ours: it, and nothing else, may be replaced.
        self._base = Base(row.digest, row.size if row.size is not None else -1)
        raise ServerFault(f"{self._labels}: the server holds other bytes than were sent")

    def _nothing_stored(self) -> NotPermitted:
        return nothing_stored(self._labels, self._record.target.account)

    def _has_only_size(self, row: RemoteFile) -> bool:
        """Whether the server has no digest to check, and the right size."""
        if row.digest:
            return False
        return self._has_size() if row.size is None else row.size == self._record.size

    def _compare(self, row: RemoteFile) -> Found:
        """Download it once and compare it with ours."""
        with self._upload.open_body() as body:
            comparison = Comparison(body.read)
            self._transfer.fetch(self._resource, self._path, comparison.take, self._waiter)
        if comparison.equal and comparison.size == self._record.size:
            return Found.SAME
        if comparison.equal:
            return Found.CUT
        # Bytes that even the server's own digest does not describe are nobody's version.
        broken = bool(row.digest) and comparison.md5 != row.digest
        return Found.CUT if broken else Found.OTHER


def nothing_stored(what: str, account: str) -> NotPermitted:
    """The error for a silent 200 (R§4.5)."""
    return NotPermitted(
        f"cannot upload {what}: the server accepted it but stored nothing "
        f'(user "{account}" may not edit this resource)'
    )


class Comparison:
    """A sink that compares what arrives with local bytes.

    Args:
        read: hands out the local bytes in order.
    """

    def __init__(self, read: Callable[[int], bytes]) -> None:
        self._read = read
        self._md5 = hashlib.md5(usedforsecurity=False)
        # Whether all that arrived are the first bytes of the local ones.
        self.equal = True
        # Bytes that arrived.
        self.size = 0

    @property
    def md5(self) -> str:
        """MD5 of what arrived, lower-case hex."""
        return self._md5.hexdigest()

    def take(self, piece: bytes) -> None:
        """Compare the next piece."""
        self._md5.update(piece)
        self.size += len(piece)
        if self.equal:
            self.equal = self._read(len(piece)) == bytes(piece)
