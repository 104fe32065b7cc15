"""The one place where a request is asked again: back-off, jitter, Retry-After."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable

from xnatfs.errors import Unreachable, XnatfsError
from xnatfs.rest import faults, replies
from xnatfs.rest.wire import Reply
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# The first pause; it doubles, and is shortened by up to half at random, so that the processes
# of a job array do not come back together. Seconds.
FIRST_PAUSE_S = 0.25
LONGEST_PAUSE_S = 10.0
# About 45 s of pauses: a server that restarts is waited for, within the waiter's limits.
MOST_TRIES = 10


def repeat(
    once: Callable[[], Reply],
    waiter: Waiter,
    what: str,
    *,
    repeatable: bool,
    most_tries: int = MOST_TRIES,
) -> Reply:
    """Ask until an answer comes that another try would not change.

    Args:
        once: sends the request.
        waiter: bounds tries and pauses; a pause that it would not outlast is not begun.
        what: method and address, for texts.
        repeatable: a GET or HEAD. What is not is tried again only when nothing was sent.
        most_tries: at most so many.

    Raises: the error of the last try, and what the waiter raises.
    """
    tries = 0
    while True:
        waiter.check(what)
        tries += 1
        retry_after: float | None = None
        try:
            reply = once()
        except XnatfsError as error:
            # Unreachable: no connection came about, so nothing was asked.
            sure = isinstance(error, Unreachable)
            if not error.temporary or not (repeatable or sure) or tries >= most_tries:
                raise
            failure = error
        else:
            if reply.status not in faults.BUSY or not repeatable:
                return reply
            retry_after = faults.seconds(reply.header("Retry-After"))
            failure = failed(reply)
            if tries >= most_tries:
                raise failure
        pause = min(LONGEST_PAUSE_S, FIRST_PAUSE_S * 2 ** (tries - 1))
        pause = max(pause * random.uniform(0.5, 1.0), retry_after or 0.0)
        left = waiter.remaining()
        if left is not None and pause >= left:
            raise failure
        log.debug("%s; trying again in %.1f s", failure, pause)
        waiter.sleep(pause, what)


def failed(reply: Reply) -> XnatfsError:
    """The error for a reply whose status the call does not expect."""
    said = replies.said(reply.content)
    return faults.of_status(reply.status, said, reply.what, reply.header("Retry-After"))
