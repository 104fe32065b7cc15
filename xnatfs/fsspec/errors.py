"""From the project's errors to Python's own, which the users of fsspec expect: the one table."""

from __future__ import annotations

import errno
import functools
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from xnatfs import errors
from xnatfs.errors import XnatfsError

P = ParamSpec("P")
T = TypeVar("T")


# Python chooses the class of an OSError by its number: ENOENT makes a FileNotFoundError.
TABLE: dict[type[XnatfsError], int] = {
    errors.XnatfsError: errno.EIO,
    errors.NotFound: errno.ENOENT,
    errors.AlreadyExists: errno.EEXIST,
    errors.Conflict: errno.EEXIST,
    errors.BadName: errno.EINVAL,
    errors.NotAFolder: errno.ENOTDIR,
    errors.IsAFolder: errno.EISDIR,
    errors.FolderNotEmpty: errno.ENOTEMPTY,
    errors.CrossResource: errno.EXDEV,
    errors.Refused: errno.EPERM,
    errors.NotPermitted: errno.EACCES,
    errors.LoginRefused: errno.EACCES,
    errors.NotSupported: errno.ENOTSUP,
    errors.ReadOnly: errno.EROFS,
    errors.Unreachable: errno.ECONNREFUSED,
    errors.NotXnat: errno.ECONNREFUSED,
    errors.TransferBroken: errno.ECONNRESET,
    errors.Stale: errno.ESTALE,
    errors.TimedOut: errno.ETIMEDOUT,
    errors.Interrupted: errno.EINTR,
    errors.NoSpace: errno.ENOSPC,
    errors.QuotaExceeded: errno.EDQUOT,
}


def builtin(error: XnatfsError) -> Exception:
    """The exception that stands for an error outside; its text is the error's."""
    if isinstance(error, errors.UsageError):
        return ValueError(str(error))
    number = next(TABLE[kind] for kind in type(error).__mro__ if kind in TABLE)
    return OSError(number, str(error))


def translated(method: Callable[P, T]) -> Callable[P, T]:
    """Let a method raise builtin exceptions in the place of the project's."""

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return method(*args, **kwargs)
        except XnatfsError as error:
            raise builtin(error) from error

    return call
