"""What one mount is made of, wired together in the process that serves it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from hashlib import sha256
from typing import TypeVar

from xnatfs.cache.store import Store
from xnatfs.config import Settings
from xnatfs.download.reader import Downloads, Reader
from xnatfs.download.siblings import Siblings
from xnatfs.errors import (
    Interrupted,
    NotFound,
    ServerFault,
    SpaceProblem,
    Stale,
    XnatfsError,
)
from xnatfs.fs.appearance import Appearance
from xnatfs.fs.files import Files
from xnatfs.fs.neighbours import siblings_of
from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.rights import Rights
from xnatfs.fs.states import Reading
from xnatfs.fs.tally import Tally
from xnatfs.model.entities import Head, Item, RemoteFile
from xnatfs.model.versions import Version
from xnatfs.rest.archive import Archive
from xnatfs.rest.session import Session
from xnatfs.rest.transfer import Transfer
from xnatfs.tree.listings import Listings
from xnatfs.tree.namespace import Namespace
from xnatfs.tree.node import Node
from xnatfs.tree.overlay import Overlay
from xnatfs.tree.sharing import Sharing
from xnatfs.upload.groups import GroupCommit
from xnatfs.upload.outbox import Outbox
from xnatfs.upload.receipts import Receipts
from xnatfs.upload.record import Base, Target
from xnatfs.upload.spool import Spool
from xnatfs.upload.upload import Upload
from xnatfs.upload.uploader import Uploader
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)

T = TypeVar("T")

# Threads beyond the connections: a worker that waits for its turn at a resource or for the disk
# holds no connection.
SPARE_WORKERS = 8

# A DICOM file begins with 128 bytes of anything and this mark (DICOM PS3.10, 7.1).
DICOM_MARK_AT, DICOM_MARK = 128, b"DICM"


def store_key(server: str, account: str) -> str:
    """The folder of one server and account in the store.

    What one account may read, another may not, even of the same person.
    """
    return sha256(f"{server}\0{account}".encode()).hexdigest()[:16]


class Parts:
    """The parts of one mount; ``states.Ways`` for its open files.

    Threading: every part guards itself.
    """

    def __init__(self, settings: Settings, session: Session, mount: str) -> None:
        limits = settings.limits
        self.settings = settings
        self.session = session
        self.workers = Workers(settings.server.connections + SPARE_WORKERS, "xnatfs")
        # Uploads wait for their turn at a resource: they must not keep readers from a worker.
        self.senders = Workers(settings.server.connections + SPARE_WORKERS, "xnatfs-send")
        self.archive = Archive(session, settings.server.reason)
        self.transfer = Transfer(session, settings.server.reason)
        self.store = Store(settings.store, store_key(session.url, session.user))
        self.store.sign(session.url, session.user)
        sharing = Sharing(self.store.shelf, self.store.claims, self._gone, offline=settings.offline)
        self.listings = Listings(self.archive, self.workers, limits, sharing)
        self.overlay = Overlay()
        self.names = Namespace(self.listings, self.overlay, limits, settings.view.scan_names)
        self.downloads = Downloads(self.store, self.workers, limits, settings.store)
        self.receipts = Receipts(settings.state_folder, session.url, session.user)
        self.spool = Spool(settings.spool, session.url, session.user, mount)
        self.uploader = Uploader(
            self.archive, self.transfer, self.receipts, limits, self._on_listing, self._on_stored
        )
        self.outbox = Outbox(self.uploader, self.senders, limits)
        self.groups = GroupCommit(settings.spool.folder)
        self.rights = Rights(
            settings, self.listings, self.archive, self.receipts, self.spool, self.run
        )
        self.appearance = Appearance(settings.view)
        self.files = Files(limits.kernel_ttl_s)
        self.started = time.time()
        self.tally = Tally()

    # -- waiting

    def patient(self) -> Waiter:
        """The waiter of work on a worker: as long as it moves."""
        return Waiter(idle_s=self.settings.limits.io_timeout_s)

    def run(self, work: Callable[[Waiter], T], what: str, waiter: Waiter) -> T:
        """Do ``work`` on a worker and wait for it; an interrupted wait leaves it running."""
        patient = self.patient()
        return waiter.result(self.workers.submit(work, patient), what, patient)

    # -- states.Ways

    def open_source(self, resource: Item, version: Version, label: str) -> Reader:
        """A way to read a version: the store, and the server behind it."""

        def fetch(
            start: int,
            length: int | None,
            modified: str,
            sink: Callable[[bytes], None],
            waiter: Waiter,
        ) -> Head:
            # A whole file is not compared with the size of the catalog here: ``download`` tells
            # a catalog that is out of date from a file that was replaced.
            whole = start == 0 and length is None
            return self.transfer.fetch(
                resource,
                version.path,
                sink,
                waiter,
                start=start,
                length=length,
                size=None if whole else version.size,
                modified=modified,
            )

        def siblings() -> Siblings:
            return siblings_of(self, resource, label.removesuffix(version.path))

        return self.downloads.open(version, fetch, label, siblings)

    def new_upload(
        self,
        resource: Item,
        path: str,
        label: str,
        base: Version | None,
        old: Iterator[bytes] | None,
        before: Upload | None = None,
    ) -> Upload:
        """An upload in the spool, with ``old`` as its first content, instead of ``before``."""
        perhaps = before.record.perhaps if before else ()
        return self.spool.new(self._target(resource, path, label), base, old, perhaps)

    def readdress(
        self,
        upload: Upload,
        resource: Item,
        path: str,
        label: str,
        base: Version | None,
        *,
        surely: bool = True,
    ) -> None:
        """What is in the spool goes to another name."""
        target = self._target(resource, path, label)
        upload.readdress(target, None if base is None else Base.of(base), surely=surely)

    def _target(self, resource: Item, path: str, label: str) -> Target:
        return Target(
            server=self.session.url,
            account=self.session.user,
            labels=label,
            resource=resource.address,
            resource_id=resource.id,
            path=path,
        )

    @property
    def write_back(self) -> bool:
        """Whether a close is content with the spool."""
        return self.settings.spool.write_back or self.settings.offline

    def seal(self, upload: Upload) -> None:
        """The content is complete; within seconds it survives a power loss."""
        # Before the seal, which closes the file.
        is_dicom = upload.read(DICOM_MARK_AT, len(DICOM_MARK)) == DICOM_MARK
        upload.seal()
        self.groups.add(upload)
        if is_dicom:
            log.warning(
                "%s: DICOM that is written into the archive goes past the site's anonymisation",
                upload.record.target.labels,
            )

    def send(self, resource: Item, upload: Upload, waiter: Waiter) -> RemoteFile:
        """Send an upload; the names show it at once."""
        self.seal(upload)
        row = self.uploader.send(upload, resource, waiter)
        self.overlay.remove_file(resource, row.path)
        self.tally.sent(upload.size)
        return row

    def post(self, file: OpenFile) -> None:
        """Send a sealed file in the background."""
        if not self.settings.offline:
            self.outbox.post(file)

    def decided(self, file: OpenFile) -> None:
        """A file that was sent in the background is on the server, or never will be."""
        state = file.state
        ends = self.files.decided(file)
        if isinstance(state, Reading):
            self.tally.sent(state.version.size)
        if ends or isinstance(state, Reading):
            self.overlay.remove_file(file.resource, file.path)

    def look(self, resource: Item, upload: Upload, waiter: Waiter) -> RemoteFile | None:
        """Whether the server has an upload whose answer was lost."""
        what = f"a look at {upload.record.target.labels}"
        row = self.run(lambda worker: self.uploader.look(upload, resource, worker), what, waiter)
        if row is not None:
            self.overlay.remove_file(resource, row.path)
            self.tally.sent(row.size or 0)
        return row

    def find_room(self, change: Callable[[], T], waiter: Waiter) -> T:
        """Make a change in the spool, as often as what leaves it makes room.

        Raises: what ``change`` raises when nothing leaves it any more.
        """
        while True:
            try:
                return change()
            except SpaceProblem as error:
                if not self._make_room(waiter):
                    raise error from None

    def _make_room(self, waiter: Waiter) -> bool:
        """Wait until uploads have left the spool; False when none does."""
        owed = self.uploader.owed()
        try:
            if self.outbox.make_progress(waiter):
                return True
            if owed:
                self.run(self.uploader.settle, "room in the spool", waiter)
        except Interrupted:
            raise
        except XnatfsError as error:
            log.info("no room in the spool: %s", error)
            return False
        return self.uploader.owed() < owed

    def submit(self, work: Callable[[], None]) -> Future[None]:
        """Run on a sender."""
        return self.senders.submit(work)

    # -- versions

    def sized(self, resource: Item, row: RemoteFile, waiter: Waiter) -> RemoteFile:
        """The row with its size; a HEAD where the listing has none."""
        if row.size is not None:
            return row
        head = self._head(resource, row, waiter)
        full = replace(row, size=head.size or 0)
        self.listings.learned(resource, full)
        return full

    def size(self, node: Node, waiter: Waiter) -> int:
        """Bytes of a file; whoever is told them opens the version that has them.

        Raises: NotFound: it is gone.
        """
        file = self.files.find(node.item, node.inner)
        if file is not None:
            return file.size
        if node.file is None:
            # It was only here, and has arrived at the server meanwhile.
            node = self.names.lookup(node.path, waiter)
        if node.file is None:
            raise NotFound(f"{node.path} is gone")
        row = self.sized(node.item, self.listings.latest(node.item, node.file), waiter)
        self.files.told(node.path, row)
        return row.size or 0

    def version(self, resource: Item, row: RemoteFile, waiter: Waiter) -> Version:
        """The version that a row of a listing means; a HEAD where there is no digest.

        Raises: Stale: the server's file has another size than the listing says.
        """
        if row.digest and row.size is not None:
            return Version(row.resource_id, row.path, row.size, row.digest)
        if self.settings.offline and row.modified and row.size is not None:
            return Version(row.resource_id, row.path, row.size, "", row.modified)
        head = self._head(resource, row, waiter)
        size = head.size if head.size is not None else row.size or 0
        if row.size is not None and size != row.size:
            self.listings.forget(resource)
            raise Stale(
                f"{row.path}: the catalog says {row.size} bytes, the server holds {size}: "
                "the catalog is out of date, or the file was just replaced"
            )
        self.listings.learned(resource, replace(row, size=size, modified=head.modified))
        return Version(row.resource_id, row.path, size, row.digest, head.modified)

    def _head(self, resource: Item, row: RemoteFile, waiter: Waiter) -> Head:
        return self.run(
            lambda worker: self.archive.head(resource, row.path, worker), row.path, waiter
        )

    # -- deletes

    def delete(
        self, resource: Item, path: str, version: Version, label: str, waiter: Waiter
    ) -> None:
        """Remove one file from the server, exactly, and look whether only that one is gone.

        Args:
            resource: whose file.
            path: below ``files``.
            version: the one that may be removed, by which the rights were judged.
            label: path in the mount, for people.
            waiter: the limits of the caller's wait.

        Raises: NotFound, NotPermitted, BadName (it cannot be addressed exactly), ServerFault.
            Stale: another version stands there by now.
        """
        self.run(
            lambda worker: self._delete(resource, path, version, label, worker),
            f"the removal of {label}",
            waiter,
        )

    def _delete(
        self, resource: Item, path: str, version: Version, label: str, waiter: Waiter
    ) -> None:
        with self.uploader.turn(resource.id, waiter):
            asked = time.monotonic()
            before = self.archive.files(resource, waiter)
            row = next((row for row in before if row.path == path), None)
            if row is None or not self._still(resource, row, version, waiter):
                self.listings.forget(resource)
                self.listings.put_files(resource, before, asked)
                if row is None:
                    raise NotFound(f"{label} is not on the server any more")
                raise Stale(f"{label} was changed on the server meanwhile; it is left there")
            self.archive.delete_file(resource, path, before, waiter)
            self.uploader.removed(resource, path)
            self.listings.own_file(resource, path, None)
            asked = time.monotonic()
            after = self.archive.files(resource, waiter)
            left = {row.path for row in after}
            if path not in left:
                # In its turn: a file that gets the name next must keep its own receipt.
                self.receipts.remove(resource.id, path)
        self.overlay.keep_folders(resource, path)
        self.listings.put_files(resource, after, asked)
        lost = sorted(row.path for row in before if row.path not in left and row.path != path)
        if lost:
            raise ServerFault(f"removing {label} also removed {', '.join(lost)}")
        if path in left:
            raise ServerFault(f"the server did not remove {label} although it said so")

    def _still(self, resource: Item, row: RemoteFile, version: Version, waiter: Waiter) -> bool:
        """Whether a row of a fresh listing is that version. On a worker."""
        if row.size not in (None, version.size):
            return False
        if row.digest or version.digest:
            return row.digest == version.digest
        if not version.modified:
            # Sent by this very open file to a server without digests: the size has to do.
            return True
        return self.archive.head(resource, row.path, waiter).modified == version.modified

    # -- the books

    def changed(self, file: OpenFile) -> None:
        """The content of a file was just changed here."""
        self.files.changed(file)
        self.appearance.touched(file.resource, file.path, time.time())

    def _gone(self, row: RemoteFile) -> None:
        """A listing does not show a file any more that it showed before."""
        version = Version(row.resource_id, row.path, row.size or 0, row.digest, row.modified)
        self.store.discard(version)

    def _on_stored(self, resource: Item, row: RemoteFile) -> None:
        self.listings.own_file(resource, row.path, row)

    def _on_listing(self, resource: Item, rows: list[RemoteFile]) -> None:
        # Made within the resource's turn: no change of ours to it is later than the listing.
        self.listings.put_files(resource, rows, time.monotonic())
