"""From the spool to the server: one upload at a time per resource, verified, retried."""

from __future__ import annotations

from collections.abc import Callable

from xnatfs.config import Limits
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.rest.archive import Archive
from xnatfs.rest.transfer import Transfer
from xnatfs.upload.receipts import Receipts
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter


class Uploader:
    """Sends uploads and sees to it that the server holds them."""

    def __init__(
        self,
        archive: Archive,
        transfer: Transfer,
        receipts: Receipts,
        limits: Limits,
        on_listing: Callable[[Item, list[RemoteFile]], None],
    ) -> None: ...

    def send(self, upload: Upload, resource: Item, waiter: Waiter) -> RemoteFile:
        """Send a sealed (or failed) upload; returns what the server now holds.

        On an error other than Interrupted the record is FAILED or CONFLICT, with the reason.

        Raises: AlreadyExists, Conflict, NotPermitted, BadName, LoginRefused, ServerProblem,
            WaitEnded, SpaceProblem (the server's quota), DiskFault.
        """
        raise NotImplementedError

    def settle(self, waiter: Waiter) -> None:
        """See the MD5s still owed: one listing per resource."""

    def owed(self) -> int:
        """How many files the server has taken whose MD5 was not seen yet."""
        raise NotImplementedError
