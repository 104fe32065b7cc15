"""A whole resource in one request: a tar fills the store while readers wait for its entries."""

from __future__ import annotations

import hashlib
import logging
import math
import threading
import time
from collections.abc import Iterable, Sequence
from enum import Enum

from xnatfs.cache.store import Claim, Store
from xnatfs.config import MIB
from xnatfs.download.demands import Rules
from xnatfs.download.fetcher import Counts
from xnatfs.download.siblings import Siblings, streaming_pays, version_of
from xnatfs.download.tar import Entry, Taker, Tar
from xnatfs.errors import Interrupted, XnatfsError
from xnatfs.model.entities import RemoteFile
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# Where the path below the resource begins in an entry's name, whatever leads there (R§3.4).
_FILES = "/files/"

# How much may lie in the store that nobody has asked for: doubles with every file that is read.
_FIRST_LEAD = 4 * MIB
_LARGEST_LEAD = 128 * MIB
# A stream that is held back this long without a reader is given up.
_UNREAD_S = 10.0
# No byte for this long (or for half of the patience with transfers): the stream is broken.
_STALLED_S = 10.0

# A reader waits for a file as long as the stream will be there within a second; nearer than this
# it waits on any line. It never waits longer than these seconds more than what was expected.
_NEAR = MIB // 4
_NEAR_AT_START = 8 * MIB
_PATIENCE_S = 2.0

# How many files in the order of the listing are looked for while another process brings them.
_LOOKS = 64

# Attempts in a row that brought nothing, and the pause before the next.
_FUTILE = 2
_PAUSE_S = 0.2


class Outcome(Enum):
    """How a stream ended."""

    # The archive came to its end.
    COMPLETE = "complete"
    # Requests for single files are better.
    NOT_WORTH_IT = "not worth it"
    # Broken, and beginning again is not worth it.
    BROKEN = "broken"
    # Nobody reads the resource any more.
    UNREAD = "unread"
    # The store keeps nothing more.
    NO_ROOM = "no room"


class Stream:
    """The files of one resource on their way in.

    Every entry is compared with the catalog before anybody sees it: an entry whose size or MD5
    is another, or whose name cannot be told, is passed over, and its reader asks for it alone.

    Args:
        siblings: the resource.
        store: where the files go.
        rules: patience.
        counts: of the mount.
        most: bytes that may be fetched at once.
        wanted: paths that were asked for before.
        excluded: paths that an earlier stream did not bring.
        trust: how sure it is that the resource will be read, in files that were read of it.

    Threading: ``_moved`` (a Condition) guards the fields; it is not held across network or disk.
    ``run`` is called once, on a worker; ``_tar``, ``_began`` and ``_waiter`` belong to it.
    """

    def __init__(
        self,
        siblings: Siblings,
        store: Store,
        rules: Rules,
        counts: Counts,
        most: int,
        wanted: Iterable[str],
        excluded: Iterable[str],
        trust: int,
    ) -> None:
        self.siblings = siblings
        self.rows: Sequence[RemoteFile] = ()
        # Paths that did not come; complete when it has ended.
        self.left: frozenset[str] = frozenset()
        self._store = store
        self._claims = rules.claims
        self._counts = counts
        self._most = most
        self._excluded = frozenset(excluded)
        self._idle_s = min(rules.idle_s / 2, _STALLED_S)
        self._moved = threading.Condition()
        self._planned = False
        # Why we ended it, if we did.
        self._reason: Outcome | None = None
        # What is still to come, by path; where each ends in the stream, if it keeps the order.
        self._expected: dict[str, Version] = {}
        self._borders: dict[str, int] = {}
        self._at = self._total = 0
        self._wanted = set(wanted)
        self._steps = trust
        # Bytes here that nobody has asked for, and whose they are.
        self._unread: dict[str, int] = {}
        self._lead = 0
        self._read_at = time.monotonic()
        self._moved_at = math.inf
        self._waiting = 0
        self._given_up = False
        self._rate = 0.0

    # -- readers

    @property
    def read(self) -> bool:
        """Whether anybody has asked for one of its files."""
        return bool(self._wanted)

    def want(self, path: str) -> None:
        """A file is being read: the stream may run further ahead."""
        with self._moved:
            self._read_at = time.monotonic()
            if path not in self._wanted:
                self._wanted.add(path)
                self._steps += 1
            self._lead -= self._unread.pop(path, 0)
            self._moved.notify_all()

    def wait(self, version: Version, waiter: Waiter) -> None:
        """Wait until a version is here, or until asking for it alone is better.

        Raises: Interrupted, TimedOut: the waiter's.
        """
        patience = min(_PATIENCE_S, (waiter.idle_s or math.inf) / 4)
        label = self.siblings.label + version.path
        until = time.monotonic() + patience
        with self._moved:
            self._waiting += 1
            try:
                waiter.until(self._moved, lambda: self._planned or time.monotonic() > until, label)
                until = time.monotonic() + patience + self._soon(version)
                waiter.until(
                    self._moved,
                    lambda: (
                        version.path not in self._expected
                        or self._moved_at + patience < time.monotonic()
                        or until < time.monotonic()
                    ),
                    label,
                )
            finally:
                self._waiting -= 1

    def _soon(self, version: Version) -> float:
        """Seconds in which a version may be here; -inf when waiting for it is worse than asking."""
        if self._expected.get(version.path) != version:
            return -math.inf
        ahead = self._borders[version.path] - self._at
        if ahead <= 0:
            # The stream does not keep the listing's order: it may come anywhere in the rest.
            ahead = self._total - self._at
        near = max(_NEAR, self._rate) if self._rate else _NEAR_AT_START
        if ahead - version.size > near:
            return -math.inf
        return 2 * ahead / self._rate if self._rate else 0.0

    def give_up(self) -> None:
        """End it soon; what has arrived is kept."""
        with self._moved:
            self._given_up = True
            self._moved.notify_all()

    # -- on a worker

    def run(self) -> Outcome:
        """Bring what is missing; returns how it ended and never raises."""
        outcome = Outcome.BROKEN
        try:
            outcome = self._run()
        except XnatfsError as error:
            log.info("%s: no stream: %s", self.siblings.label, error)
        except Exception:
            # A fault of ours: whoever waits goes on by single requests.
            log.exception("%s: the stream failed", self.siblings.label)
        finally:
            with self._moved:
                self._planned = True
                self.left |= self._expected.keys()
                self._expected.clear()
                self._moved.notify_all()
        return outcome

    def _run(self) -> Outcome:
        rows = self.siblings.rows(self._patient(self._idle_s))
        if not self._plan(rows):
            return Outcome.NOT_WORTH_IT
        claim = self._claims.obtain(
            f"resource {self.siblings.key}", self._look, self._move, self._patient()
        )
        if claim is None:
            return Outcome.COMPLETE
        with claim:
            self._drop(version for version in self._missing() if self._store.has(version))
            return self._fetch(claim)

    def _fetch(self, claim: Claim) -> Outcome:
        """Ask for the whole as often as that is worth it."""
        futile = 0
        while streaming_pays(self.rows, self._expected, self._most):
            missing = len(self._expected)
            try:
                self._attempt(claim)
            except XnatfsError as error:
                if self._reason is not None:
                    return self._reason
                log.info("%s: the stream broke: %s", self.siblings.label, error)
                futile = futile + 1 if len(self._expected) == missing else 0
                if not error.temporary or futile == _FUTILE:
                    return Outcome.BROKEN
            else:
                return Outcome.COMPLETE
            self._counts.add("retries")
            self._patient().sleep(_PAUSE_S, self.siblings.label)
        return Outcome.BROKEN if self._expected else Outcome.COMPLETE

    def _patient(self, idle_s: float | None = None) -> Waiter:
        return Waiter(idle_s=idle_s, interrupted=self._is_given_up)

    def _missing(self) -> list[Version]:
        with self._moved:
            return list(self._expected.values())

    def _look(self) -> bool:
        """Look what another process, which has the claim, has brought; whether that is all."""
        here: list[Version] = []
        absent = 0
        for version in self._missing():
            if self._store.has(version):
                here.append(version)
            else:
                absent += 1
                if absent == _LOOKS:
                    break
        if here:
            self._move()
            # As far as that, the other one's stream is: what comes soon is waited for.
            self._drop(here, max(self._borders[version.path] for version in here))
        return not self._expected

    def _move(self) -> None:
        self._moved_at = time.monotonic()

    def _drop(self, here: Iterable[Version], at: int = 0) -> None:
        """These came another way, which has come as far as ``at`` in the order of the listing."""
        with self._moved:
            self._at = max(self._at, at)
            for version in here:
                self._expected.pop(version.path, None)
            self._moved.notify_all()

    def _plan(self, rows: Sequence[RemoteFile]) -> bool:
        """Find out what is missing; whether a stream is the way to get it."""
        missing: dict[str, Version] = {}
        borders: dict[str, int] = {}
        at = 0
        for row in rows:
            at += row.size or 0
            borders[row.path] = at
            version = version_of(row)
            if version and row.path not in self._excluded and not self._store.has(version):
                missing[row.path] = version
        with self._moved:
            self.rows = rows
            self._borders, self._total = borders, at
            self._planned = True
            if pays := streaming_pays(rows, missing, self._most):
                self._expected = missing
            else:
                self.left = frozenset(missing)
            self._moved.notify_all()
        return pays

    def _is_given_up(self) -> bool:
        return self._given_up

    def _attempt(self, claim: Claim) -> None:
        waiter = self._patient(self._idle_s)
        tar = Tar(self._choose, self.siblings.label)
        began, arrived = 0.0, 0

        def sink(piece: bytes) -> None:
            nonlocal began, arrived
            now = time.monotonic()
            began = began or now
            arrived += len(piece)
            self._moved_at = now
            if now - began > _PAUSE_S:
                self._rate = arrived / (now - began)
            self._counts.add("fetched", len(piece))
            claim.beat()
            tar.feed(piece)
            if self._hold_back():
                waiter.progress()
                began, arrived = 0.0, 0

        self._at = 0
        self._counts.add("streams")
        self.siblings.fetch(sink, waiter)
        tar.finish()

    def _hold_back(self) -> bool:
        """Wait while too much is here that nobody reads; whether that was so."""
        with self._moved:
            if self._lead <= self._allowance():
                return False
            began = time.monotonic()
            while self._lead > self._allowance() and not self._waiting:
                left = max(began, self._read_at) + _UNREAD_S - time.monotonic()
                if left <= 0 or self._given_up:
                    self._reason = Outcome.UNREAD
                    raise Interrupted(f"nobody reads {self.siblings.label} any more")
                self._moved.wait(left)
            return True

    def _allowance(self) -> int:
        return min(_FIRST_LEAD << min(self._steps, 8), _LARGEST_LEAD)

    def _choose(self, entry: Entry) -> Taker | None:
        """Who takes an entry's body: the file it may be, told by what follows ``/files/``.

        The server rewrites names by plain replacement (R§3.4), and a path may itself contain
        what leads to it: the MD5 decides.
        """
        versions = []
        at = entry.name.find(_FILES)
        while at >= 0:
            version = self._expected.get(entry.name[at + len(_FILES) :])
            if version is not None:
                versions.append(version)
            at = entry.name.find(_FILES, at + 1)
        fitting = [version for version in versions if version.size == entry.size]
        if not fitting:
            self._pass(versions)
            return None

        def take(body: bytes | memoryview) -> None:
            digest = hashlib.md5(body, usedforsecurity=False).hexdigest()
            true = [version for version in fitting if version.digest == digest]
            if not true:
                log.info("%s in the stream is not as in the catalog", entry.name)
            for version in true:
                if not self._store.put(version, bytes(body)):
                    self._reason = Outcome.NO_ROOM
                    raise Interrupted(f"{self.siblings.label}: the store has no room")
            self._pass(fitting, {version.path for version in true})

        return take

    def _pass(
        self, versions: Sequence[Version], here: set[str] | frozenset[str] = frozenset()
    ) -> None:
        """The stream is past these; whoever waits for them looks now."""
        with self._moved:
            for version in versions:
                self._expected.pop(version.path, None)
                self._at = max(self._at, self._borders[version.path])
                if version.path in here and version.path not in self._wanted:
                    self._unread[version.path] = version.size
                    self._lead += version.size
            if self._waiting:
                self._moved.notify_all()
