"""Unmounting: let the mount send what is left, take it away, hear its last word."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from xnatfs.errors import BadReply, NotFound, TimedOut
from xnatfs.fuse import control, mounts
from xnatfs.fuse.farewell import Farewell

log = logging.getLogger(__name__)

# Beyond its own limits (--drain, the logout) a mount gets this long to end after it is gone.
_GRACE_S = 15.0


def unmount(
    mountpoint: Path,
    state_folder: Path,
    *,
    wait_s: float | None,
    progress: Callable[[int], None],
) -> Farewell:
    """Unmount and wait for the mount's process to end.

    Args:
        mountpoint: as given.
        state_folder: where the records are.
        wait_s: how long uploads may go on before the mount is taken away; None: until done.
        progress: told the number of uploads still to come.

    Returns: what the mount said at its end; of one that had died, what its record tells.

    Raises: NotFound: nothing of ours is mounted there. InUse. NotPermitted. TimedOut: the
        mount's process hangs (the mount is away).
    """
    place = mounts.absolute(mountpoint)
    record = control.record_of(state_folder, place)
    there = mounts.mounted_at(place)
    if there is None or there.fstype != mounts.FSTYPE:
        if record is not None and not control.is_alive(record):
            control.remove_record(state_folder, record)
            if record.ended:
                return _left_behind(record)
        raise NotFound(f"{mountpoint}: nothing is mounted here by xnatfs")
    if record is None or mounts.is_dead(place) or not control.is_alive(record):
        # Nobody to talk to: dead, or of another user or state folder.
        mounts.unmount(place, lazy=mounts.is_dead(place))
        if record is None:
            return Farewell()
        control.remove_record(state_folder, record)
        return _left_behind(record)
    return _by_talking(place, record, state_folder, wait_s, progress)


def _by_talking(
    place: Path,
    record: control.Record,
    state_folder: Path,
    wait_s: float | None,
    progress: Callable[[int], None],
) -> Farewell:
    request = {"verb": "umount", "wait": wait_s}
    replies = control.ask(record, request, record.drain_s + _GRACE_S)
    for reply in replies:
        if reply.get("in_use"):
            raise mounts.in_use(place)
        if "pending" in reply:
            progress(int(reply["pending"]))
        if reply.get("drained"):
            break
    mounts.unmount(place)
    with suppress(BadReply):  # most have ended by themselves
        for _ in control.ask(record, {"verb": "end"}, record.drain_s + _GRACE_S):
            pass  # its last word comes on the other connection
    last = _await_end(replies, record)
    if last is None:
        return _left_behind(record)
    control.remove_record(state_folder, record)
    return last


def _await_end(replies: Any, record: control.Record) -> Farewell | None:
    """The last word and the end of the process; None when it died without one."""
    last = None
    try:
        # The connection ends when the process does.
        for reply in replies:
            if "ended" in reply:
                last = Farewell(**reply["ended"])
    except TimedOut:
        raise TimedOut(
            f"{record.mountpoint} is unmounted, but its process {record.pid} still runs; "
            "`xnatfs uploads` shows what has not arrived"
        ) from None
    except BadReply as error:
        log.debug("%s", error)
    return last


def _left_behind(record: control.Record) -> Farewell:
    return Farewell(pending=record.pending, read_failures=record.read_failures)
