"""One version on its way in, shared by all readers that this process has of it.

A block that is missing is carried by exactly one transfer, whoever asks for it; transfers run on
workers, readers wait here and may leave while the transfer goes on for the others.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from xnatfs.cache.claims import Claim
from xnatfs.cache.content import SMALL, Content, Verdict
from xnatfs.download.comparison import Comparison
from xnatfs.download.demands import (
    Arrivals,
    Demand,
    Rules,
    Transfer,
    Witness,
    blocks_of,
    on_their_way,
    runs_of,
)
from xnatfs.download.digest import RunningDigest, judge
from xnatfs.download.fetcher import Counts, Fetch, Line, transfer
from xnatfs.download.flight import bring
from xnatfs.download.sinks import BlockSink
from xnatfs.download.whole import check_modified, download_whole
from xnatfs.errors import ContentProblem, Interrupted, ServerFault, Stale, XnatfsError
from xnatfs.model.entities import Head
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)


class Incoming:
    """The transfers and waiting readers of one version.

    Args:
        version: the pinned version.
        content: its place in the store; open until this Incoming is ``idle``.
        label: the path, for texts.
        workers: the threads that fetch.
        rules: patience and strictness.
        counts: of the mount.
        left: called on a worker after each transfer, without a lock.

    Threading: ``_mu``, and the condition ``_moved`` on it, guard everything but ``_moved_at`` (a
    clock reading that only moves on) and ``_digest`` (which locks itself). It is not held across
    network or disk. ``failure`` and ``judging`` are read without it on the way of hits, where
    being late by one read does no harm.
    """

    def __init__(
        self,
        version: Version,
        content: Content,
        label: str,
        workers: Workers,
        rules: Rules,
        counts: Counts,
        left: Callable[[Incoming], None],
    ) -> None:
        self.version = version
        self.content = content
        self.label = label
        # Set once; every reader gets it from then on.
        self.failure: XnatfsError | None = None
        # Grows when the whole is dropped to be downloaded again; read without the lock.
        self.downloads = 1
        self._fetch: Fetch
        self._workers = workers
        self._rules = rules
        self._counts = counts
        self._left = left
        self._mu = threading.Lock()
        self._moved = threading.Condition(self._mu)
        self._moved_at = 0.0
        self._readers: set[Witness] = set()
        self._transfers: list[Transfer] = []
        self._demands: set[Demand] = set()
        self._digest = RunningDigest(content)
        self._comparison = Comparison(version, label, lenient=rules.lenient)
        # Last-Modified of what is here, or of the first reply; every range must have the same.
        self._modified = version.modified or content.modified
        self._arrivals = Arrivals(content)

    # readers come and go

    def attach(self, reader: Witness, fetch: Fetch) -> None:
        """A reader more; its ``fetch``, the youngest, is used from now on."""
        with self._mu:
            self._readers.add(reader)
            self._fetch = fetch

    def detach(self, reader: Witness) -> None:
        """A reader less; windows that nobody waits for are given up."""
        with self._mu:
            self._readers.discard(reader)

    def idle(self) -> bool:
        """Whether neither a reader nor a transfer is left."""
        with self._mu:
            return not self._readers and not self._transfers

    @property
    def judging(self) -> bool:
        """Whether the whole has come and is being compared with the catalog."""
        return self._arrivals.judging

    # reads

    def obtain(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """The bytes, waiting for what is missing.

        Args:
            offset: bytes.
            size: bytes, at least 1 and not beyond the end.
            waiter: the limits of this wait; the transfers do not end with it.

        Raises:
            ContentProblem: the version's; ServerProblem, TimedOut: the transfer's.
            Interrupted, TimedOut: the waiter's.
        """
        block = self.content.block
        demand = Demand(range(offset // block, (offset + size - 1) // block + 1))
        while True:
            with self._mu:
                if self._collect(demand, waiter):
                    continue
            found = demand.assemble(self.content, offset, size)
            if found is not None:
                return found

    def _collect(self, demand: Demand, waiter: Waiter) -> bool:
        """Wait for one thing that the demand lacks; False when it lacks nothing. Holds _mu."""
        self._raise_failure()
        if self.judging:
            if self._arrivals.take_up():
                self._start(self.version.size, self.version.size, self._judge)
            self._wait(lambda: not self.judging, waiter)
            return True
        lacking = demand.lacking(self.content)
        if not lacking:
            return False
        carriers = self._carriers(lacking)
        self._demands.add(demand)
        try:
            self._wait(
                lambda: (
                    all(index in demand.pieces for index in lacking)
                    or any(carrier.ended for carrier in carriers.values())
                ),
                waiter,
            )
        finally:
            self._demands.discard(demand)
        for index in demand.lacking(self.content):
            error = carriers[index].error if index in carriers else None
            # Given up because all readers had gone, just as this one came: ask again.
            if error is not None and not isinstance(error, Interrupted):
                raise error
        return True

    def _wait(self, met: Callable[[], bool], waiter: Waiter) -> None:
        seen = 0.0

        def look() -> bool:
            nonlocal seen
            if self._moved_at != seen:
                seen = self._moved_at
                waiter.progress()
            return met() or self.failure is not None

        waiter.until(self._moved, look, self.label)

    def _raise_failure(self) -> None:
        if self.failure is not None:
            raise self.failure

    def prefetch(self, windows: Iterable[tuple[int, int]]) -> None:
        """Start what is neither here nor on its way of these windows; waits for nothing."""
        block = self.content.block
        with self._mu:
            if self.failure is not None or self.judging:
                return
            for start, length in windows:
                wanted = [
                    index
                    for index in blocks_of(self.content.missing(start, length), block)
                    if not any(carrier.brings(index * block) for carrier in self._transfers)
                ]
                self._start_runs(wanted)

    def _carriers(self, lacking: list[int]) -> dict[int, Transfer]:
        """Who brings each block; starts what is not on its way."""
        block = self.content.block
        carriers = on_their_way(lacking, self._transfers, block)
        self._start_runs([index for index in lacking if index not in carriers])
        return on_their_way(lacking, self._transfers, block)

    def _start_runs(self, indexes: list[int]) -> None:
        block = self.content.block
        for first, last in runs_of(indexes):
            self._start(first * block, min(last * block, self.version.size), self._bring)

    def _start(self, start: int, end: int, work: Callable[[Transfer], None]) -> Transfer:
        carrier = Transfer(start, end)
        self._transfers.append(carrier)
        self._workers.submit(self._run, carrier, work)
        return carrier

    # on workers

    def _run(self, carrier: Transfer, work: Callable[[Transfer], None]) -> None:
        error: XnatfsError | None = None
        try:
            work(carrier)
        except XnatfsError as problem:
            error = problem
        except Exception as problem:
            # A fault of ours must reach the readers too: they would wait for ever.
            log.exception("%s: the transfer failed", self.label)
            error = ServerFault(f"{self.label}: {type(problem).__name__} in a transfer")
        if isinstance(error, ContentProblem):
            self._fail(error)
        with self._mu:
            carrier.error = error
            carrier.ended = True
            self._transfers.remove(carrier)
            self._moved.notify_all()
        self._left(self)

    def _fail(self, error: XnatfsError) -> None:
        with self._mu:
            self.failure = self.failure or error
        self.content.drop()

    def _line(self, claim: Claim | None = None) -> Line:
        def progress() -> None:
            self._progress()
            if claim is not None:
                claim.beat()

        return Line(
            fetch=self._fetch,
            modified=self._modified,
            label=self.label,
            idle_s=self._rules.idle_s,
            given_up=self._given_up,
            progress=progress,
            counts=self._counts,
        )

    def _given_up(self) -> bool:
        # A small file is worth finishing: who left by Ctrl-C often comes back.
        return self.failure is not None or (self.version.size > SMALL and not self._readers)

    def _progress(self) -> None:
        self._moved_at = time.monotonic()

    def _bring(self, carrier: Transfer) -> None:
        """Fetch what no other process is fetching, and take over the rest."""
        small = self.version.size <= SMALL

        def take(start: int, piece: bytes) -> bool:
            if not small:
                return self._arrive(carrier, start, piece)
            with self._mu:
                self._deliver(carrier, 0, piece)
            return True

        def fetch(start: int, end: int, claim: Claim) -> None:
            if small:
                take(0, self._bring_whole(claim))
                return
            try:
                self._transfer(self._line(claim), start, end, take)
            finally:
                self.content.checkpoint()

        bring(
            self._rules.claims,
            self.version.key,
            self.content,
            (carrier.start, carrier.end),
            take,
            fetch,
            self._progress,
            Waiter(idle_s=self._rules.idle_s, interrupted=self._given_up),
        )

    def _bring_whole(self, claim: Claim) -> bytes:
        lenient = self._rules.lenient
        body, verdict = download_whole(self._line(claim), self.version, lenient=lenient)
        self.content.put(0, body)
        if verdict is Verdict.CONTRADICTS:
            self.content.mark_contradicting()
        else:
            self.content.mark_verified()
        return body

    def _transfer(
        self, line: Line, start: int, end: int, hand_on: Callable[[int, bytes], bool]
    ) -> None:
        sink = BlockSink(start, end, self.content.block, hand_on, self.label)
        self._check(transfer(line, sink, end))

    def _check(self, head: Head | None) -> None:
        if head is None:
            return
        if head.size is not None and head.size != self.version.size:
            raise Stale(f"{self.label}: the server has {head.size} bytes, not {self.version.size}")
        check_modified(self._modified, head, self.label)
        if not self._modified:
            with self._mu:
                self._modified = self._modified or head.modified
            self.content.modified = self._modified

    def _arrive(self, carrier: Transfer, start: int, piece: bytes) -> bool:
        """Blocks have come: keep them, give them to who waits; False when they are damaged."""
        with self._mu:
            self._arrivals.came(start, len(piece))
        kept = False
        try:
            kept = self._put(start, piece)
        finally:
            with self._mu:
                self._arrivals.put(start, len(piece), kept=kept)
                if kept and not self.judging:
                    self._deliver(carrier, start, piece)
                judge_now = kept and self._arrivals.take_up()
        if self.failure is not None:
            # The content was dropped meanwhile and may be used anew: these are of the old one.
            self.content.drop()
            raise self.failure
        if judge_now:
            self._judge(carrier)
        return kept

    def _put(self, start: int, piece: bytes) -> bool:
        kept = self.content.put(start, piece)
        self._digest.advance(len(piece))
        return kept

    def _deliver(self, carrier: Transfer, start: int, piece: bytes) -> None:
        carrier.at = max(carrier.at, start + len(piece))
        for demand in self._demands:
            demand.take(start, piece, self.content.block)
        self._moved.notify_all()

    # the whole of a large file

    def _judge(self, carrier: Transfer) -> None:  # noqa: ARG002 -- it works for a carrier
        """Compare the whole with the catalog; on a mismatch download it once more."""
        try:
            damaged = judge(
                self.version,
                self.content,
                self._digest,
                self._comparison,
                self._download_again,
                self._progress,
            )
            self._retract(damaged)
        except ContentProblem as error:
            self._fail(error)
        except XnatfsError as error:
            # Bytes that may be wrong were handed out: a connection that breaks now must not hide
            # that, nor must a reader that leaves.
            self._fail(ContentProblem(f"{self.label}: arrived damaged, and not again: {error}"))
        finally:
            with self._mu:
                self._arrivals.settle()
                self._moved.notify_all()

    def _download_again(self) -> None:
        # Before the drop: a read that began earlier and ends now must see that it is outdated.
        self.downloads += 1
        self.content.drop()
        self._digest.reset()
        self._transfer(self._line(), 0, self.version.size, self._put)

    def _retract(self, damaged: set[int]) -> None:
        if not damaged:
            return
        error = ContentProblem(
            f"{self.label}: bytes that were read earlier had been damaged on the way; read it again"
        )
        with self._mu:
            readers = list(self._readers)
        for reader in readers:
            reader.retract(damaged, error)
