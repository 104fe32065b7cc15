"""Single flight among processes: who is fetching what into the store.

A claim is advisory. Whoever holds one fetches; the others look at the store until it is there.
Where the file system has no locks, or the holder does not move, everybody fetches for himself:
that costs requests and bytes, never correctness, which rests on write-beside, rename and check.

Names are free: a version's key (its blocks are claimed by range), ``resource-1234`` for a stream
of a whole resource, the key of a listing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from xnatfs.config import make_private
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# A file's modification time tells that a holder moves; more often is not needed.
_BEAT_S = 1.0
# A holder that has not moved for so long is waited for no more. Network file systems show
# others a new modification time after some seconds only.
_PATIENCE_S = 12.0
# Between two looks at the store: as soon as a local disk may have it, then as a network disk can.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.01, 0.2

# What a lock that another process holds looks like.
_TAKEN = frozenset({errno.EACCES, errno.EAGAIN})
# Blocks of one name lie side by side in the lock file: 2^26 blocks of 64 KiB are 4 TiB.
_NAME_BITS, _BLOCK_BITS = 36, 26


class Claim:
    """The right of this process to fetch something, as long as it is held.

    Threading: ``beat`` may be called by any thread, ``release`` by one.
    """

    def __init__(self, fd: int, start: int, count: int) -> None:
        self._fd = fd
        self._start = start
        self._count = count
        self._beaten = 0.0

    def beat(self) -> None:
        """Tell the others that it moves; call it as bytes arrive, it costs nothing mostly."""
        now = time.monotonic()
        if self._fd >= 0 and now - self._beaten >= _BEAT_S:
            self._beaten = now
            with contextlib.suppress(OSError):
                os.utime(self._fd)

    def release(self) -> None:
        """Let others fetch. Never raises."""
        if self._fd >= 0:
            with contextlib.suppress(OSError):
                fcntl.lockf(self._fd, fcntl.LOCK_UN, self._count, self._start)
            self._fd = -1

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class Claims:
    """The claims of the processes that share one server's folder in the store.

    Between the threads of a process nothing is claimed: it has tables of what is on its way. A
    process that ends, however, loses its claims.

    Args:
        folder: where the lock files lie; made when the first claim is taken.

    Threading: ``_mu`` guards the descriptors, which stay open: closing one would give up all
    claims of this process that lie in the same file.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mu = threading.Lock()
        self._fds: dict[str, int] = {}
        # False once the file system has refused a lock.
        self._works = True

    def attempt(self, name: str, first: int = 0, count: int = 1) -> Claim | None:
        """Take a claim, or None while another process holds it. Never waits.

        Args:
            name: of what is to be fetched.
            first: the first of its blocks.
            count: how many blocks.
        """
        fd, offset = self._place(name)
        start = offset + first
        if fd >= 0:
            try:
                fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB, count, start)
            except OSError as error:
                if error.errno in _TAKEN:
                    return None
                self._no_locks(error)
                fd = -1
        claim = Claim(fd, start, count)
        claim.beat()
        return claim

    def obtain(
        self,
        name: str,
        arrived: Callable[[], bool],
        moves: Callable[[], None],
        waiter: Waiter,
        first: int = 0,
        count: int = 1,
    ) -> Claim | None:
        """Take a claim, waiting for who has it as long as that process moves.

        Args:
            name: as with ``attempt``, like ``first`` and ``count``.
            arrived: looks at the store; asked again and again, also once the claim is ours.
            moves: called when the holder has moved.
            waiter: the limits of the wait.
            first: the first block.
            count: how many.

        Returns:
            The claim, to fetch what is still missing; None as soon as ``arrived`` says so.

        Raises: what the waiter raises.
        """
        seen, moved = self._beat_of(name), time.monotonic()
        pause = _FIRST_LOOK_S
        while not arrived():
            claim = self.attempt(name, first, count)
            if claim is not None:
                # Who had it before may have published in the moment before the release.
                if not arrived():
                    return claim
                claim.release()
                return None
            beat = self._beat_of(name)
            if beat != seen:
                seen, moved = beat, time.monotonic()
                moves()
            if time.monotonic() - moved > _PATIENCE_S:
                log.info("%s is claimed by a process that does not move: not waited for", name)
                return Claim(-1, 0, 0)
            waiter.sleep(pause, name)
            pause = min(2 * pause, _LAST_LOOK_S)
        return None

    def close(self) -> None:
        """Give up everything. Never raises."""
        with self._mu:
            fds, self._fds = list(self._fds.values()), {}
        for fd in fds:
            os.close(fd)

    def _place(self, name: str) -> tuple[int, int]:
        """Lock file (-1: there are no locks) and offset of a name's first block."""
        hashed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")
        file = f"{hashed & 0xFF:02x}"
        offset = (hashed >> 8 & (1 << _NAME_BITS) - 1) << _BLOCK_BITS
        return self._descriptor(file), offset

    def _descriptor(self, file: str) -> int:
        with self._mu:
            fd = self._fds.get(file, -1) if self._works else -1
            if fd >= 0 or not self._works:
                return fd
            try:
                make_private(self._folder)
                fd = os.open(
                    self._folder / file,
                    os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW,
                    0o600,
                )
            except OSError as error:
                self._no_locks(error)
                return -1
            self._fds[file] = fd
            return fd

    def _no_locks(self, error: OSError) -> None:
        if self._works:
            log.info("no locks in %s (%s): each process fetches for itself", self._folder, error)
        self._works = False

    def _beat_of(self, name: str) -> int:
        fd, _ = self._place(name)
        try:
            return os.fstat(fd).st_mtime_ns if fd >= 0 else 0
        except OSError:
            return 0
