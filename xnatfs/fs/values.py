"""What the file system answers and is asked with: attributes, entries, callers, failures."""

from __future__ import annotations

from dataclasses import dataclass

from xnatfs.model.entities import Kind

__all__ = ["Attributes", "Caller", "Entry", "Kind", "Opened", "ReadFailure", "Space"]


@dataclass(frozen=True, slots=True)
class Attributes:
    """The attributes of one entry."""

    kind: Kind
    # Permission bits only (0o755).
    mode: int
    # Bytes.
    size: int
    # Stable over the life of the mount, never 0.
    ino: int
    uid: int
    gid: int
    # Seconds since the epoch.
    mtime: float
    # 1 for folders too: nobody counts sub-folders here (design: attributes).
    links: int = 1


@dataclass(frozen=True, slots=True)
class Entry:
    """One name of a folder's listing."""

    name: str
    kind: Kind
    ino: int


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks: the thread group (process) behind a request.

    ``pid`` is the thread group id, or 0 when it could not be found out.
    """

    pid: int = 0


@dataclass(frozen=True, slots=True)
class Opened:
    """The answer to an open.

    ``keep_pages``: the kernel may keep the pages it has of this file (same version as before).
    """

    handle: int
    keep_pages: bool


@dataclass(frozen=True, slots=True)
class Space:
    """The disk that holds the spool (statfs). Bytes and counts."""

    block_size: int
    blocks: int
    blocks_free: int
    blocks_available: int
    files: int
    files_free: int


@dataclass(frozen=True, slots=True)
class ReadFailure:
    """A read that failed in the end, for ``status``, ``umount`` and ``run`` (exit 74)."""

    path: str
    reason: str
    time: float
