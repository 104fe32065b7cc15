"""The binding to libfuse: the only module that imports fusepy, and only when mounting.

Everything else of xnatfs works on a machine without libfuse. Another binding (libfuse 3) would
be chosen here and nowhere else.
"""

from __future__ import annotations

import logging
import os
import re
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnatfs.config import Settings
from xnatfs.errors import FuseUnusable
from xnatfs.fs.values import Caller

# Signals by which somebody asks a process to end. The kernel reports *any* signal of a waiting
# thread as an interrupt; giving up a read because of SIGCHLD, a timer or the SIGURG by which
# some runtimes schedule their threads would hand EINTR to programs that do not expect it from a
# file. A signal whose default action kills appears as SIGKILL.
_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM})

# Read-ahead requests that the kernel may have under way; its default of 12 throttles several
# readers of large files, 64 is what other network file systems ask for.
_MAX_BACKGROUND = 64


# The thread group in /proc/TID/status.
_GROUP = re.compile(rb"^Tgid:\t(\d+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Binding:
    """What the rest of ``fuse`` needs of libfuse."""

    # fusepy's FUSE class: mounts and returns when the mount is gone.
    serve: Callable[..., Any]
    # Asked on a request's thread: a function that tells, on any thread and as long as the request
    # lasts, whether nobody waits for it any more.
    interruption: Callable[[], Callable[[], bool]]
    # The process behind the current request (request threads only).
    caller: Callable[[], Caller]


def load() -> Binding:
    """Import the binding and look up what it lacks in libfuse itself.

    Raises:
        FuseUnusable: no libfuse, no fusepy, or another package called ``fuse``.
    """
    try:
        import fuse
    except ImportError as error:
        raise FuseUnusable(f"the Python package fusepy is missing: {error}") from error
    except OSError as error:
        raise FuseUnusable(f"libfuse cannot be loaded: {error}") from error
    if not hasattr(fuse, "fuse_get_context") or not hasattr(fuse, "_libfuse"):
        raise FuseUnusable(
            f"the Python package at {fuse.__file__} is not fusepy: pip install fusepy"
        )
    # The wrapper in ``operations`` has logged every failure already, in words.
    logging.getLogger("fuse").setLevel(logging.CRITICAL)
    fuse_interrupted = fuse._libfuse.fuse_interrupted

    def thread() -> int:
        return int(fuse.fuse_get_context()[2])

    def interruption() -> Callable[[], bool]:
        asking, serving = thread(), threading.get_ident()

        def interrupted() -> bool:
            # libfuse looks for the request on the thread that asks, and crashes without one.
            told = threading.get_ident() == serving and bool(fuse_interrupted())
            return _given_up(asking, interrupted=told)

        return interrupted

    return Binding(
        serve=fuse.FUSE,
        interruption=interruption,
        caller=lambda: _caller(thread()),
    )


def _status(thread: int) -> dict[str, str]:
    """/proc/TID/status as a dictionary; empty when there is no such thread for us.

    The kernel hands over thread ids, and 0 for processes of another pid namespace.
    """
    if thread <= 0:
        return {}
    try:
        text = Path(f"/proc/{thread}/status").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    return dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)


def _given_up(thread: int, *, interrupted: bool) -> bool:
    """Whether nobody waits for the current request any more.

    Args:
        thread: who asked; 0 when unknown.
        interrupted: what the kernel says. It says nothing about read-ahead, for which a page
            stays locked: the next open of the file would hang until the read ends.

    Returns: True when the asking thread is gone, or a signal that ends programs waits for it.
    """
    status = _status(thread)
    if "SigPnd" not in status or "ShdPnd" not in status:
        return interrupted or _is_gone(thread)
    if status.get("State", "").startswith(("Z", "X")):
        return True
    waiting = int(status["SigPnd"], 16) | int(status["ShdPnd"], 16)
    unheard = int(status.get("SigIgn", "0"), 16) | int(status.get("SigBlk", "0"), 16)
    return any(waiting & ~unheard & (1 << (number - 1)) for number in _ENDING)


def _is_gone(thread: int) -> bool:
    """Whether there is no such thread; /proc may hide the threads of other users."""
    if thread <= 0:
        return False
    try:
        os.kill(thread, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        return False
    return False


def _caller(thread: int) -> Caller:
    """The process that a thread belongs to; asked with every open and close."""
    if thread <= 0:
        return Caller(0)
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            found = _GROUP.search(status.read())
    except OSError:
        return Caller(0)
    return Caller(int(found[1]) if found else 0)


def options(settings: Settings, *, allow_other: bool) -> dict[str, Any]:
    """The mount options for libfuse 2, as keyword arguments of ``Binding.serve``."""
    half_ttl = f"{settings.limits.metadata_ttl_s / 2:g}"
    chosen: dict[str, Any] = {
        "foreground": True,
        "raw_fi": True,
        "fsname": settings.server.url.replace("\\", "\\\\").replace(",", "\\,"),
        # findmnt, ``umount -a -t fuse.xnatfs`` and job epilogs find the mount by it.
        "subtype": "xnatfs",
        # Without it writes arrive in pieces of 4 KiB.
        "big_writes": True,
        "max_background": _MAX_BACKGROUND,
        # O_TRUNC comes with the open: no copy-up of bytes that are thrown away next.
        "atomic_o_trunc": True,
        "use_ino": True,
        # Without it ``allow_other`` lets anyone write.
        "default_permissions": True,
        # Half of the time at which others' changes are seen; the other half is our listings'.
        "entry_timeout": half_ttl,
        "attr_timeout": half_ttl,
        # A missing name is remembered by our listings, which ``refresh`` can drop.
        "negative_timeout": 0,
    }
    if allow_other:
        chosen["allow_other"] = True
    if settings.policy.read_only:
        chosen["ro"] = True
    return chosen
