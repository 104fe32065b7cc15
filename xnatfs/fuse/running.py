"""A mount for one command: the process that a person or a scheduler started, and waits for.

Three processes: this one; a child that serves the mount (``company``), in a mount namespace of
its own where that is allowed; and the command, the server's child. This one passes signals on
and hears how it ended. Whichever of them is killed, the others end, too.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NoReturn

from xnatfs.config import Settings, make_private
from xnatfs.errors import DiskFault, FuseUnusable, UsageError, XnatfsError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.fuse import control, mounting, mounts, private, readiness
from xnatfs.fuse.command import Command, Order, Refusal
from xnatfs.fuse.company import Company
from xnatfs.fuse.farewell import Farewell
from xnatfs.fuse.serving import Plan, Progress
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# What a program may be told by signals; the terminal's stop and continue reach the command by
# themselves.
_PASSED_ON = frozenset(
    {
        signal.SIGHUP,
        signal.SIGINT,
        signal.SIGQUIT,
        signal.SIGTERM,
        signal.SIGUSR1,
        signal.SIGUSR2,
        signal.SIGALRM,
        signal.SIGXCPU,
    }
)

# <asm-generic/siginfo.h>: sent by the kernel, which for these means: by the terminal.
_SI_KERNEL = 0x80

# How the names of temporary mount points begin.
_TEMPORARY = "xnatfs-run-"

# After the mount's process was killed.
_KILLING_S = 4.0

# Logs in for a mount at this place.
ConnectAt = Callable[[Path], mounting.Connect]


@dataclass(frozen=True, slots=True)
class Outcome:
    """How it went."""

    # As waitpid(2) has it; None if there is none, because it could not be run or was killed
    # together with its mount.
    status: int | None = None
    refusal: Refusal | None = None
    # None: the mount's process was killed before it could say anything.
    last: Farewell | None = None
    # Processes of the command, (id, name), that run on without the mount.
    left: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Errand:
    """What ``run`` is asked for."""

    # The command.
    words: list[str]
    # The folder of the archive where it starts, as a person names it; None: where ``run`` is.
    folder: str | None
    # Where to mount; None: a place of our own.
    at: Path | None
    # How to mount; its mount point does not count yet.
    plan: Plan


def run(connect: ConnectAt, settings: Settings, errand: Errand, progress: Progress) -> Outcome:
    """Mount for a command, run it, and send what it wrote.

    Args:
        connect: logs in.
        settings: all of them.
        errand: what to do.
        progress: told the number of uploads still to come.

    Raises: FuseUnusable, what ``connect`` raises, those of ``mounts.prepare``: nothing was run.
    """
    readiness.check(allow_other=False, private=True)
    _tidy(settings.state_folder)
    mask = _hold_signals()
    private.adopt_orphans()
    place = mounts.prepare(errand.at or _own_place(settings.state_folder))
    attempt = _Attempt(connect(place), settings, errand, mask, progress)
    try:
        return attempt.at(place, apart=True, temporary=False)
    except FuseUnusable as error:
        log.info("%s", error)
        why = error
    try:
        readiness.check(allow_other=errand.plan.allow_other)
    except FuseUnusable as error:
        raise FuseUnusable(f"{error}; and {why}") from None
    temporary = errand.at is None
    if temporary:
        place = Path(tempfile.mkdtemp(prefix=_TEMPORARY)).resolve()
        attempt = replace(attempt, connect=connect(place))
    return attempt.at(place, apart=False, temporary=temporary)


def _tidy(state_folder: Path) -> None:
    """Take away what is left of those that were killed: records, mounts at temporary places."""
    for record in control.records(state_folder, socket.gethostname()):
        if not record.for_command or control.is_alive(record):
            continue
        if record.seen:
            _clean_up(Path(record.mountpoint))
        control.remove_record(state_folder, record)


def _clean_up(place: Path) -> None:
    """Take away a dead mount, and its folder if that was made for it; all is well without both."""
    if mounts.is_dead(place):
        with suppress(XnatfsError):
            mounts.unmount(place, lazy=True)
    if place.name.startswith(_TEMPORARY):
        with suppress(OSError):
            place.rmdir()


def _hold_signals() -> set[int]:
    """Keep signals for ``sigwaitinfo``; returns the mask that was there before.

    One that is ignored, as nohup(1) does with SIGHUP, stays so, for the command as well.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    return signal.pthread_sigmask(signal.SIG_BLOCK, {*_heard(), signal.SIGCHLD})


def _heard() -> set[signal.Signals]:
    return {number for number in _PASSED_ON if signal.getsignal(number) != signal.SIG_IGN}


def _own_place(state_folder: Path) -> Path:
    """An empty folder that all private mounts may use: each is seen by its own command only."""
    number, place = 1, state_folder / "mnt"
    while mounts.mounted_at(mounts.absolute(place)):  # a command of ``run`` that runs another
        number += 1
        place = state_folder / f"mnt-{number}"
    try:
        make_private(place)
    except OSError as error:
        raise DiskFault(f"cannot make {place}: {error.strerror}") from error
    return place


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One try, with a namespace of its own or without."""

    connect: mounting.Connect
    settings: Settings
    errand: Errand
    # Signals that the command is to block.
    mask: set[int]
    progress: Progress

    def at(self, place: Path, *, apart: bool, temporary: bool) -> Outcome:
        """Mount there and run the command.

        Args:
            place: absolute.
            apart: in a mount namespace of its own.
            temporary: the folder is to be removed at the end.
        """
        inherited = mounting.open_files()
        ours, theirs = socket.socketpair()
        child = os.fork()
        if child == 0:
            ours.close()
            self._be_the_mount(theirs, inherited, place, apart=apart, temporary=temporary)
        theirs.close()
        try:
            heard = self._wait(child, ours)
        finally:
            ours.close()
            _clean_up(place)
        mounting.raise_told(heard)
        return _outcome(heard)

    def _be_the_mount(
        self,
        channel: socket.socket,
        inherited: set[int],
        place: Path,
        *,
        apart: bool,
        temporary: bool,
    ) -> NoReturn:
        """The process that serves; signals stay blocked in it, only ``run`` tells it to end."""
        try:
            if apart:
                private.leave_the_others()
            variables = {**os.environ, "XNATFS_MOUNT": str(place)}
            command = Command(Order(self.errand.words, variables), self.mask)
            private.adopt_orphans()
            # The terminal's signals are for the command.
            os.setpgid(0, 0)
            company = Company(
                channel, command, place, temporary=temporary,
                drain_s=self.settings.limits.drain_s,
            )  # fmt: skip
            company.listen()
            plan = replace(
                self.errand.plan, mountpoint=place, attend=company.attend,
                farewell=company.farewell,
            )  # fmt: skip

            def connect(waiter: Waiter) -> FileSystem:
                fs = self.connect(waiter)
                if self.errand.folder is not None:
                    company.folder = place / self._folder_below(fs, self.errand.folder, waiter)
                return fs

            mounting.be_the_mount(connect, self.settings, plan, inherited, company.tell)
        except BaseException as error:  # noqa: BLE001 -- ``run`` tells it
            known = isinstance(error, XnatfsError)
            kind = type(error).__name__ if known else "XnatfsError"
            report = {"error": kind, "message": str(error) if known else f"unexpected {error!r}"}
            channel.sendall(json.dumps(report).encode())
        finally:
            os._exit(1)

    def _folder_below(self, fs: FileSystem, folder: str, waiter: Waiter) -> str:
        """A folder of the archive, relative to the part of it that is mounted.

        Raises: NotFound, with the nearest name; UsageError: it lies elsewhere.
        """
        top = fs.search.resolve(self.settings.view.path, waiter).rstrip("/")
        path = fs.search.resolve(folder, waiter)
        if path != top and not path.startswith(f"{top}/"):
            raise UsageError(f"--cd {path}: only {top} is mounted (--path)")
        return path.removeprefix(top).lstrip("/")

    def _wait(self, child: int, channel: socket.socket) -> dict[str, Any]:
        """Pass signals on until the mount's process has ended; returns what it told."""
        heard: dict[str, Any] = {}
        listening = threading.Thread(
            target=_listen, args=(channel, heard, self.progress), name="listen", daemon=True
        )
        listening.start()
        wanted = {*_heard(), signal.SIGCHLD}
        while True:
            told = signal.sigwaitinfo(wanted)
            if told.si_signo == signal.SIGCHLD:
                if os.waitpid(child, os.WNOHANG)[0]:
                    break
                continue
            if "user" not in heard:
                # Nothing runs yet: an end is all that a signal can mean.
                channel.shutdown(socket.SHUT_WR)
                os.waitpid(child, 0)
                die_by(told.si_signo)
            message = {"signal": told.si_signo, "terminal": told.si_code == _SI_KERNEL}
            with suppress(OSError):
                channel.sendall(json.dumps(message).encode() + b"\n")
        if "ended" not in heard and "error" not in heard:
            _end_the_rest()
        listening.join()
        return heard


def _listen(channel: socket.socket, heard: dict[str, Any], progress: Progress) -> None:
    with suppress(OSError, ValueError), channel.makefile("rb") as lines:
        for line in lines:
            message = json.loads(line)
            if "pending" in message:
                progress(int(message["pending"]))
            heard.update(message)


def _end_the_rest() -> None:
    """The mount was killed: without it the command would go on with errors only."""
    private.end_children(_KILLING_S)
    with suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def _outcome(heard: dict[str, Any]) -> Outcome:
    refused = heard.get("refused")
    ended = heard.get("ended")
    return Outcome(
        status=heard.get("status"),
        refusal=Refusal(*refused) if refused else None,
        last=Farewell(**ended) if ended else None,
        left=[(pid, name) for pid, name in heard.get("left", [])],
    )


def die_by(number: int) -> NoReturn:
    """End as a program does that this signal ended; the waiting shell or scheduler sees it."""
    import resource

    # Whoever dumped core has done so already.
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with suppress(OSError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)
