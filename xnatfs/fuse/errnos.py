"""From the project's errors to the kernel's: the one table of errnos.

``fuse.operations`` looks an error up here before it answers the kernel. The row also holds the
level at which the failure is logged: a name that does not exist is no warning.
"""

from __future__ import annotations

import errno
import logging
from dataclasses import dataclass

from xnatfs import errors


@dataclass(frozen=True, slots=True)
class Row:
    """What one class of errors becomes."""

    # Positive, as fusepy wants it.
    errno: int
    # Level of the log line.
    level: int


def _row(number: int, level: int = logging.WARNING) -> Row:
    return Row(number, level)


TABLE: dict[type[errors.XnatfsError], Row] = {
    errors.XnatfsError: _row(errno.EIO, logging.ERROR),
    errors.UsageError: _row(errno.EINVAL),
    # Names. Programs probe for names all day long: debug, where that is normal.
    errors.NameProblem: _row(errno.EINVAL),
    errors.NotFound: _row(errno.ENOENT, logging.DEBUG),
    errors.AlreadyExists: _row(errno.EEXIST, logging.DEBUG),
    errors.BadName: _row(errno.EINVAL),
    errors.NotAFolder: _row(errno.ENOTDIR, logging.DEBUG),
    errors.IsAFolder: _row(errno.EISDIR, logging.DEBUG),
    # readlink(2) says EINVAL for what is no link.
    errors.NotALink: _row(errno.EINVAL, logging.DEBUG),
    errors.FolderNotEmpty: _row(errno.ENOTEMPTY, logging.DEBUG),
    # mv(1) copies and removes when it sees this one.
    errors.CrossResource: _row(errno.EXDEV, logging.DEBUG),
    errors.InUse: _row(errno.EBUSY, logging.DEBUG),
    # EACCES: the server says no. EPERM: our own safe default says no, and an option helps.
    # Both words are true to POSIX, and a user who reads them can tell who refused.
    errors.Refused: _row(errno.EPERM, logging.INFO),
    errors.NotPermitted: _row(errno.EACCES, logging.INFO),
    errors.Protected: _row(errno.EPERM, logging.INFO),
    # link(2) would say EPERM, but cp -p stays silent about attributes only for ENOTSUP, and
    # for ``ln`` "Operation not supported" is the better explanation too.
    errors.NotSupported: _row(errno.ENOTSUP, logging.DEBUG),
    errors.ReadOnly: _row(errno.EROFS, logging.INFO),
    # The server. EIO is what programs stop at; a few tell more by their text.
    errors.ServerProblem: _row(errno.EIO),
    # "No route to host": doubtful for a refused connection, but it sends people to the network.
    errors.Unreachable: _row(errno.EHOSTUNREACH),
    errors.NotXnat: _row(errno.EIO),
    # While mounted: the password was changed or the token ended; EACCES is what a user sees.
    errors.LoginRefused: _row(errno.EACCES),
    # Not EAGAIN: on a regular file programs spin on it. The retries are over when it gets here.
    errors.ServerBusy: _row(errno.EIO),
    errors.ServerFault: _row(errno.EIO),
    errors.BadReply: _row(errno.EIO),
    errors.TransferBroken: _row(errno.EIO),
    # "Network is down": not EIO, because nothing is broken.
    errors.Offline: _row(errno.ENETDOWN),
    errors.ContentProblem: _row(errno.EIO),
    errors.Stale: _row(errno.ESTALE),
    errors.Contradiction: _row(errno.EIO, logging.ERROR),
    # Somebody else's version stands there: "File exists" is the nearest that close(2) can say.
    errors.Conflict: _row(errno.EEXIST),
    errors.WaitEnded: _row(errno.EIO),
    errors.TimedOut: _row(errno.ETIMEDOUT),
    errors.Interrupted: _row(errno.EINTR, logging.DEBUG),
    errors.SpaceProblem: _row(errno.ENOSPC),
    errors.NoSpace: _row(errno.ENOSPC),
    errors.QuotaExceeded: _row(errno.EDQUOT),
    errors.DiskFault: _row(errno.EIO, logging.ERROR),
    errors.FuseUnusable: _row(errno.EIO, logging.ERROR),
}


def row_of(error: errors.XnatfsError) -> Row:
    """The row of the error's class, or of the nearest class above it."""
    for kind in type(error).__mro__:
        if kind in TABLE:
            return TABLE[kind]
    return TABLE[errors.XnatfsError]
