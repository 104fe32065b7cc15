"""The background sender: what was closed and is not on the server yet.

One lane for each resource, several lanes at once. A lane takes what has waited long enough, small
files together (``Uploader.send_all``); what fails for now comes again after a pause that grows.

Whoever posts a parcel keeps it until it is claimed, and gets it back with its fate. What was
taken back, renamed or written again meanwhile is not claimed under its old name.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Protocol

from xnatfs.config import MIB, Limits
from xnatfs.errors import BadReply, Interrupted, ServerBusy, ServerFault, XnatfsError
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.upload.outcomes import may_pass
from xnatfs.upload.upload import Upload
from xnatfs.upload.uploader import Uploader
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)

# What is closed is often renamed, removed or written again at once: nothing is sent before it
# has lain for this long. Seconds.
LINGER_S = 0.05

# A lane rests before its first run and between two: what is written one after the other goes
# together. Seconds.
REST_S = 0.1

# Pauses between attempts double from the first to the longest; each is shortened by up to half
# at random. Seconds.
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 300.0
# … while somebody waits for the end.
LONGEST_DRAIN_PAUSE_S = 5.0

# What one lane claims at a time: nobody can rename what is claimed, and each of them has a
# descriptor from its arrival to the end of its run; many systems allow a process 1,024.
MOST_CLAIMED = 400
MOST_CLAIMED_BYTES = 64 * MIB


class Parcel(Protocol):
    """A sealed upload that waits, and whoever keeps it."""

    @property
    def resource(self) -> Item:
        """Where it goes."""

    @property
    def held(self) -> bool:
        """Whether it is sent only when everything is (``drain``)."""

    def claim(self, wanted: threading.Event) -> Upload | None:
        """Let nobody change it until one of the three below is called.

        Args:
            wanted: set when somebody wants to change it meanwhile.

        Returns: the upload; None: it is not to be sent, or is being changed (then it is posted
            again after that).
        """

    def arrived(self, row: RemoteFile) -> None:
        """The server has it."""

    def refused(self, error: XnatfsError) -> None:
        """It does not go, for good."""

    def put_back(self) -> None:
        """Not now: it stays posted."""


@dataclass(slots=True)
class _Lane:
    """What waits for one resource."""

    resource: Item
    # Parcel → monotonic time from which on it may be claimed.
    waiting: dict[Parcel, float] = field(default_factory=dict)
    # Monotonic time at which the lane is to be looked at.
    due: float = inf
    pause_s: float = FIRST_PAUSE_S
    # The server is away or busy: new parcels do not shorten the pause.
    troubled: bool = False
    busy: bool = False
    # Monotonic time at which it has rested since its last run.
    rested: float = 0.0

    def next_due(self, *, draining: bool) -> float:
        ready = (at for parcel, at in self.waiting.items() if draining or not parcel.held)
        return min(ready, default=inf)


def _works(lane: _Lane) -> bool:
    return lane.busy or bool(lane.waiting)


class Outbox:
    """What waits to be sent, by resource.

    Args:
        uploader: the way to the server.
        workers: where lanes run.
        limits: how long a transfer may stand still.

    Threading: ``_mu`` guards everything; parcels and the uploader are called without it. A thread
    of its own starts the lanes that are due.
    """

    def __init__(self, uploader: Uploader, workers: Workers, limits: Limits) -> None:
        self._uploader = uploader
        self._workers = workers
        self._limits = limits
        self._mu = threading.Condition()
        self._lanes: dict[str, _Lane] = {}
        self._started = False
        self._stopped = False
        # How many wait for the end of everything.
        self._drains = 0
        # How often anything moved: bytes, or a parcel whose fate is known.
        self._moves = 0
        self._decided = 0

    def post(self, parcel: Parcel) -> None:
        """Send it when it has lain for a moment; once more is the same as once."""
        with self._mu:
            if self._stopped:
                return
            lane = self._lanes.setdefault(parcel.resource.id, _Lane(parcel.resource))
            if not lane.waiting and not lane.busy:
                # The first of perhaps many.
                lane.rested = max(lane.rested, time.monotonic() + REST_S)
            if parcel not in lane.waiting:
                self._put(lane, parcel, 0.0 if self._drains else LINGER_S)
            if not self._started:
                self._started = True
                threading.Thread(target=self._dispatch, name="outbox", daemon=True).start()

    def drain(self, waiter: Waiter) -> None:
        """Send everything now, also what is held; returns when nothing is left.

        Raises: TimedOut, Interrupted: the waiter ended first, or nothing moved for as long as a
            transfer may stand still.
        """
        with self._mu:
            self._drains += 1
            try:
                self._hurry()
                self._await(lambda: not any(map(_works, self._lanes.values())), waiter, "uploads")
            finally:
                self._drains -= 1

    def make_progress(self, waiter: Waiter) -> bool:
        """Wait until something was decided; False at once when nothing is on its way.

        Raises: as ``drain``.
        """
        with self._mu:
            decided = self._decided

            def on_its_way() -> bool:
                return any(
                    lane.busy or lane.next_due(draining=self._drains > 0) < inf
                    for lane in self._lanes.values()
                )

            if not on_its_way():
                return False
            self._hurry()
            self._await(
                lambda: self._decided != decided or not on_its_way(), waiter, "room in the spool"
            )
            return True

    def stop(self, waiter: Waiter) -> bool:
        """Send nothing more; returns whether nothing is being sent any more."""
        with self._mu:
            self._stopped = True
            self._mu.notify_all()
            try:
                self._await(
                    lambda: not any(lane.busy for lane in self._lanes.values()), waiter, "uploads"
                )
            except XnatfsError:
                return False
            return True

    # -- lanes

    def _put(self, lane: _Lane, parcel: Parcel, pause_s: float) -> None:
        """``_mu`` is held."""
        ready = time.monotonic() + pause_s
        lane.waiting[parcel] = ready
        due = ready if self._drains else max(ready, lane.rested)
        if not lane.troubled and due < lane.due and (self._drains or not parcel.held):
            lane.due = due
            self._mu.notify_all()

    def _hurry(self) -> None:
        """What waits is ready now. ``_mu`` is held."""
        now = time.monotonic()
        for lane in self._lanes.values():
            lane.pause_s, lane.troubled = FIRST_PAUSE_S, False
            lane.waiting = dict.fromkeys(lane.waiting, now)
            lane.due = lane.next_due(draining=self._drains > 0)
        self._mu.notify_all()

    def _await(self, met: Callable[[], bool], waiter: Waiter, what: str) -> None:
        """``_mu`` is held."""
        moves = -1
        patience = Waiter(idle_s=self._limits.io_timeout_s)

        def done() -> bool:
            nonlocal moves
            if self._moves != moves:
                moves = self._moves
                waiter.progress()
                patience.progress()
            patience.check(what)
            return met()

        waiter.until(self._mu, done, what)

    def _dispatch(self) -> None:
        with self._mu:
            while not self._stopped:
                now = time.monotonic()
                soonest = inf
                for lane in self._lanes.values():
                    if lane.busy:
                        continue
                    if lane.due <= now:
                        lane.busy = True
                        lane.due = inf
                        self._workers.submit(self._work, lane)
                    soonest = min(soonest, lane.due)
                self._mu.wait(None if soonest == inf else soonest - now)

    def _work(self, lane: _Lane) -> None:
        """One run of a lane: until nothing is ready, or the server is away."""
        trouble: XnatfsError | None = None
        wanted = threading.Event()
        try:
            more = True
            while more and trouble is None and (claimed := self._claim(lane, wanted)):
                more = self._drains > 0 or len(claimed) >= MOST_CLAIMED
                trouble = self._send(lane, claimed, wanted)
                wanted.clear()
            if trouble is None:
                # What the server is known to have makes room in the spool.
                self._uploader.settle(self._waiter(wanted), lane.resource)
        except XnatfsError as error:
            log.info("%s: %s", lane.resource.address, error)
        except BaseException as error:
            log.exception("the uploads to %s", lane.resource.address)
            trouble = ServerFault(f"unexpected {error!r}")
        finally:
            with self._mu:
                lane.busy = False
                lane.troubled = trouble is not None
                now = time.monotonic()
                lane.rested = now + REST_S
                if trouble is not None:
                    not_before = now + self._next_pause(lane, trouble)
                else:
                    not_before = now if self._drains else lane.rested
                lane.due = max(lane.next_due(draining=self._drains > 0), not_before)
                self._mu.notify_all()

    def _claim(self, lane: _Lane, wanted: threading.Event) -> dict[Upload, Parcel]:
        claimed: dict[Upload, Parcel] = {}
        size = 0
        with self._mu:
            now = time.monotonic()
            ready = [
                parcel
                for parcel, at in lane.waiting.items()
                if not self._stopped and at <= now and (self._drains or not parcel.held)
            ]
        for parcel in ready:
            if len(claimed) >= MOST_CLAIMED or size >= MOST_CLAIMED_BYTES:
                break
            with self._mu:
                # Before the claim: whoever has it now posts it again.
                lane.waiting.pop(parcel, None)
            upload = parcel.claim(wanted)
            if upload is not None:
                claimed[upload] = parcel
                size += upload.size
        return claimed

    def _send(
        self, lane: _Lane, claimed: dict[Upload, Parcel], wanted: threading.Event
    ) -> XnatfsError | None:
        """Send them; returns the error that ended it, if the server as a whole is to blame."""
        trouble = None
        faulty: list[Parcel] = []
        sending = self._uploader.send_all(list(claimed), lane.resource, self._waiter(wanted))
        try:
            for upload, outcome in sending:
                parcel = claimed.pop(upload)
                if isinstance(outcome, RemoteFile):
                    parcel.arrived(outcome)
                    lane.pause_s = FIRST_PAUSE_S
                elif not may_pass(outcome):
                    parcel.refused(outcome)
                elif isinstance(outcome, ServerFault | BadReply):
                    log.info("%s: %s", upload.record.target.labels, outcome)
                    faulty.append(parcel)
                else:
                    trouble = None if isinstance(outcome, Interrupted) else outcome
                    self._put_back(lane, parcel, 0.0)
                with self._mu:
                    self._decided += 1
                    self._moves += 1
                    self._mu.notify_all()
        finally:
            for parcel in claimed.values():
                self._put_back(lane, parcel, 0.0)
            if faulty:
                pause_s = self._next_pause(lane, None)
                for parcel in faulty:
                    self._put_back(lane, parcel, pause_s)
        return trouble

    def _put_back(self, lane: _Lane, parcel: Parcel, pause_s: float) -> None:
        with self._mu:
            lane.waiting[parcel] = time.monotonic() + pause_s
        parcel.put_back()

    def _next_pause(self, lane: _Lane, error: XnatfsError | None) -> float:
        most = LONGEST_DRAIN_PAUSE_S if self._drains else LONGEST_PAUSE_S
        pause_s = min(lane.pause_s, most) * random.uniform(0.5, 1.0)
        lane.pause_s = min(2 * lane.pause_s, LONGEST_PAUSE_S)
        asked = error.retry_after if isinstance(error, ServerBusy) else None
        return max(pause_s, asked or 0.0)

    def _waiter(self, wanted: threading.Event) -> Waiter:
        return _Moving(
            self._note_move,
            idle_s=self._limits.io_timeout_s,
            interrupted=lambda: self._stopped or wanted.is_set(),
        )

    def _note_move(self) -> None:
        # Not worth the lock: who waits looks ten times a second, and any change will do.
        self._moves += 1


class _Moving(Waiter):
    """A waiter that tells of progress."""

    def __init__(
        self, moved: Callable[[], None], idle_s: float, interrupted: Callable[[], bool]
    ) -> None:
        super().__init__(idle_s=idle_s, interrupted=interrupted)
        self._on_progress = moved

    def progress(self) -> None:
        """Something moved."""
        super().progress()
        self._on_progress()
