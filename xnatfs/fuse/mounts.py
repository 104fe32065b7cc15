"""The mounts of this machine as the kernel sees them: what is mounted where, who holds it, away.

Used before mounting and when unmounting; never asks a file system that may hang: what is
mounted stands in /proc, and a stat of a dead mount fails at once.
"""

from __future__ import annotations

import ctypes
import errno
import logging
import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from xnatfs.errors import (
    AlreadyExists,
    DiskFault,
    FolderNotEmpty,
    InUse,
    NotAFolder,
    NotFound,
    NotPermitted,
)

log = logging.getLogger(__name__)

FSTYPE = "fuse.xnatfs"

# <sys/mount.h>
_MNT_DETACH = 2

# fusermount only talks to the kernel; a hung one must not hang us.
_FUSERMOUNT_S = 10.0


@dataclass(frozen=True, slots=True)
class Mounted:
    """One line of the kernel's list of mounts."""

    mountpoint: str
    fstype: str
    # For ours: the server.
    source: str


def absolute(mountpoint: Path) -> Path:
    """The mount point without links, as the kernel lists it; works on a dead mount too."""
    return Path(os.path.realpath(mountpoint))


def mounted() -> list[Mounted]:
    """What is mounted in this mount namespace, in the order of mounting."""
    text = Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape")
    found = []
    for line in text.splitlines():
        left, _, right = line.partition(" - ")
        fields, (fstype, source, *_) = left.split(" "), right.split(" ")
        found.append(Mounted(_plain(fields[4]), fstype, _plain(source)))
    return found


def _plain(field: str) -> str:
    """Undo the kernel's octal escapes of spaces, tabs, line ends and backslashes."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), field)


def mounted_at(mountpoint: Path) -> Mounted | None:
    """What is mounted at exactly this (absolute) folder; the uppermost of several."""
    found = [entry for entry in mounted() if entry.mountpoint == str(mountpoint)]
    return found[-1] if found else None


def is_dead(mountpoint: Path) -> bool:
    """Whether a mount's process is gone: every access fails with ENOTCONN."""
    try:
        # The kernel answers stat(2) from memory for as long as it believes the attributes;
        # statfs(2) always asks the process.
        os.statvfs(mountpoint)
    except OSError as error:
        return error.errno in (errno.ENOTCONN, errno.ECONNABORTED)
    return False


def prepare(mountpoint: Path) -> Path:
    """Make sure that something can be mounted here; cleans up a mount whose process is gone.

    Returns: the absolute mount point.

    Raises: NotFound, NotAFolder, FolderNotEmpty, AlreadyExists (something of ours is mounted
        there and alive), NotPermitted.
    """
    place = absolute(mountpoint)
    # A second one may lie below: libfuse 3 mounts on top of a dead one.
    while is_dead(place):
        log.warning("%s: its process is gone; cleaned up", place)
        unmount(place, lazy=True)
    there = mounted_at(place)
    if there is not None and there.fstype == FSTYPE:
        raise AlreadyExists(
            f"{mountpoint}: {there.source} is already mounted here; "
            f"`xnatfs umount {mountpoint}` unmounts it"
        )
    try:
        names = os.listdir(place)
    except FileNotFoundError as error:
        raise NotFound(
            f"{mountpoint}: the mount point does not exist; make it with mkdir -p"
        ) from error
    except NotADirectoryError as error:
        raise NotAFolder(f"{mountpoint}: the mount point is not a folder") from error
    except PermissionError as error:
        raise NotPermitted(f"{mountpoint}: the mount point may not be read") from error
    except OSError as error:
        raise DiskFault(f"{mountpoint}: {error.strerror}") from error
    if names:
        raise FolderNotEmpty(
            f"{mountpoint}: the mount point is not empty ({names[0]!r} is there); "
            "its files would be hidden: choose an empty folder"
        )
    if os.geteuid() != 0 and not os.access(place, os.W_OK):
        raise NotPermitted(
            f"{mountpoint}: only who may write into a folder may mount there; choose one of yours"
        )
    return place


def fusermount() -> str | None:
    """The program that unmounts for a user who is not root."""
    return shutil.which("fusermount3") or shutil.which("fusermount")


def unmount(mountpoint: Path, *, lazy: bool = False) -> None:
    """Take a mount away.

    Args:
        mountpoint: absolute.
        lazy: out of sight at once, in truth when the last open file is closed.

    Raises: InUse. NotPermitted: it belongs to somebody else. NotFound: nothing is
        mounted there. DiskFault.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.umount2(os.fsencode(mountpoint), _MNT_DETACH if lazy else 0) == 0:
        return
    number = ctypes.get_errno()
    if number == errno.EPERM:
        _by_fusermount(mountpoint, lazy=lazy)
    elif number == errno.EBUSY:
        raise in_use(mountpoint)
    elif number in (errno.EINVAL, errno.ENOENT):
        raise NotFound(f"{mountpoint}: nothing is mounted here")
    else:
        raise DiskFault(f"{mountpoint}: cannot unmount: {os.strerror(number)}")


def _by_fusermount(mountpoint: Path, *, lazy: bool) -> None:
    program = fusermount()
    if program is None:
        raise NotPermitted(f"{mountpoint}: only root may unmount here, fusermount3 is missing")
    command = [program, "-uz" if lazy else "-u", "--", str(mountpoint)]
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=_FUSERMOUNT_S,
            check=False,
            # Its messages are read below.
            env={**os.environ, "LC_ALL": "C"},
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise DiskFault(f"{mountpoint}: {program} failed: {error}") from error
    if done.returncode == 0:
        return
    words = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
    if "busy" in words[0]:
        raise in_use(mountpoint)
    if "not found" in words[0] and mounted_at(mountpoint) is None:
        raise NotFound(f"{mountpoint}: nothing is mounted here")
    raise NotPermitted(f"{mountpoint}: {words[0]}")


def in_use(mountpoint: Path) -> InUse:
    """The error that says who works below a mount point."""
    who = holders(mountpoint)
    names = ", ".join(f"{name} (process {pid})" for pid, name in who[:5])
    more = f" and {len(who) - 5} more" if len(who) > 5 else ""
    seen = f"{names}{more}" if names else "a process that this user may not see"
    return InUse(
        f"{mountpoint}: in use by {seen}; leave the folder and close its files, then try again"
    )


def holders(mountpoint: Path) -> list[tuple[int, str]]:
    """The processes that work below a mount point, as far as /proc tells this user.

    Returns: (process id, name) of each.
    """
    found = []
    for entry in sorted((name for name in os.listdir("/proc") if name.isdigit()), key=int):
        process = Path("/proc", entry)
        if int(entry) != os.getpid() and any(
            link == str(mountpoint) or link.startswith(f"{mountpoint}/") for link in _links(process)
        ):
            found.append((int(entry), _process_name(process)))
    return found


def _links(process: Path) -> list[str]:
    """What a process has open, works in and has mapped; nothing of what may not be read."""
    places = [process / "cwd", process / "root"]
    with suppress(OSError):
        places += [process / "fd" / name for name in os.listdir(process / "fd")]
    links = []
    for place in places:
        try:
            links.append(os.readlink(place))
        except OSError:
            continue
    try:
        maps = (process / "maps").read_text(encoding="utf-8", errors="surrogateescape")
    except OSError:
        return links
    return links + [line[line.index("/") :] for line in maps.splitlines() if "/" in line]


def _process_name(process: Path) -> str:
    try:
        return (process / "comm").read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return "?"
