"""The local disk under the spool: its errors in the project's words, files replaced in one step.

Used by everything in ``upload`` that writes; it knows nothing of records or uploads.
"""

from __future__ import annotations

import ctypes
import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xnatfs.errors import DiskFault, NoSpace, QuotaExceeded

# Being written: not there yet for any reader.
NEW_SUFFIX = ".new"


@contextmanager
def local_disk(what: str) -> Iterator[None]:
    """Turn an OSError of the local disk into one of the project's.

    Args:
        what: what was read or written, for the error text.

    Raises: NoSpace, QuotaExceeded, DiskFault.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        if error.errno == errno.ENOSPC:
            raise NoSpace(f"no space on the local disk for {what}") from error
        if error.errno == errno.EDQUOT:
            raise QuotaExceeded(f"disk quota exceeded for {what}") from error
        raise DiskFault(f"the local disk failed with {what}: {reason}") from error


def sync_file(path: Path) -> None:
    """Make the bytes of a file durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable. Raises OSError."""
    try:
        sync_file(folder)
    except OSError as error:
        # Some network file systems refuse fsync on a folder; they have no other way to offer.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise


def sync_file_system(folder: Path) -> None:
    """Make all that was written to the file system of ``folder`` durable, in one step.

    Raises: OSError; ENOSYS where the C library has no such call.
    """
    syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if syncfs is None:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
    fd = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if syncfs(fd):
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    finally:
        os.close(fd)


def write_file(path: str, content: bytes, *, durable: bool) -> None:
    """Write a small file (0600, whatever the umask) where it stands. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, content, 0)
        if durable:
            os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(path: Path, content: bytes, *, durable: bool) -> None:
    """Write a small file (0600) beside its place and rename it there.

    Raises: NoSpace, QuotaExceeded, DiskFault; the old file then still stands.
    """
    beside = f"{path}{NEW_SUFFIX}"
    with local_disk(str(path)):
        write_file(beside, content, durable=durable)
        os.rename(beside, path)
        if durable:
            sync_folder(path.parent)


def remove_folder(folder: Path) -> None:
    """Remove a folder of files, and whatever else may be in it. Raises OSError."""
    try:
        # Thousands of these go at once; ``rmtree`` looks at each file first.
        for name in os.listdir(folder):
            os.unlink(os.path.join(folder, name))
        os.rmdir(folder)
    except IsADirectoryError:
        shutil.rmtree(folder)


def write_all(fd: int, content: bytes, offset: int) -> None:
    """Write all of it: a single pwrite may take less when the disk is nearly full."""
    view = memoryview(content)
    while view:
        done = os.pwrite(fd, view, offset)
        view, offset = view[done:], offset + done
