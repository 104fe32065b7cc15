"""Many small files of one resource as one archive, which the server unpacks (R§4.3).

A PUT for each file costs a round trip and makes the server write its whole catalog every time.
Only names that a listing showed absent go this way, nothing is overwritten, and each file counts
as sent only when a listing shows it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from xnatfs.config import MIB
from xnatfs.errors import NotPermitted
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.rest.archives import Entry
from xnatfs.rest.transfer import Transfer
from xnatfs.upload.debts import proves
from xnatfs.upload.sending import NOT_STORED, SETTLING_S, nothing_stored
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# A larger file gains nothing by company. Bytes.
LARGEST = MIB

# What is lost when an archive has to be sent again. Bytes.
MOST_BYTES = 32 * MIB

# Fewer are as fast by themselves: an archive costs a listing before and one after it.
FEWEST = 3

# Where archives failed so often in a row, files go by themselves.
MOST_FAULTS = 3


def fits(upload: Upload) -> bool:
    """Whether an upload may go into an archive."""
    return upload.record.base is None and upload.size <= LARGEST


def groups(uploads: Sequence[Upload], most_bytes: int) -> list[list[Upload]]:
    """Uploads in archives of at most so many bytes."""
    made: list[list[Upload]] = []
    filled = 0
    for upload in uploads:
        if not made or filled + upload.size > most_bytes:
            made.append([])
            filled = 0
        made[-1].append(upload)
        filled += upload.size
    return made


class Batch:
    """One archive, and what became of each file in it.

    Args:
        transfer: the server.
        listing: a fresh listing of the resource, by path.
        uploads: what ``fits``, sealed, in the resource's turn.
        resource: where to.
        waiter: how long.
        moved: called whenever bytes move.

    Threading: belongs to the thread that sends.
    """

    def __init__(
        self,
        transfer: Transfer,
        listing: Callable[[], Mapping[str, RemoteFile]],
        uploads: Sequence[Upload],
        resource: Item,
        waiter: Waiter,
        moved: Callable[[], None],
    ) -> None:
        self._transfer = transfer
        self._listing = listing
        self._uploads = uploads
        self._resource = resource
        self._waiter = waiter
        self._moved = moved
        # Whether the server may have some of it without our knowing.
        self.asked = False
        # What the server was seen to have. Whatever is in neither of these has to go by itself.
        self.stored: dict[Upload, RemoteFile] = {}
        # Their names are taken on the server's disk by something that no listing shows.
        self.orphans: set[Upload] = set()

    def run(self, known: Mapping[str, RemoteFile] | None) -> None:
        """Send it.

        Args:
            known: a listing that is still good, by path; None: there is none.

        Raises: NotPermitted: the server stored nothing of it. What ``Transfer.send`` raises.
        """
        rows = known if known is not None else self._listing()
        absent = []
        for upload in self._uploads:
            row = rows.get(upload.record.target.path)
            if row is None:
                absent.append(upload)
            elif row.digest and proves(row, upload.record):
                # An answer was lost.
                self.stored[upload] = row
        if len(absent) < FEWEST:
            return
        self.asked = True
        try:
            refused = self._send(absent)
        except NOT_STORED:
            self.asked = False
            raise
        rows = self._look(absent)
        if not refused and not any(upload.record.target.path in rows for upload in absent):
            raise self._nothing_stored(absent)
        if any(path not in rows for path in refused):
            # Somebody's upload on its way into the catalog, or what a broken one left.
            self._waiter.sleep(SETTLING_S, f"the catalog of {self._resource.address}")
            rows = self._look(absent)
            self.orphans = {
                upload
                for upload in absent
                if upload.record.target.path in refused and upload.record.target.path not in rows
            }

    def _send(self, uploads: Sequence[Upload]) -> set[str]:
        size = sum(upload.size for upload in uploads)
        log.info("%d files (%d bytes) to %s", len(uploads), size, self._resource.address)
        entries = [
            Entry(
                upload.record.target.path,
                upload.record.size,
                lambda upload=upload: upload.open_body(self._moved),  # type: ignore[misc]  # a default
            )
            for upload in uploads
        ]
        return set(self._transfer.send_archive(self._resource, entries, self._waiter))

    def _look(self, uploads: Sequence[Upload]) -> Mapping[str, RemoteFile]:
        rows = self._listing()
        for upload in uploads:
            row = rows.get(upload.record.target.path)
            if row is not None and proves(row, upload.record):
                self.stored[upload] = row
        return rows

    def _nothing_stored(self, uploads: Sequence[Upload]) -> NotPermitted:
        target = uploads[0].record.target
        return nothing_stored(f"{target.labels} and {len(uploads) - 1} others", target.account)
