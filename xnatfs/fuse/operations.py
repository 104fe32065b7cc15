"""The kernel's requests, one line each: translated, handed to ``fs``, answered.

Called by libfuse's threads through ``fuse.binding``; knows nothing of archives. Whatever goes
wrong below leaves here as a positive errno (``fuse.errnos``): fusepy turns an OSError without
errno into a reply of garbage.

No attribute of ``Operations`` may be named like an operation of FUSE: fusepy would register it.
"""
# ruff: noqa: D102 -- the methods are the system calls of their names

from __future__ import annotations

import errno
import functools
import logging
import os
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from xnatfs.config import Limits
from xnatfs.errors import XnatfsError
from xnatfs.fs.values import Attributes, Caller, Entry, Kind, Opened
from xnatfs.fuse.binding import Binding
from xnatfs.fuse.errnos import Row, row_of
from xnatfs.waiting import Waiter

if TYPE_CHECKING:
    from xnatfs.fs.filesystem import FileSystem

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

_TYPE_BITS = {Kind.FOLDER: stat.S_IFDIR, Kind.FILE: stat.S_IFREG, Kind.LINK: stat.S_IFLNK}

# Attributes that the kernel and ``ls -l`` ask for on every file; XNAT has none of them.
_NEVER_SET = ("security.", "system.posix_acl", "posix_acl", "trusted.")

# <bits/stat.h>: in tv_nsec, "now" and "leave as it is". fusepy hands over seconds and
# nanoseconds as one number; libfuse sets the seconds of these two to 0.
_UTIME_NOW = (1 << 30) - 1
_UTIME_OMIT = (1 << 30) - 2


# Operations that move bytes: they may last as long as bytes move. All others work on names and
# have one total budget.
_TRANSFERS = frozenset({"read", "write", "flush", "release", "truncate", "rename", "fsync"})


def _request(
    method: Callable[Concatenate[Operations, Waiter, P], R],
) -> Callable[Concatenate[Operations, P], R]:
    """Give the method a Waiter and turn everything that it raises into an errno.

    Raises (the wrapped method): OSError with a positive errno, and nothing else.
    """
    name = method.__name__.lstrip("_")
    transfers = name in _TRANSFERS

    @functools.wraps(method)
    def answer(self: Operations, /, *args: P.args, **kwargs: P.kwargs) -> R:
        self._running.append(None)
        try:
            return method(self, self._waiter(transfers), *args, **kwargs)
        except XnatfsError as error:
            row = row_of(error)
            self._note(row)
            # A failed read is logged by ``fs``, once for each file.
            log.log(
                logging.DEBUG if name == "read" else row.level,
                "%s %s: %s",
                name,
                _subject(args),
                error,
            )
            raise OSError(row.errno, os.strerror(row.errno)) from None
        except BaseException as error:
            self._note(row_of(XnatfsError()))
            log.error("%s %s: unexpected %r", name, _subject(args), error)
            log.debug("where it came from", exc_info=True)
            raise OSError(errno.EIO, os.strerror(errno.EIO)) from None
        finally:
            self._running.pop()

    return answer


def _subject(args: tuple[object, ...]) -> str:
    """The path of a request for the log: ``rename`` has two."""
    return " ".join(repr(part) for part in args[:2] if isinstance(part, str))


def _no_attribute() -> OSError:
    """ENODATA: the file has no such extended attribute."""
    return OSError(errno.ENODATA, os.strerror(errno.ENODATA))


class Operations:
    """The face that fusepy calls, for one mount.

    Args:
        fs: the file system.
        limits: how long a request may last.
        binding: where the interrupt and the caller of a request come from.
        ready: called once the kernel has answered the mount.

    Threading: called from any number of libfuse's threads at once. ``_mu`` guards the errors and
    changes of the set; ``fs`` guards itself.
    """

    # fusepy: times as integer nanoseconds, and UTIME_NOW and UTIME_OMIT as the kernel got them.
    use_ns = True
    flag_utime_omit_ok = 1

    def __init__(
        self, fs: FileSystem, limits: Limits, binding: Binding, ready: Callable[[], None]
    ) -> None:
        self._fs = fs
        self._limits = limits
        self._binding = binding
        self._ready = ready
        self._ending = threading.Event()
        self._mu = threading.Lock()
        self._errors: Counter[str] = Counter()
        # An entry for each request that runs; a list grows and shrinks without a lock.
        self._running: list[None] = []
        # Handles that may write.
        self._writing: set[int] = set()

    def __call__(self, operation: str, *args: Any) -> Any:
        """How fusepy calls an operation."""
        self._binding.keep()
        return getattr(self, operation)(*args)

    def busy(self) -> bool:
        """Whether a request runs or a file is open for writing."""
        with self._mu:
            return bool(self._running or self._writing)

    def writing(self) -> bool:
        """Whether a file is open for writing."""
        with self._mu:
            return bool(self._writing)

    def errors(self) -> dict[str, int]:
        """How many requests failed, by the name of the errno; what is normal does not count."""
        with self._mu:
            return dict(self._errors)

    def _note(self, row: Row) -> None:
        if row.level > logging.DEBUG:
            with self._mu:
                self._errors[errno.errorcode[row.errno]] += 1

    def give_up(self) -> None:
        """The mount goes away: end every wait."""
        self._ending.set()

    def _caller(self, fi: Any) -> Caller:
        """Who asks; looked up where it counts only, because that costs a read of /proc."""
        writes = fi.flags & os.O_ACCMODE != os.O_RDONLY or fi.fh in self._writing
        return self._binding.caller() if writes else Caller()

    def _waiter(self, transfers: bool) -> Waiter:  # noqa: FBT001 -- as the decorator knows it
        limit = self._limits.io_timeout_s
        given_up = self._binding.interruption()
        ending = self._ending

        def interrupted() -> bool:
            return ending.is_set() or given_up()

        if transfers:
            return Waiter(None, limit, interrupted)
        return Waiter(limit, None, interrupted)

    def _opened(self, fi: Any, opened: Opened) -> int:
        fi.fh = opened.handle
        fi.keep_cache = int(opened.keep_pages)
        if fi.flags & os.O_ACCMODE != os.O_RDONLY:
            with self._mu:
                self._writing.add(opened.handle)
        return 0

    # the mount itself

    def init(self, _path: str) -> None:
        """The kernel answered: the mount is there."""
        self._ready()

    # names

    @_request
    def getattr(self, waiter: Waiter, path: str, fi: Any = None) -> dict[str, int]:
        return _stat(self._fs.getattr(path, fi.fh if fi else None, waiter))

    @_request
    def readdir(self, waiter: Waiter, path: str, _fh: int) -> list[Any]:
        # A list, not an iterator: what fails must fail inside the wrapper.
        return [".", "..", *map(_name, self._fs.readdir(path, waiter))]

    @_request
    def readlink(self, waiter: Waiter, path: str) -> str:
        return self._fs.readlink(path, waiter)

    @_request
    def mkdir(self, waiter: Waiter, path: str, _mode: int) -> None:
        self._fs.mkdir(path, waiter)

    @_request
    def rmdir(self, waiter: Waiter, path: str) -> None:
        self._fs.rmdir(path, waiter)

    @_request
    def unlink(self, waiter: Waiter, path: str) -> None:
        self._fs.unlink(path, waiter)

    @_request
    def rename(self, waiter: Waiter, old: str, new: str) -> None:
        self._fs.rename(old, new, waiter)

    @_request
    def symlink(self, waiter: Waiter, path: str, target: str) -> None:
        self._fs.symlink(path, target, waiter)

    @_request
    def link(self, waiter: Waiter, path: str, target: str) -> None:
        self._fs.link(path, target, waiter)

    @_request
    def mknod(self, waiter: Waiter, path: str, mode: int, _dev: int) -> None:
        self._fs.mknod(path, mode, waiter)

    @_request
    def chmod(self, waiter: Waiter, path: str, mode: int) -> None:
        self._fs.chmod(path, stat.S_IMODE(mode), waiter)

    @_request
    def chown(self, waiter: Waiter, path: str, uid: int, gid: int) -> None:
        self._fs.chown(path, uid, gid, waiter)

    @_request
    def utimens(self, waiter: Waiter, path: str, times: tuple[int, int] | None) -> None:
        atime, mtime = times or (_UTIME_NOW, _UTIME_NOW)
        if atime == mtime == _UTIME_OMIT:
            return
        known = self._fs.getattr(path, None, waiter).mtime if _UTIME_OMIT in (atime, mtime) else 0.0
        self._fs.utimens(path, _seconds(atime, known), _seconds(mtime, known), waiter)

    def getxattr(self, path: str, name: str) -> bytes:
        """The value of an attribute; what XNAT cannot have is answered from memory."""
        if name.startswith(_NEVER_SET):
            raise _no_attribute()
        try:
            return self._getxattr(path, name)
        except OSError as error:
            # The path exists, the kernel has looked it up: what is missing is the attribute.
            if error.errno in (errno.ENOENT, errno.ENOTSUP):
                raise _no_attribute() from None
            raise

    @_request
    def _getxattr(self, waiter: Waiter, path: str, name: str) -> bytes:
        return self._fs.getxattr(path, name, waiter)

    @_request
    def listxattr(self, waiter: Waiter, path: str) -> list[str]:
        return self._fs.listxattr(path, waiter)

    @_request
    def setxattr(self, waiter: Waiter, path: str, name: str, value: bytes, _options: int) -> None:
        self._fs.setxattr(path, name, value, waiter)

    @_request
    def removexattr(self, waiter: Waiter, path: str, name: str) -> None:
        self._fs.removexattr(path, name, waiter)

    # files; ``fi`` is fusepy's raw fuse_file_info

    @_request
    def open(self, waiter: Waiter, path: str, fi: Any) -> int:
        return self._opened(fi, self._fs.open(path, fi.flags, self._caller(fi), waiter))

    @_request
    def create(self, waiter: Waiter, path: str, mode: int, fi: Any) -> int:
        caller = self._caller(fi)
        mode = stat.S_IMODE(mode)
        return self._opened(fi, self._fs.create(path, fi.flags, mode, caller, waiter))

    @_request
    def read(self, waiter: Waiter, _path: str, size: int, offset: int, fi: Any) -> bytes:
        return self._fs.read(fi.fh, size, offset, waiter)

    @_request
    def write(self, waiter: Waiter, _path: str, data: bytes, offset: int, fi: Any) -> int:
        return self._fs.write(fi.fh, data, offset, waiter)

    @_request
    def truncate(self, waiter: Waiter, path: str, length: int, fi: Any = None) -> None:
        self._fs.truncate(path, length, fi.fh if fi else None, waiter)

    def flush(self, path: str, fi: Any) -> None:
        # Every close of every descriptor comes here; one that only reads has nothing to tell.
        if fi.fh in self._writing:
            self._flush(path, fi)

    @_request
    def _flush(self, waiter: Waiter, _path: str, fi: Any) -> None:
        self._fs.flush(fi.fh, self._caller(fi), waiter)

    @_request
    def fsync(self, waiter: Waiter, _path: str, _datasync: int, fi: Any) -> None:
        self._fs.fsync(fi.fh, waiter)

    @_request
    def release(self, waiter: Waiter, _path: str, fi: Any) -> None:
        if fi.fh in self._writing:
            with self._mu:
                self._writing.discard(fi.fh)
        self._fs.release(fi.fh, waiter)

    @_request
    def statfs(self, _waiter: Waiter, _path: str) -> dict[str, int]:
        space = self._fs.statfs()
        return {
            "f_bsize": space.block_size,
            "f_frsize": space.block_size,
            "f_blocks": space.blocks,
            "f_bfree": space.blocks_free,
            "f_bavail": space.blocks_available,
            "f_files": space.files,
            "f_ffree": space.files_free,
            "f_favail": space.files_free,
            "f_namemax": 255,
        }

    def ioctl(self, *_args: Any) -> int:
        """ENOTTY: an answer of 0 would make every file a terminal."""
        raise OSError(errno.ENOTTY, os.strerror(errno.ENOTTY))


def _stat(attributes: Attributes) -> dict[str, int]:
    """``Attributes`` as fusepy wants a struct stat; one time stands for all three."""
    nanoseconds = int(attributes.mtime * 1e9)
    return {
        "st_mode": _TYPE_BITS[attributes.kind] | attributes.mode,
        "st_size": attributes.size,
        "st_blocks": -(-attributes.size // 512),
        "st_blksize": 1 << 17,  # the largest read that libfuse 2 sends
        "st_ino": attributes.ino,
        "st_nlink": attributes.links,
        "st_uid": attributes.uid,
        "st_gid": attributes.gid,
        "st_atime": nanoseconds,
        "st_mtime": nanoseconds,
        "st_ctime": nanoseconds,
    }


def _name(entry: Entry) -> tuple[str, dict[str, int], int]:
    """One name of a listing; the kernel looks at type and inode only."""
    return entry.name, {"st_mode": _TYPE_BITS[entry.kind], "st_ino": entry.ino}, 0


def _seconds(nanoseconds: int, known: float) -> float:
    """A time of utimensat(2) in seconds since the epoch; ``known`` where it is to stay."""
    if nanoseconds == _UTIME_NOW:
        return time.time()
    return known if nanoseconds == _UTIME_OMIT else nanoseconds / 1e9
