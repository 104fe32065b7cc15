"""Mounting: fork first, then log in, mount and report through a pipe.

The parent is the command that a person waits for: it returns when the mount is there, or with
the very error that the child met. Connections and threads start in the child, because none of
them survives a fork.
"""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

from xnatfs import errors, logs
from xnatfs.config import Settings, make_private
from xnatfs.errors import DiskFault, FuseUnusable, XnatfsError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.fuse import control, mounts, readiness
from xnatfs.fuse.serving import Plan, Serving, hold_signals
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

Connect = Callable[[Waiter], FileSystem]
Tell = Callable[[dict[str, Any]], None]

# How long a child may take to clean up after its command was interrupted.
_CLEAN_UP_S = 3.0


def check(mountpoint: Path, *, allow_other: bool) -> Path:
    """Everything that can be known before the login.

    Returns: the absolute mount point.

    Raises: FuseUnusable, and those of ``mounts.prepare``.
    """
    place = mounts.prepare(mountpoint)
    readiness.check(allow_other=allow_other)
    return place


def default_log(state_folder: Path, mountpoint: Path) -> Path:
    """The log file of a mount in the background."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", str(mountpoint)).strip("-") or "root"
    return state_folder / "logs" / f"{name[-100:]}.log"


def in_foreground(connect: Connect, settings: Settings, plan: Plan) -> NoReturn:
    """Mount and serve in this process, which ends with the mount.

    Raises: what ``connect`` raises; FuseUnusable.
    """
    _forget_the_ended(settings.state_folder, plan.mountpoint)
    _serve(connect, settings, plan, lambda _user: None)


def in_background(connect: Connect, settings: Settings, plan: Plan) -> str:
    """Mount in a child process that stays; returns when the mount is there.

    Returns: the name of the user at the server.

    Raises: what ``connect`` raises; FuseUnusable; DiskFault (the log file).
    """
    if plan.log_file is None:
        raise FuseUnusable("a mount in the background needs a log file")
    _forget_the_ended(settings.state_folder, plan.mountpoint)
    inherited = open_files()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:

        def tell(report: dict[str, Any]) -> None:
            with suppress(OSError):  # the command was killed meanwhile: the mount stays
                os.write(writing, json.dumps(report).encode())
                os.close(writing)

        os.setsid()
        be_the_mount(connect, settings, plan, inherited | {reading}, tell)
    os.close(writing)
    try:
        with open(reading, "rb") as pipe:
            report = pipe.read()
    except KeyboardInterrupt:
        _stop(child)
        raise
    return _understand(report, plan)


def _serve(
    connect: Connect, settings: Settings, plan: Plan, ready: Callable[[str], None]
) -> NoReturn:
    budget = settings.limits.io_timeout_s
    fs = connect(Waiter(total_s=budget))
    hold_signals()
    try:
        fs.adopt(Waiter(total_s=budget))
        fs.recover()
        Serving(fs, settings, plan, ready).run()
    except BaseException:
        fs.close()
        raise


def be_the_mount(
    connect: Connect, settings: Settings, plan: Plan, inherited: set[int], tell: Tell
) -> NoReturn:
    """In a process that was forked for it: serve; it leaves only through ``os._exit``.

    Args:
        connect: logs in.
        settings: all of them.
        plan: how to mount; with a log file.
        inherited: descriptors to close, from ``open_files`` before the fork.
        tell: hears ``user`` when the mount is there; ``error`` and ``message`` when it fails.
    """
    log_size = 0
    try:
        _let_go(inherited)
        assert plan.log_file is not None
        log_size = _to_log(plan.log_file)
        logs.set_up(plan.log_level, plan.log_file)
        # Should C code crash, the log says where we were.
        faulthandler.enable()
        os.chdir("/")
        _serve(connect, settings, plan, lambda user: tell({"user": user}))
    except FuseUnusable as error:
        said = _said(plan.log_file, log_size)
        tell({"error": type(error).__name__, "message": f"{error}{said}"})
    except XnatfsError as error:
        tell({"error": type(error).__name__, "message": str(error)})
    except BaseException as error:
        log.exception("the mount failed")
        tell({"error": "XnatfsError", "message": f"unexpected {error!r}; see {plan.log_file}"})
    finally:
        os._exit(1)


def open_files() -> set[int]:
    """Descriptors beyond stderr that the command was started with.

    A daemon that keeps them keeps the lock of a job script, or the pipe of ``$(…)``, for ever.
    """
    return {int(name) for name in os.listdir("/proc/self/fd") if int(name) > 2}


def _let_go(descriptors: set[int]) -> None:
    for descriptor in descriptors:
        with suppress(OSError):
            os.close(descriptor)


def _to_log(log_file: Path) -> int:
    """Send stdout and stderr to the log file and stdin to nowhere; returns the log's size."""
    try:
        make_private(log_file.parent)
        target = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        logs.make_file_private(target)
    except OSError as error:
        raise DiskFault(f"cannot write the log {log_file}: {error.strerror}") from error
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for source, descriptor in ((nowhere, 0), (target, 1), (target, 2)):
        os.dup2(source, descriptor)
    size = os.fstat(target).st_size
    _let_go({source for source in (nowhere, target) if source > 2})
    return size


def _said(log_file: Path | None, since: int) -> str:
    """What libfuse and fusermount said on stderr; they have no other way to explain."""
    if log_file is None:
        return ""
    try:
        with open(log_file, "rb") as file:
            file.seek(since)
            lines = file.read(1 << 16).decode(errors="replace").splitlines()
    except OSError:
        return ""
    words = [line for line in lines if line.startswith("fuse")]
    return f" ({words[-1]})" if words else ""


def _stop(child: int) -> None:
    """End a child that has not mounted yet; one that has, unmounts."""
    until = time.monotonic() + _CLEAN_UP_S
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(child, signal.SIGTERM)
        while time.monotonic() < until:
            if os.waitpid(child, os.WNOHANG)[0]:
                return
            time.sleep(0.05)
        os.kill(child, signal.SIGKILL)


def _understand(report: bytes, plan: Plan) -> str:
    """The child's report: the user's name, or its error, raised here."""
    try:
        words: dict[str, Any] = json.loads(report)
    except ValueError:
        raise FuseUnusable(
            f"{plan.mountpoint}: the mount died while it started; see {plan.log_file}"
        ) from None
    raise_told(words)
    return str(words["user"])


def raise_told(words: dict[str, Any]) -> None:
    """Raise the error of another process, if it told one."""
    if "error" in words:
        kind = getattr(errors, words["error"], XnatfsError)
        raise kind(words["message"])


def _forget_the_ended(state_folder: Path, mountpoint: Path) -> None:
    """The records of dead mounts at this place: what they left stands in the spool."""
    for record in control.records(state_folder):
        if record.here and record.mountpoint == str(mountpoint) and not control.is_alive(record):
            control.remove_record(state_folder, record)
