"""A mount namespace of one's own, and the processes below one's own: what ``run`` asks Linux for.

Knows nothing of mounts of ours; every function acts on the process that calls it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import time
from contextlib import suppress
from pathlib import Path

from xnatfs.errors import FuseUnusable

# <sched.h>, <sys/mount.h>, <linux/prctl.h>
_CLONE_NEWNS = 0x00020000
_CLONE_NEWUSER = 0x10000000
_MS_REC = 1 << 14
_MS_SLAVE = 1 << 19
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

# Between two rounds of ending processes: what they leave behind becomes ours meanwhile.
_ROUND_S = 0.02


def leave_the_others() -> None:
    """Enter a mount namespace of one's own: what is mounted from here on nobody else sees.

    Root's process only splits off its mounts; another one needs a user namespace for that, in
    which it keeps its user and group and may mount until it executes another program. The
    process must have one thread.

    Raises: FuseUnusable: not allowed here. The process may be left in a user namespace in which
        it can do nothing, so it should end.
    """
    user, group = os.getuid(), os.getgid()
    try:
        try:
            _call("unshare", _CLONE_NEWNS)
        except PermissionError:
            _call("unshare", _CLONE_NEWUSER | _CLONE_NEWNS)
            # user_namespaces(7): without it the group may not be mapped.
            Path("/proc/self/setgroups").write_text("deny")
            Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
            Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
        # What the system mounts later, a home folder at its first use, still arrives here.
        _call("mount", b"none", b"/", None, ctypes.c_ulong(_MS_REC | _MS_SLAVE), None)
    except OSError as error:
        raise FuseUnusable(
            f"no mount namespace of its own is allowed here ({error.strerror}); an administrator "
            "allows it by the sysctls user.max_user_namespaces, kernel.unprivileged_userns_clone "
            "and kernel.apparmor_restrict_unprivileged_userns"
        ) from error


def why_not() -> str:
    """Why no mount namespace of its own is allowed to a process here; "": it is.

    Tried in a child process; this one must have one thread.
    """
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            leave_the_others()
        except FuseUnusable as error:
            os.write(writing, str(error).encode())
        finally:
            os._exit(0)
    os.close(writing)
    with open(reading, "rb") as pipe:
        reason = pipe.read().decode()
    os.waitpid(child, 0)
    return reason


def mount_space() -> str:
    """The name of the mount namespace that the process is in; "" when /proc does not tell."""
    try:
        return os.readlink("/proc/self/ns/mnt")
    except OSError:
        return ""


def adopt_orphans() -> None:
    """Become the parent of what processes below leave behind when they end (subreaper)."""
    _call("prctl", _PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def die_with_parent() -> None:
    """Get SIGKILL when the thread that forked this process ends; also after an exec."""
    _call("prctl", _PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def children() -> list[tuple[int, str]]:
    """The children of this process that have not ended.

    Returns: (process id, name) of each.
    """
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path("/proc", entry, "stat").read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        # proc(5): the name in parentheses may hold anything; state and parent follow it.
        head, _, tail = stat.rpartition(")")
        state, parent, *_ = tail.split()
        if int(parent) == os.getpid() and state not in ("Z", "X"):
            found.append((int(entry), head.partition("(")[2]))
    return found


def end_children(patience_s: float) -> bool:
    """Kill all processes below this one, an adopter of orphans; somebody else reaps them.

    Args:
        patience_s: for how long to try; one that waits for a disk cannot be killed meanwhile.

    Returns: whether none is left.
    """
    until = time.monotonic() + patience_s
    while left := children():
        if time.monotonic() > until:
            return False
        for pid, _ in left:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_ROUND_S)
    return True


def _call(function: str, *arguments: object) -> None:
    """A function of libc that returns 0, or sets errno. Raises OSError."""
    libc = ctypes.CDLL(None, use_errno=True)
    if getattr(libc, function)(*arguments) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
