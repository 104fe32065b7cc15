"""The binding to libfuse: the only module that imports fusepy or mfusepy, and only when mounting.

Everything else of xnatfs works on a machine without libfuse. fusepy serves with libfuse 2; where
there is only libfuse 3, mfusepy does, whose differences are evened out here and nowhere else.
"""

from __future__ import annotations

import codecs
import ctypes.util
import errno
import logging
import os
import re
import signal
import threading
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnatfs.config import Settings
from xnatfs.errors import FuseUnusable
from xnatfs.fs.values import Caller
from xnatfs.fuse import threads

# Signals by which somebody asks a process to end. The kernel reports *any* signal of a waiting
# thread as an interrupt; giving up a read because of SIGCHLD, a timer or the SIGURG by which
# some runtimes schedule their threads would hand EINTR to programs that do not expect it from a
# file. A signal whose default action kills appears as SIGKILL.
_ENDING = frozenset({signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM})

# Read-ahead requests that the kernel may have under way; its default of 12 throttles several
# readers of large files, 64 is what other network file systems ask for.
_MAX_BACKGROUND = 64


# Threads whose process is remembered.
_MOST_CALLERS = 1000

# The thread group in /proc/TID/status.
_GROUP = re.compile(rb"^Tgid:\t(\d+)$", re.MULTILINE)

# From this version on libfuse serves with 10 threads unless it is told otherwise; a few slow
# uploads would hold up every reader.
_BOUNDED_THREADS = (3, 12)
_MAX_THREADS = 64


# What file names are to Python, as with os.fsdecode: a name that is no UTF-8 reaches the
# operations, which say so. The bindings know encodings by name only, and give up at such a name.
_NAMES = "xnatfs_names"


def _names(encoding: str) -> codecs.CodecInfo | None:
    if encoding != _NAMES:
        return None
    return codecs.CodecInfo(
        lambda text, _errors="": (text.encode("utf-8", "surrogateescape"), len(text)),
        lambda raw, _errors="": (bytes(raw).decode("utf-8", "surrogateescape"), len(raw)),
    )


codecs.register(_names)


@dataclass(frozen=True, slots=True)
class Library:
    """A libfuse on this machine."""

    # As dlopen(3) takes it.
    path: str
    # 2 or 3: they are not compatible.
    major: int


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Binding:
    """What the rest of ``fuse`` needs of libfuse."""

    # libfuse's own, as in (2, 9).
    version: tuple[int, int]
    # The FUSE class: mounts and returns when the mount is gone.
    serve: Callable[..., Any]
    # Asked on a request's thread: a function that tells, on any thread and as long as the request
    # lasts, whether nobody waits for it any more.
    interruption: Callable[[], Callable[[], bool]]
    # The process behind the current request (request threads only).
    caller: Callable[[], Caller]
    # Called first in every request: what Python knows of libfuse's thread outlives it.
    keep: Callable[[], None] = _nothing


def library() -> Library | None:
    """The libfuse that will be used: that of ``FUSE_LIBRARY_PATH``, else version 2, else 3."""
    path = os.environ.get("FUSE_LIBRARY_PATH", "")
    if path:
        return Library(path, 3 if "fuse3" in os.path.basename(path) else 2)
    for name, major in (("fuse", 2), ("fuse3", 3)):
        if found := ctypes.util.find_library(name):
            return Library(found, major)
    return None


def load() -> Binding:
    """Import the binding and look up what it lacks in libfuse itself.

    Raises:
        FuseUnusable: no libfuse, no fusepy or mfusepy, or another package called ``fuse``.
    """
    chosen = library()
    newer = chosen is not None and chosen.major == 3
    name = "mfusepy" if newer else "fusepy"
    try:
        if newer:
            import mfusepy as fuse
        else:
            import fuse
    except ImportError as error:
        hint = "pip install mfusepy" if newer else "pip install fusepy"
        raise FuseUnusable(f"the Python package {name} is missing: {hint} ({error})") from error
    except (OSError, AttributeError) as error:
        raise FuseUnusable(f"libfuse cannot be loaded: {error}") from error
    if not hasattr(fuse, "fuse_get_context") or not hasattr(fuse, "_libfuse"):
        raise FuseUnusable(
            f"the Python package at {fuse.__file__} is not fusepy: pip install fusepy"
        )
    # The wrapper in ``operations`` has logged every failure already, in words.
    logging.getLogger("fuse").setLevel(logging.CRITICAL)
    fuse_interrupted = fuse._libfuse.fuse_interrupted
    # Asked with every request: not worth letting other threads in, as an ordinary call does.
    context = ctypes.PyDLL(None, handle=fuse._libfuse._handle).fuse_get_context
    context.restype = fuse._libfuse.fuse_get_context.restype

    def thread() -> int:
        return int(context().contents.pid)

    def interruption() -> Callable[[], bool]:
        asking, serving = thread(), threading.get_ident()

        def interrupted() -> bool:
            # libfuse looks for the request on the thread that asks, and crashes without one.
            told = threading.get_ident() == serving and bool(fuse_interrupted())
            return _given_up(asking, interrupted=told)

        return interrupted

    return Binding(
        version=_version(fuse._libfuse.fuse_version()),
        serve=_serving_class(fuse) if newer else fuse.FUSE,
        interruption=interruption,
        caller=_Callers(thread).now,
        keep=threads.keep,
    )


def _version(number: int) -> tuple[int, int]:
    """``fuse_version()``: 29 is 2.9, 314 is 3.14."""
    return divmod(number, 10) if number < 100 else divmod(number, 100)


def _serving_class(mfusepy: Any) -> Callable[..., Any]:
    """Mfusepy's FUSE class for libfuse 3, with what it leaves out."""

    class Serving3(mfusepy.FUSE):  # type: ignore[misc]  # mfusepy has no types for it
        """Called by libfuse; a ``…_fuse_3`` method is one of its operations."""

        def _wrapper(self, func: Any, *args: Any, **kwargs: Any) -> Any:
            # As ``Operations.__call__`` does, which mfusepy passes by.
            threads.keep()
            return super()._wrapper(func, *args, **kwargs)

        def init_fuse_3(self, conn: Any, config: Any) -> None:
            conn.contents.max_background = _MAX_BACKGROUND
            super().init_fuse_3(conn, config)

        def truncate_fuse_3(self, path: bytes, length: int, fip: Any) -> int:
            # Of an open file with its handle: mfusepy drops it, and each ftruncate(2) would be
            # an upload of its own.
            name = path.decode(self.encoding, self.errors)
            self.operations.truncate(name, length, fip.contents if fip else None)
            return 0

        def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
            # RENAME_NOREPLACE and RENAME_EXCHANGE, which mfusepy passes over: `mv -n` would
            # replace. The kernel does not ask for them again, and programs do without.
            if flags:
                return -errno.ENOSYS
            super().rename_fuse_3(old, new, flags)
            return 0

    def serve(*args: Any, **kwargs: Any) -> None:
        with warnings.catch_warnings():
            # That ``Operations.__call__`` is for fusepy alone.
            warnings.simplefilter("ignore", DeprecationWarning)
            Serving3(*args, **kwargs)

    return serve


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


class _Callers:
    """The processes behind requests; asked with every open and close.

    Args:
        thread: the thread that the current request comes from.

    Threading: an entry of the table is replaced as a whole.
    """

    def __init__(self, thread: Callable[[], int]) -> None:
        self._thread = thread
        # Thread → its process, and until when that is believed: thread ids come again, but not
        # within a second.
        self._known: dict[int, tuple[Caller, float]] = {}

    def now(self) -> Caller:
        """The process behind the current request."""
        thread, now = self._thread(), time.monotonic()
        known = self._known.get(thread)
        if known is not None and now < known[1]:
            return known[0]
        if len(self._known) > _MOST_CALLERS:
            self._known = {}
        caller = _caller(thread)
        self._known[thread] = (caller, now + 1.0)
        return caller


def _caller(thread: int) -> Caller:
    """The process that a thread belongs to."""
    if thread <= 0:
        return Caller(0)
    try:
        with open(f"/proc/{thread}/status", "rb") as status:
            found = _GROUP.search(status.read())
    except OSError:
        return Caller(0)
    return Caller(int(found[1]) if found else 0)


def options(settings: Settings, version: tuple[int, int], *, allow_other: bool) -> dict[str, Any]:
    """The mount options as keyword arguments of ``Binding.serve``.

    Args:
        settings: all of them.
        version: libfuse's.
        allow_other: let other users in.
    """
    believed = f"{settings.limits.kernel_ttl_s:g}"
    chosen: dict[str, Any] = {
        "foreground": True,
        "raw_fi": True,
        "encoding": _NAMES,
        "fsname": settings.server.url.replace("\\", "\\\\").replace(",", "\\,"),
        # findmnt, ``umount -a -t fuse.xnatfs`` and job epilogs find the mount by it.
        "subtype": "xnatfs",
        "use_ino": True,
        # Without it ``allow_other`` lets anyone write.
        "default_permissions": True,
        "entry_timeout": believed,
        "attr_timeout": believed,
        # A missing name is remembered by our listings alone.
        "negative_timeout": 0,
    }
    if version < (3, 0):
        # libfuse 3 does these by itself, and refuses to mount when it is told to.
        chosen |= {
            # Without it writes arrive in pieces of 4 KiB.
            "big_writes": True,
            "max_background": _MAX_BACKGROUND,
            # O_TRUNC comes with the open: no copy-up of bytes that are thrown away next.
            "atomic_o_trunc": True,
        }
    if version >= _BOUNDED_THREADS:
        # Idle ones are said too, or libfuse complains of its own default.
        chosen |= {"max_threads": _MAX_THREADS, "max_idle_threads": 10}
    if allow_other:
        chosen["allow_other"] = True
    if settings.policy.read_only:
        chosen["ro"] = True
    return chosen
