"""The look at a file's size after its upload, begun before the upload's answer has come.

A small file costs two round trips: one for the answer, one for the HEAD that proves it. Uploads
to one server take about the same time, so the HEAD is sent to reach the server just after it has
stored the file. One that comes too early is asked again; the proof is the same.
"""

from __future__ import annotations

import logging
import threading
import time
from concurrent.futures import Future
from contextlib import suppress
from types import TracebackType

from xnatfs.config import KIB
from xnatfs.errors import NotFound, XnatfsError
from xnatfs.model.entities import Item
from xnatfs.rest.archive import Archive
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)

# Of larger files the transfer takes most of the time. Bytes.
SMALL = 64 * KIB

# How long after the expected moment a HEAD arrives: longer after one that came too early, a
# little shorter after each that did not. Seconds.
FIRST_MARGIN_S, LEAST_MARGIN_S, MOST_MARGIN_S = 0.005, 0.002, 0.1

# Uploads and looks that are watched before any is begun early.
_LEAST_KNOWN = 3
# Weight of the latest in a mean.
_LATEST = 0.25
# An early look that takes longer than this is given up. Seconds.
_PATIENCE_S = 5.0
# Looks that may be under way at once.
_MOST = 8


class _Mean:
    """How long something takes lately. Seconds."""

    def __init__(self) -> None:
        self.value = 0.0
        self.count = 0

    def add(self, seconds: float) -> None:
        weight = _LATEST if self.count else 1.0
        self.value += weight * (seconds - self.value)
        self.count += 1


class Glances:
    """The looks at one server.

    Args:
        archive: the server.

    Threading: ``_mu`` guards the times.
    """

    def __init__(self, archive: Archive) -> None:
        self._archive = archive
        self._workers = Workers(_MOST, "xnatfs-glance")
        self._mu = threading.Lock()
        self._uploads = _Mean()
        self._looks = _Mean()
        self._margin_s = FIRST_MARGIN_S

    def begin(self, resource: Item, path: str, size: int) -> Glance:
        """An upload of ``size`` bytes begins now."""
        with self._mu:
            known = min(self._uploads.count, self._looks.count) >= _LEAST_KNOWN
            delay_s = self._uploads.value - self._looks.value + self._margin_s
        glance = Glance(self, resource, path, small=size <= SMALL)
        if known and size <= SMALL:
            glance.early = self._workers.submit(glance.ask_early, max(0.0, delay_s))
        return glance

    def uploaded(self, seconds: float) -> None:
        """An upload of a small file took so long."""
        with self._mu:
            self._uploads.add(seconds)

    def tried_early(self, *, too_early: bool) -> None:
        """How an early look went."""
        with self._mu:
            margin_s = 1.5 * self._margin_s + 0.002 if too_early else 0.97 * self._margin_s
            self._margin_s = min(max(margin_s, LEAST_MARGIN_S), MOST_MARGIN_S)

    def look(self, resource: Item, path: str, waiter: Waiter) -> int | None:
        """The size that the server tells; None when it has no such file."""
        began = time.monotonic()
        try:
            return self._archive.head(resource, path, waiter).size
        except NotFound:
            return None
        finally:
            with self._mu:
                self._looks.add(time.monotonic() - began)


class Glance:
    """The look at one file; a context for the length of its upload.

    Threading: ``_over`` may be set by any thread; the rest belongs to the one that uploads.
    """

    def __init__(self, glances: Glances, resource: Item, path: str, *, small: bool) -> None:
        self._glances = glances
        self._resource = resource
        self._path = path
        self._small = small
        self._began = time.monotonic()
        self._over = threading.Event()
        self.early: Future[int | None] | None = None

    def __enter__(self) -> Glance:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()

    def ask_early(self, delay_s: float) -> int | None:
        """On a worker: look after a while, unless the upload is over by then."""
        if self._over.wait(delay_s):
            return None
        return self._glances.look(self._resource, self._path, Waiter(total_s=_PATIENCE_S))

    def shows(self, size: int, waiter: Waiter) -> bool:
        """Whether the server has the file, now that the upload is answered, with this size.

        Raises: what a HEAD raises, and the waiter.
        """
        if self._small:
            self._glances.uploaded(time.monotonic() - self._began)
        if self.early is not None and not self._over.is_set():
            found: int | None = None
            with suppress(XnatfsError):
                found = waiter.result(self.early, f"the size of {self._path}")
            self._glances.tried_early(too_early=found != size)
            if found == size:
                return True
        return self._glances.look(self._resource, self._path, waiter) == size
