"""What a mount still has to send: at its end, and what dead mounts have left."""

from __future__ import annotations

import logging
from contextlib import suppress

from xnatfs.errors import AlreadyExists, Conflict, Protected, ServerFault, XnatfsError
from xnatfs.fs.names import NameClass, classify
from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.parts import Parts
from xnatfs.model.entities import Item
from xnatfs.model.levels import BY_COLLECTION, RESOURCE
from xnatfs.model.versions import Version
from xnatfs.upload.queue import Queue, Row, Standing
from xnatfs.upload.record import Base, State
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# How long the end of a mount waits for a request that is on its way. Seconds.
_STOP_S = 2.0


class SendOff:
    """Sends what waits, of one mount.

    Threading: no state of its own.
    """

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._queue = Queue(parts.settings.spool)
        # Resources that were made for uploads, by the address that these have.
        self._made: dict[str, Item] = {}

    def drain(self, waiter: Waiter) -> None:
        """Send what is complete; returns when all of it is on the server, or was refused.

        What somebody still writes is not complete.

        Raises: TimedOut, Interrupted: the waiter ended first.
        """
        parts = self._parts
        for file in parts.files.all():
            if file.unsealed and not file.local_only and not parts.files.written_to(file):
                file.finish(waiter)
        parts.outbox.drain(waiter)
        parts.run(parts.uploader.settle, "the last verification", waiter)

    def recover(self) -> None:
        """Take over what dead mounts of this account had sealed, and send it. Never raises."""
        try:
            rows = self._queue.rows()
        except XnatfsError as error:
            log.warning("cannot look for what other mounts left: %s", error)
            return
        left = [row for row in rows if row.standing is Standing.FREE and self._is_sealed(row)]
        for row in self._queue.latest(left):
            try:
                self.take(row)
            except XnatfsError as error:
                log.warning("cannot take over %s: %s", row.id, error)

    def take(self, row: Row, *, force: bool = False) -> bool:
        """Take over an upload of a mount that is gone, show it, and send it.

        Args:
            row: as ``Queue.rows`` has it.
            force: even if its process is not known to be dead.

        Returns: False: not now, another upload to that name has to be decided first.

        Raises: Protected: it is at work, or it was never sealed. Conflict: somebody else's
            version is in its way. What ``Queue.take`` raises.
        """
        parts, record = self._parts, row.record
        if record is not None and not record.md5:
            raise Protected(
                f"{record.target.labels} was not written to its end; "
                f"`xnatfs uploads export` saves what there is"
            )
        if record is not None and record.state is State.CONFLICT:
            raise Conflict(record.last_error)
        if record is not None and parts.files.find(record.target.item(), record.target.path):
            return False
        upload = self._queue.take(row, parts.spool, force=force)
        if upload is not None:
            # Whoever had it may have sent it.
            upload.doubt()
            self._make_resource(upload)
            self._post(upload)
        return True

    def end(self) -> None:
        """Nothing more is sent: leave the rest to the next mount. Never raises."""
        parts = self._parts
        idle = parts.outbox.stop(Waiter(total_s=_STOP_S))
        for file in parts.files.all():
            if file.unsealed:
                self._keep(file)
        parts.groups.end()
        if idle:
            parts.spool.release()
        # Else another process must not begin before this one is surely dead.

    def _keep(self, file: OpenFile) -> None:
        """Make what is not complete survive, to be looked at."""
        try:
            file.fsync(Waiter())
        except XnatfsError as error:
            log.error("%s: %s", file.label, error)

    def _is_sealed(self, row: Row) -> bool:
        record = row.record
        if record is None or record.state is not State.SEALED:
            return False
        if classify(record.target.path.rpartition("/")[2]) is not NameClass.REAL:
            # A temporary name: it is named at the end of a mount, and waits for a person.
            return False
        return (record.target.server, record.target.account) == self._parts.spool.account

    def _make_resource(self, upload: Upload) -> None:
        """Where an upload of a mount without a network goes is made now, or shown until then."""
        parts, target = self._parts, upload.record.target
        if target.is_made:
            return
        wanted = target.item()
        if parts.settings.offline:
            parts.overlay.add_resource(wanted)
            return
        made = self._made.get(wanted.address)
        if made is None:
            made = parts.run(
                lambda worker: self._ask_for(wanted, worker),
                f"the new resource of {target.labels}",
                parts.patient(),
            )
            self._made[wanted.address] = made
            parts.listings.forget(owner_of(wanted))
        parts.readdress(upload, made, target.path, target.labels, None)

    def _ask_for(self, wanted: Item, waiter: Waiter) -> Item:
        """The resource of that label, made if need be. On a worker."""
        archive, owner = self._parts.archive, owner_of(wanted)
        with suppress(AlreadyExists):
            archive.create_resource(owner, wanted.label, waiter)
        below = owner.address + RESOURCE.listing
        for item in archive.resources(owner, waiter):
            if item.label == wanted.label and item.address.rpartition("/")[0] == below:
                return item
        raise ServerFault(f"the server made {wanted.address}, but does not list it")

    def _post(self, upload: Upload) -> None:
        parts, target = self._parts, upload.record.target
        resource = target.item()

        base = _version(target.resource_id, target.path, upload.record.base)
        made = OpenFile(parts, resource, target.path, target.labels, base, upload=upload)
        file = parts.files.hold(resource, target.path, lambda: made)
        if file is made:
            if base is None:
                parts.overlay.add_file(resource, target.path)
            parts.post(file)
        else:
            log.warning("%s was made anew; what was left of it stays", target.labels)
        parts.files.let_go(file)


def owner_of(resource: Item) -> Item:
    """The object that a resource belongs to, by its address alone."""
    address = resource.address.rpartition(RESOURCE.listing + "/")[0]
    collection, id_ = address.rsplit("/", 2)[1:]
    return Item(BY_COLLECTION[collection], id_, "", address, {})


def _version(resource_id: str, path: str, base: Base | None) -> Version | None:
    if base is None:
        return None
    return Version(resource_id, path, base.size, base.digest, base.modified)
