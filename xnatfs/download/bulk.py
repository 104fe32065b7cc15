"""When to fetch more than the file that is read: which resource as one stream, and which next.

Who lists a folder of many files and reads the first may be about to read them all: a stream of
the whole resource begins, if that is worth it, which brings little until a second file is read.
Where this turned out wrong, and with any other file, the first one is fetched alone and the second
begins the stream. Where none is worth it, the files ahead of a reader that walks are fetched one
by one.
When resources are read one after the other, the next one is streamed as soon as the line is free.
"""

from __future__ import annotations

import logging
import threading
import time

from cachetools import LRUCache

from xnatfs.cache.store import Store
from xnatfs.config import StoreSettings
from xnatfs.download.demands import Rules
from xnatfs.download.fetcher import Counts
from xnatfs.download.siblings import Siblings, Walk, begins_series
from xnatfs.download.stream import Outcome, Stream
from xnatfs.errors import XnatfsError
from xnatfs.model.entities import RemoteFile
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)

# Files of one resource that are read within this time of each other belong to one task.
_TOGETHER_S = 10.0
# Streams for readers at once: four tasks at a time; more of them wait file by file.
_MOST_STREAMS = 4
# Streams begun with one file, without a second one being read of any, before that is given up:
# somebody looks at the first file of everything.
_GUESSES = 2
# How sure it is that the next resource will be read, as with Stream.
_TRUST_AHEAD = 4

# After a stream that ended so, none of that resource for this long.
_REST_S = {
    Outcome.COMPLETE: 0.0,
    Outcome.UNREAD: 0.0,
    Outcome.NOT_WORTH_IT: 30.0,
    Outcome.BROKEN: 30.0,
    Outcome.NO_ROOM: 30.0,
}

# Resources that are remembered.
_REMEMBERED = 256


class _Course:
    """What is known of the reading of one resource; its Bulk's lock guards it."""

    __slots__ = ("at", "before", "followed", "lost", "rest_until", "stream", "walk", "wanted")

    def __init__(self) -> None:
        # Files read lately, and when the last one was.
        self.wanted: set[str] = set()
        self.at = 0.0
        # The resource that was read before this one, and whether what follows was seen to.
        self.before = ""
        self.followed = False
        self.stream: Stream | None = None
        self.walk: Walk | None = None
        self.rest_until = 0.0
        # Listed files that a whole stream did not have.
        self.lost: frozenset[str] = frozenset()


class Bulk:
    """The streams of one mount.

    Args:
        store: where files go.
        workers: the threads that fetch.
        settings: of the store; half of its size may be filled at once.
        rules: patience.
        counts: of the mount.

    Threading: ``_mu`` guards the courses and who reads what; it is not held while anything is
    waited for, and a Stream's lock is taken after it, never before.
    """

    def __init__(
        self,
        store: Store,
        workers: Workers,
        settings: StoreSettings,
        rules: Rules,
        counts: Counts,
    ) -> None:
        self._store = store
        self._workers = workers
        self._most = settings.size // 2
        self._rules = rules
        self._counts = counts
        self._mu = threading.Lock()
        self._courses: LRUCache[str, _Course] = LRUCache(_REMEMBERED)
        self._running: set[Stream] = set()
        # The resource of which two files were read last.
        self._front = ""
        # Streams that one file began, since a stream was last of use.
        self._guesses = 0

    # -- readers

    def note(self, siblings: Siblings, path: str) -> None:
        """An opening of a file is read for the first time, from wherever it comes."""
        now = time.monotonic()
        ahead: list[RemoteFile] = []
        with self._mu:
            course = self._course(siblings.key)
            if now - course.at > _TOGETHER_S:
                course.wanted.clear()
            course.wanted.add(path)
            course.at = now
            if len(course.wanted) == 2 and self._front != siblings.key:
                course.before, self._front = self._front, siblings.key
                course.followed = False
            if course.walk is not None:
                ahead = course.walk.step(path)
            stream = course.stream
            # With three files read from the store and no stream, the way is known and free.
            goes_on = stream is None and len(course.wanted) == 3 and not course.followed
            if stream is not None and len(course.wanted) > 1:
                self._guesses = 0
        if stream is not None:
            stream.want(path)
        for row in ahead:
            self._workers.submit(_fetch, siblings, row)
        if goes_on:
            self._workers.submit(self._go_on, siblings, course)

    def bring(self, siblings: Siblings, version: Version, waiter: Waiter) -> None:
        """A file that was noted is not here: wait for it as long as a stream will bring it soon.

        Raises: Interrupted, TimedOut: the waiter's.
        """
        series = self._begins_series(siblings, version.path, waiter)
        with self._mu:
            course = self._course(siblings.key)
            stream = course.stream
            if stream is None and self._begins(course, series=series):
                together = len(course.wanted)
                self._guesses += together == 1
                stream = self._start(siblings, course, course.wanted, together - 1)
                for other in self._running:
                    if not other.read:
                        other.give_up()
        if stream is not None:
            stream.wait(version, waiter)

    def _course(self, key: str) -> _Course:
        course = self._courses.get(key)
        if course is None:
            course = self._courses[key] = _Course()
        return course

    def _begins_series(self, siblings: Siblings, path: str, waiter: Waiter) -> bool:
        """Whether a file is the first that somebody reads who will read all of them."""
        if self._guesses >= _GUESSES or not siblings.listed(path):
            return False
        return begins_series(path, siblings.rows(waiter))

    def _begins(self, course: _Course, *, series: bool) -> bool:
        together = len(course.wanted) > 1 or series
        worth_it = together and time.monotonic() > course.rest_until
        return worth_it and sum(stream.read for stream in self._running) < _MOST_STREAMS

    def _start(self, siblings: Siblings, course: _Course, wanted: set[str], trust: int) -> Stream:
        stream = Stream(
            siblings, self._store, self._rules, self._counts, self._most, wanted, course.lost, trust
        )
        course.stream = stream
        self._running.add(stream)
        self._workers.submit(self._run, course, stream)
        return stream

    # -- on workers

    def _run(self, course: _Course, stream: Stream) -> None:
        outcome = stream.run()
        log.debug("%s: stream ended: %s", stream.siblings.label, outcome.value)
        with self._mu:
            self._running.discard(stream)
            course.stream = None
            course.rest_until = time.monotonic() + _REST_S[outcome]
            course.walk = None
            if outcome is Outcome.COMPLETE:
                course.lost = stream.left
            elif outcome in (Outcome.BROKEN, Outcome.NOT_WORTH_IT):
                course.walk = Walk(stream.rows, stream.left)
        if outcome is Outcome.COMPLETE:
            self._go_on(stream.siblings, course)

    def _go_on(self, siblings: Siblings, course: _Course) -> None:
        """The line is free: stream what will be read next, if that can be told."""
        with self._mu:
            before = course.before
            if not before or course.followed or self._running:
                return
            course.followed = True
        try:
            following = siblings.following(before, Waiter(idle_s=self._rules.idle_s))
        except XnatfsError as error:
            log.info("what follows %s is not known: %s", siblings.label, error)
            return
        if following is None:
            return
        with self._mu:
            course = self._course(following.key)
            if course.stream is None and not self._running:
                self._start(following, course, set(), _TRUST_AHEAD)


def _fetch(siblings: Siblings, row: RemoteFile) -> None:
    opening = siblings.open(row)
    opening.prefetch()
    opening.close()
