"""What can become of an upload, and what its record says then."""

from __future__ import annotations

from xnatfs.errors import (
    AlreadyExists,
    BadReply,
    Conflict,
    Interrupted,
    Offline,
    ServerFault,
    XnatfsError,
)
from xnatfs.model.entities import RemoteFile
from xnatfs.upload.upload import Upload

# What the server holds, or why it does not.
Outcome = RemoteFile | XnatfsError


def may_pass(error: XnatfsError) -> bool:
    """Whether what failed may succeed later without anybody's doing."""
    return error.temporary or isinstance(error, ServerFault | BadReply | Interrupted | Offline)


def ends_all(outcome: Outcome) -> XnatfsError | None:
    """An error of the server as a whole, or of the way to it: no use trying the next file."""
    if isinstance(outcome, XnatfsError) and may_pass(outcome):
        return None if isinstance(outcome, ServerFault | BadReply) else outcome
    return None


def note(upload: Upload, error: XnatfsError, *, asked: bool, comes_again: bool) -> None:
    """Put the reason into the record.

    Args:
        upload: what did not arrive.
        error: why.
        asked: whether the server may have it all the same.
        comes_again: it is tried again later if that ``may_pass``.
    """
    if isinstance(error, Interrupted | Offline) or (comes_again and may_pass(error)):
        upload.trouble(str(error), asked=asked)
    elif isinstance(error, AlreadyExists | Conflict):
        upload.conflict(str(error))
    else:
        upload.fail(str(error), asked=asked)
