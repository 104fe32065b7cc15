"""The few system calls that content needs, in the shape the store wants them."""

from __future__ import annotations

import os
import secrets
import time
from pathlib import Path

from xnatfs.cache import layout

# The order of use needs no finer grain, and a touch costs a round trip on a network disk.
_TOUCH_EVERY_S = 60.0


def read_exactly(fd: int, size: int, offset: int) -> bytes | None:
    """``size`` bytes from ``offset``, or None when the file is shorter or the disk fails."""
    try:
        piece = os.pread(fd, size, offset)
        # A signal or a network disk may give less than there is.
        while len(piece) < size:
            more = os.pread(fd, size - len(piece), offset + len(piece))
            if not more:
                return None
            piece += more
    except OSError:
        return None
    return piece


def write_all(fd: int, piece: bytes | memoryview, offset: int) -> None:
    """Write everything. Raises OSError."""
    rest = memoryview(piece)
    while rest:
        done = os.pwrite(fd, rest, offset)
        rest, offset = rest[done:], offset + done


def flush(fd: int) -> None:
    """Let a network file system say now whether it took what was written. Raises OSError.

    NFS accepts writes and refuses them (quota) when it sends them, which closing a descriptor
    makes it do; on a local disk this costs nothing, where an fsync would.
    """
    os.close(os.dup(fd))


def write_beside(path: Path, pieces: tuple[bytes, ...]) -> int:
    """Put a whole file into place in one step.

    Returns:
        A descriptor of the file, for reading.

    Raises:
        OSError: nothing is left behind.
    """
    beside = path.with_name(f"{layout.BESIDE}{secrets.token_hex(8)}")
    fd = os.open(beside, os.O_CREAT | os.O_EXCL | os.O_RDWR | os.O_CLOEXEC, 0o600)
    try:
        offset = 0
        for piece in pieces:
            write_all(fd, piece, offset)
            offset += len(piece)
        # A network disk's refusal must come before the rename.
        flush(fd)
        os.rename(beside, path)
    except OSError:
        os.close(fd)
        beside.unlink(missing_ok=True)
        raise
    return fd


def touch(fd: int) -> None:
    """Note the use of a file, for the order of eviction; mtime stays."""
    try:
        stat = os.fstat(fd)
        now = time.time()
        if now - stat.st_atime > _TOUCH_EVERY_S:
            os.utime(fd, ns=(int(now * 1e9), stat.st_mtime_ns))
    except OSError:
        return
