"""Threads that Python did not start: known from callback to callback, forgotten when they end."""

from __future__ import annotations

import ctypes
import threading
import weakref

from xnatfs.fuse import threads

ROUTINE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p)
LIBC = ctypes.CDLL(None)


class Thing:
    """Something that can be referred to weakly."""


def run_foreign(work, times: int) -> None:  # type: ignore[no-untyped-def]
    """Run some work on a thread that pthread starts, as libfuse does."""
    callback = ROUTINE(lambda _: work())
    for _ in range(times):
        thread = ctypes.c_ulong()
        assert LIBC.pthread_create(ctypes.byref(thread), None, callback, None) == 0
        assert LIBC.pthread_join(thread, None) == 0


def test_a_thread_that_ends_is_forgotten() -> None:
    local = threading.local()
    things: list[weakref.ref[Thing]] = []

    def work() -> None:
        threads.keep()
        local.thing = Thing()
        things.append(weakref.ref(local.thing))

    run_foreign(work, 20)
    assert len(things) == 20
    # What is known of a thread holds what the thread stored.
    assert not any(thing() for thing in things)
