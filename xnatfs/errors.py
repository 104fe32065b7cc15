"""The project's errors: what went wrong, in words that name the path and the remedy.

Every layer raises these and nothing else. None of them is an OSError: errno is chosen in
``xnatfs.fuse.errnos`` and exit codes in ``xnatfs.cli.exits``, each in one table.

    XnatfsError
    ├── UsageError            the command line or the configuration is wrong
    ├── NameProblem
    │   ├── NotFound          no such name in its parent's listing
    │   ├── AlreadyExists
    │   ├── BadName           the server cannot store or address this name
    │   ├── NotAFolder / IsAFolder / FolderNotEmpty / NotALink
    │   ├── CrossResource     a rename that leaves the resource
    │   └── InUse             a mount that somebody works in
    ├── Refused
    │   ├── NotPermitted      the server does not let this user
    │   ├── Protected         the safe default: the option that allows it is named
    │   ├── NotSupported      XNAT has no such thing (links, devices)
    │   └── ReadOnly          the mount is read-only
    ├── ServerProblem
    │   ├── Unreachable       no connection, name not resolved, TLS refused
    │   ├── NotXnat           somebody answers, but it is not XNAT
    │   ├── LoginRefused      a definite 401
    │   ├── ServerBusy        429, 502, 503, 504                         (temporary)
    │   ├── ServerFault       5xx otherwise
    │   ├── BadReply          a reply of another kind than asked for
    │   ├── TransferBroken    the connection broke in the middle          (temporary)
    │   └── Offline           --offline and not in the store
    ├── ContentProblem
    │   ├── Stale             the server has another version than the pinned one
    │   ├── Contradiction     the bytes contradict the catalog, twice
    │   └── Conflict          somebody else's version stands where ours should go
    ├── WaitEnded
    │   ├── TimedOut
    │   └── Interrupted
    ├── SpaceProblem
    │   ├── NoSpace
    │   └── QuotaExceeded
    ├── DiskFault             the local disk failed in another way
    └── FuseUnusable          FUSE cannot be used here; says what to install
"""

from __future__ import annotations


class XnatfsError(Exception):
    """Root of the project's errors. ``str(error)`` is one line for a person.

    ``temporary`` tells the one retry place (``rest.session``) whether trying again can help.
    """

    temporary = False


class UsageError(XnatfsError):
    """The command line or the configuration is wrong."""


class NameProblem(XnatfsError):
    """Something is wrong with a name."""


class NotFound(NameProblem):
    """No such name in its parent's listing."""


class AlreadyExists(NameProblem):
    """The name is taken."""


class BadName(NameProblem):
    """The server cannot store or address this name."""


class NotAFolder(NameProblem):
    """A folder was needed."""


class IsAFolder(NameProblem):
    """A file was needed."""


class NotALink(NameProblem):
    """A symbolic link was needed."""


class FolderNotEmpty(NameProblem):
    """The folder still has entries."""


class CrossResource(NameProblem):
    """A rename from one resource to another; ``mv`` copies instead."""


class InUse(NameProblem):
    """The mount cannot go away while somebody works in it; the message says who."""


class Refused(XnatfsError):
    """It could be done, but may not."""


class NotPermitted(Refused):
    """The server does not let this user do it."""


class Protected(Refused):
    """The safe default forbids it; the message names the option that allows it."""


class NotSupported(Refused):
    """XNAT has no such thing."""


class ReadOnly(Refused):
    """The mount, or this part of it, is read-only."""


class ServerProblem(XnatfsError):
    """The server, or the way to it."""


class Unreachable(ServerProblem):
    """No connection: name not resolved, refused, TLS not trusted."""

    temporary = True


class NotXnat(ServerProblem):
    """Somebody answers at this address, but it is not XNAT."""


class LoginRefused(ServerProblem):
    """A definite 401: never tried again with the same secret (R§6: 20 failures lock)."""


class ServerBusy(ServerProblem):
    """429, 502, 503 or 504: try again later.

    Args:
        message: one line.
        retry_after: seconds that the server asked us to wait, or None.
    """

    temporary = True

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerFault(ServerProblem):
    """Another 5xx, or a status that the call does not know."""


class BadReply(ServerProblem):
    """A reply of another kind than asked for: HTML, an empty body, a wrong parent."""


class TransferBroken(ServerProblem):
    """The connection broke in the middle of a body."""

    temporary = True


class Offline(ServerProblem):
    """The mount is offline and the store does not have it."""


class ContentProblem(XnatfsError):
    """The bytes are not what they should be."""


class Stale(ContentProblem):
    """The server holds another version than the one that was opened."""


class Contradiction(ContentProblem):
    """Two identical downloads contradict the server's catalog."""


class Conflict(ContentProblem):
    """Somebody else's version stands where ours should go."""


class WaitEnded(XnatfsError):
    """A wait ended without its result."""


class TimedOut(WaitEnded):
    """No progress within the limit, or the total budget is used up."""

    temporary = True


class Interrupted(WaitEnded):
    """The waiting process got a signal, or the mount is going away."""


class SpaceProblem(XnatfsError):
    """No room."""


class NoSpace(SpaceProblem):
    """The disk is full, or the bound of the spool is reached."""


class QuotaExceeded(SpaceProblem):
    """The user's quota is used up."""


class DiskFault(XnatfsError):
    """The local disk failed."""


class FuseUnusable(XnatfsError):
    """FUSE cannot be used on this machine; the message says what to install or allow."""
