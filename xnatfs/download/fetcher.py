"""One transfer: a range of one version, resumed at the byte for as long as it moves.

Called on workers only. It knows no store; ``Fetch`` is the only thing it knows of the server.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Protocol

from xnatfs.errors import BadReply, Interrupted, ServerBusy, TransferBroken, XnatfsError
from xnatfs.model.entities import Head
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# One GET of one file: (start, length, modified, sink, waiter) -> Head.
#
# ``length`` None: to the end (a GET without Range when start is 0). ``modified``: the date that
# the file must have, "" when that is not known. ``sink`` gets the body's bytes in order from
# ``start``; an error that it raises ends the GET and comes out unchanged. The Head's size is that
# of the whole file (Content-Range's total, or the length of a full reply), its ``modified`` the
# file's. ``waiter.progress()`` may be called as bytes arrive. Raises TransferBroken after a partial
# body; Stale, before the first byte goes to the sink, when the header shows another date, or that
# of a range another length; and the errors of a request.
Fetch = Callable[[int, int | None, str, Callable[[bytes], None], Waiter], Head]

# The first pause after an attempt that brought nothing; doubles up to the last one. Each is
# multiplied by 0.5 … 1, so that a job array does not come back in step.
_FIRST_PAUSE_S = 0.2
_LAST_PAUSE_S = 10.0

# An attempt that stalls is given up after this part of the limit, so that another one fits in.
_ATTEMPT = 0.5


@dataclass(frozen=True, slots=True)
class DownloadStats:
    """What came from the server and what went to readers, in this process."""

    # Bytes of bodies; bytes handed to readers.
    fetched: int
    served: int
    # Transfers started; attempts that had to be resumed or repeated.
    transfers: int
    retries: int
    # Whole resources streamed; windows of large files fetched ahead.
    streams: int
    windows: int


class Counts:
    """What DownloadStats is made of.

    Threading: ``_mu`` guards the numbers.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._stats = {field.name: 0 for field in fields(DownloadStats)}

    def add(self, what: str, number: int = 1) -> None:
        """Count ``number`` more of a field of DownloadStats."""
        with self._mu:
            self._stats[what] += number

    def stats(self) -> DownloadStats:
        """The numbers now."""
        with self._mu:
            return DownloadStats(**self._stats)


class Sink(Protocol):
    """Where a transfer's bytes go.

    ``at`` is the position of the next byte that it wants: a transfer is resumed there, so a sink
    may take back what turned out damaged.
    """

    at: int

    def take(self, piece: bytes) -> None:
        """Take the next bytes. Raises errors of the project only."""


@dataclass(frozen=True, slots=True)
class Line:
    """The way to the bytes of one version, and how patient to be with it."""

    fetch: Fetch
    # ``Last-Modified`` that its file must have; "" when not known.
    modified: str
    # The path, for texts.
    label: str
    # Seconds without progress after which a transfer fails.
    idle_s: float
    # Asked while waiting: True when nobody wants the bytes any more.
    given_up: Callable[[], bool]
    # Called as bytes arrive.
    progress: Callable[[], None]
    counts: Counts


def transfer(line: Line, sink: Sink, end: int, *, ranged: bool = True) -> Head | None:
    """Bring everything from ``sink.at`` up to ``end`` into the sink.

    Args:
        line: the way to the bytes.
        sink: where they go.
        end: of the transfer, bytes from the start of the file.
        ranged: ask for exactly that range; False: the first GET is one without Range, whose
            body may turn out longer than ``end``.

    Returns:
        What the last reply's header told; None when it broke just after the last byte.

    Raises:
        Interrupted: nobody wants the bytes any more.
        XnatfsError: of the last attempt, when nothing moved for ``idle_s``, or at once when
            trying again cannot help (``BadReply``: when it comes twice).
    """
    moved = time.monotonic()
    futile = 0

    def receive(piece: bytes) -> None:
        nonlocal moved
        moved = time.monotonic()
        waiter.progress()
        line.progress()
        if line.given_up():
            raise Interrupted(f"nobody waits for {line.label} any more")
        line.counts.add("fetched", len(piece))
        sink.take(piece)

    line.counts.add("transfers")
    while True:
        start = sink.at
        # Without Range only from the start: a resumed transfer has to say where it stopped.
        length = None if start == 0 and not ranged else end - start
        waiter = Waiter(idle_s=line.idle_s * _ATTEMPT, interrupted=line.given_up)
        try:
            head = line.fetch(start, length, line.modified, receive, waiter)
            if length is None or sink.at >= end:
                return head
            raise TransferBroken(f"{line.label}: the reply ended {end - sink.at} bytes early")
        except XnatfsError as error:
            # A web page of something in between may be gone a moment later.
            if not error.temporary and (futile or not isinstance(error, BadReply)):
                raise
            futile = 0 if sink.at > start else futile + 1
            pause = _pause(futile, error)
            if time.monotonic() - moved + pause >= line.idle_s:
                raise
            log.info("%s: %s; going on at byte %d in %.1f s", line.label, error, sink.at, pause)
        if sink.at >= end:
            return None
        line.counts.add("retries")
        Waiter(interrupted=line.given_up).sleep(pause, line.label)


def _pause(futile: int, error: XnatfsError) -> float:
    pause = min(_LAST_PAUSE_S, _FIRST_PAUSE_S * 2.0**futile) * random.uniform(0.5, 1.0)
    asked = error.retry_after if isinstance(error, ServerBusy) else None
    return max(pause, asked or 0.0)
