"""Reading versions: hits straight from the store, misses through one transfer for all readers."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from xnatfs.cache.store import BLOCK, SMALL, Content, Store, Verdict
from xnatfs.config import MIB, Limits, StoreSettings
from xnatfs.download.bulk import Bulk
from xnatfs.download.demands import Rules, span
from xnatfs.download.fetcher import Counts, DownloadStats, Fetch
from xnatfs.download.incoming import Incoming
from xnatfs.download.readahead import LAST_WINDOW, Readahead
from xnatfs.download.siblings import Siblings
from xnatfs.errors import XnatfsError
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter, Workers

__all__ = ["DownloadStats", "Downloads", "Fetch", "Reader"]

log = logging.getLogger(__name__)

# The largest window while the store has no room: memory keeps only so much ahead of the reader.
_WINDOW_IN_MEMORY = 4 * MIB


class Downloads:
    """The way in of one mount.

    Args:
        store: where content is kept.
        workers: the threads that fetch.
        limits: ``io_timeout_s`` is used: seconds without progress.
        settings: the store's size, and what to do about contradictions.

    Threading: ``_mu`` guards the table and who is attached to what; it is taken before an
    Incoming's lock, never the other way round, and not held across I/O.
    """

    def __init__(
        self, store: Store, workers: Workers, limits: Limits, settings: StoreSettings
    ) -> None:
        self._store = store
        self._workers = workers
        self._rules = Rules(limits.io_timeout_s, settings.verify == "warn", store.claims)
        self.counts = Counts()
        self.bulk = Bulk(store, workers, settings, self._rules, self.counts)
        self._mu = threading.Lock()
        # The one Incoming of a version that new readers join.
        self._table: dict[str, Incoming] = {}
        # All that have their content open, those that failed and wait for their readers too.
        self._alive: set[Incoming] = set()

    def open(
        self,
        version: Version,
        fetch: Fetch,
        label: str,
        siblings: Callable[[], Siblings] | None = None,
    ) -> Reader:
        """A reader of one version; asks neither the server nor the disk before the first read.

        Args:
            version: the pinned version.
            fetch: how to get its bytes.
            label: the path, for error texts and log lines.
            siblings: tells the resource that it lies in, if that may be fetched as a whole.
        """
        self._store.hold(version)
        return Reader(self, version, fetch, label, siblings)

    def attach(self, reader: Reader, version: Version, fetch: Fetch, label: str) -> Incoming:
        """A reader joins the transfers of a version, and looks into the store."""
        content = self._store.open(version)
        if content.verdict is Verdict.CONTRADICTS:
            if self._rules.lenient:
                log.warning("%s contradicts the catalog; let through", label)
            else:
                content.drop()
        with self._mu:
            incoming = self._table.get(version.key)
            joined = incoming is not None and incoming.failure is None
            if incoming is None or not joined:
                incoming = Incoming(
                    version, content, label, self._workers, self._rules, self.counts, self._left
                )
                self._table[version.key] = incoming
                self._alive.add(incoming)
            incoming.attach(reader, fetch)
        if joined:
            content.close()
        return incoming

    def detach(self, reader: Reader, version: Version, incoming: Incoming | None) -> None:
        """A reader ends."""
        if incoming is not None:
            incoming.detach(reader)
            self._left(incoming)
        self._store.let_go(version)

    def _left(self, incoming: Incoming) -> None:
        """Let go of a version that nobody reads or fetches any more."""
        key = incoming.version.key
        with self._mu:
            if incoming not in self._alive or not incoming.idle():
                return
            self._alive.discard(incoming)
            if self._table.get(key) is incoming:
                del self._table[key]
        incoming.content.close()

    def stats(self) -> DownloadStats:
        """Counts of this process."""
        return self.counts.stats()


class Reader:
    """One opening of one version, for any number of descriptors.

    It joins the version's transfers, and looks into the store, when it is first read: what the
    kernel has in its pages is never asked for.

    Args:
        downloads: of the mount; has a hold on the content, which keeps it from eviction.
        version: what is read.
        fetch: how to get its bytes.
        label: the path, for texts.
        siblings: tells the resource around it.

    Threading: ``_mu`` guards the readahead, what was handed out unverified, and what was taken
    back of it. ``_joining`` lets one thread look into the store. Most openings are never read:
    what reading needs is made when it begins.
    """

    def __init__(
        self,
        downloads: Downloads,
        version: Version,
        fetch: Fetch,
        label: str,
        siblings: Callable[[], Siblings] | None,
    ) -> None:
        self._downloads = downloads
        self._version = version
        self._fetch = fetch
        self._label = label
        self._size = version.size
        # A large file is fetched for itself.
        self._siblings_of = siblings if version.size <= SMALL else None
        self._siblings: Siblings | None = None
        self._joining = threading.Lock()
        self._joined: Incoming | None = None
        self._closed = False
        self._mu: threading.Lock
        self._ahead: Readahead
        # 1 for each block of a large file given to the caller before the whole was checked.
        self._unproven = bytearray()
        self._retracted: XnatfsError | None = None

    @property
    def _incoming(self) -> Incoming:
        if self._joined is None:
            with self._joining:
                if self._joined is None:
                    self._mu = threading.Lock()
                    self._ahead = Readahead(self._size, BLOCK)
                    self._joined = self._downloads.attach(
                        self, self._version, self._fetch, self._label
                    )
        return self._joined

    @property
    def _content(self) -> Content:
        return self._incoming.content

    @property
    def here(self) -> bool:
        """Whether all of it is in the store and was judged."""
        return self._content.verdict is not Verdict.OPEN and self._content.complete()

    @property
    def kept(self) -> bool:
        """Whether what is here is on disk."""
        return self.here and self._content.on_disk

    @property
    def verified(self) -> str:
        """``md5``, ``size`` or ``pending``, for ``user.xnat.verified``."""
        if not self._version.digest:
            return "size"
        verdict = self._content.verdict
        return {Verdict.VERIFIED: "md5", Verdict.CONTRADICTS: "size"}.get(verdict, "pending")

    def read(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """The true bytes from ``offset``, clamped to the end of the file; never short.

        Raises:
            Stale: the server has another version.
            Contradiction: the bytes contradict the catalog, twice the same way.
            ContentProblem: bytes handed out earlier turned out damaged.
            Interrupted, TimedOut: the waiter's; the transfer goes on for others.
            ServerProblem: the transfer failed for good.
        """
        size = min(size, self._size - offset)
        if size <= 0:
            return b""
        self._raise_problem()
        if self._size <= SMALL:
            # Nothing of a small file is handed out before all of it was checked.
            self._note()
            piece = self._bring(offset, size, waiter)
        else:
            self._look_ahead(offset, size)
            piece = self._bring_watched(offset, size, waiter)
        self._downloads.counts.add("served", size)
        return piece

    def _bring(self, offset: int, size: int, waiter: Waiter) -> bytes:
        piece = self._found(offset, size)
        if piece is None and self._siblings is not None:
            self._downloads.bulk.bring(self._siblings, self._version, waiter)
            self._content.look()
            piece = self._found(offset, size)
        if piece is None:
            piece = self._incoming.obtain(offset, size, waiter)
            self._raise_problem()
        return piece

    def _found(self, offset: int, size: int) -> bytes | None:
        """What the store has, unless it is just being compared with the catalog."""
        return None if self._incoming.judging else self._content.read(offset, size)

    def _note(self) -> None:
        if self._siblings is None and self._siblings_of is not None:
            self._siblings = self._siblings_of()
            self._downloads.bulk.note(self._siblings, self._version.path)

    def prefetch(self) -> None:
        """Start bringing the whole of a small file, without waiting."""
        self._incoming.prefetch([(0, self._size)])

    def _bring_watched(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """The bytes of a large file, remembered as unproven until the whole is verified."""
        block = self._content.block
        blocks = span(offset, size, block)
        while not self._content.verified:
            download = self._incoming.downloads
            piece = self._bring(offset, size, waiter)
            with self._mu:
                self._unproven = self._unproven or bytearray(-(-self._size // block))
                before = self._unproven[blocks]
                self._unproven[blocks] = b"\1" * len(before)
            if self._incoming.downloads == download:
                return piece
            # Another download has begun since: these bytes are of the old one.
            with self._mu:
                if self._unproven:
                    self._unproven[blocks] = before
            self._raise_problem()
        return self._bring(offset, size, waiter)

    def _raise_problem(self) -> None:
        problem = self._incoming.failure or self._retracted
        if problem is not None:
            raise problem

    def _look_ahead(self, offset: int, size: int) -> None:
        content = self._content
        if content.verified and content.on_disk:
            return
        most = LAST_WINDOW if content.on_disk else _WINDOW_IN_MEMORY
        with self._mu:
            windows = self._ahead.advance(offset, size, most)
        if windows:
            self._downloads.counts.add("windows", len(windows))
            self._incoming.prefetch(windows)

    def retract(self, blocks: set[int], error: XnatfsError) -> None:
        """See Witness."""
        with self._mu:
            if self._unproven and any(self._unproven[index] for index in blocks):
                self._retracted = error
            self._unproven = bytearray()

    def close(self) -> None:
        """End the opening; a transfer nobody waits for is given up. Never raises."""
        with self._joining:
            joined, self._joined = self._joined, None
            closed, self._closed = self._closed, True
        if not closed:
            self._downloads.detach(self, self._version, joined)
