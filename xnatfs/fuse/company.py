"""The mount of ``run``, on the side that serves: it starts the command and stays as long as it.

The process that serves is the command's parent and adopts what the command leaves behind; so it
knows when nobody needs the mount any more, and can end them all should ``run`` itself die.
"""

from __future__ import annotations

import json
import logging
import math
import os
import signal
import socket
import threading
import time
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from xnatfs.errors import XnatfsError
from xnatfs.fuse import mounts
from xnatfs.fuse.command import Command
from xnatfs.fuse.farewell import Farewell
from xnatfs.fuse.private import children, end_children
from xnatfs.fuse.serving import Serving
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# Between two looks at what the command left running.
_LOOK_S = 0.05

# How long to try to kill the command when ``run`` was killed; all is to be gone within 10 s.
_KILLING_S = 4.0

# With these somebody wants an end soon: a scheduler, a terminal that closes.
_ENDING = (signal.SIGTERM, signal.SIGHUP)


class Company:
    """The attendant of a mount for one command.

    Args:
        channel: to ``run``, as JSON lines. It gets ``user``, ``error`` and ``message``,
            ``refused``, ``status``, ``left``, ``pending`` and ``ended``; it sends ``signal`` and
            ``terminal``. Its end is the end of ``run``.
        command: not started yet.
        mountpoint: absolute.
        temporary: whether the mount point was made for this mount.
        drain_s: how long to wait for what the command left running; and, once somebody wants
            an end, to go on sending.

    Threading: a thread listens to ``run``, the attendant's thread waits for the processes.
    ``_mu`` guards the rest; it is held while a signal is sent, so that the command's number is
    still its own.
    """

    def __init__(
        self,
        channel: socket.socket,
        command: Command,
        mountpoint: Path,
        *,
        temporary: bool,
        drain_s: float,
    ) -> None:
        self._channel = channel
        self._command = command
        self._mountpoint = mountpoint
        self._temporary = temporary
        self._drain_s = drain_s
        # Where the command starts; None: where ``run`` did. Set before the mount is there.
        self.folder: Path | None = None
        self._mounted = threading.Event()
        self._mu = threading.Lock()
        self._runs = False
        self._ended = False
        self._hurry = False
        # Monotonic seconds: when to be done with sending.
        self._until = math.inf

    def listen(self) -> None:
        """Hear what ``run`` says, and notice its end, from now on."""
        threading.Thread(target=self._listen, name="company", daemon=True).start()

    def tell(self, message: dict[str, Any]) -> None:
        """Tell ``run``, if it is there; that somebody is logged in means that the mount is."""
        mounted = "user" in message
        if mounted:
            with self._mu:
                # From now on signals are for the command, also while it only waits to become it.
                self._runs = True
        with suppress(OSError):
            self._channel.sendall(json.dumps(message).encode() + b"\n")
        if mounted:
            self._mounted.set()

    # what the mount asks of its attendant

    def attend(self, serving: Serving) -> None:
        """Start the command, wait for it and for what it left; then end the mount."""
        self._mounted.wait()
        refusal = self._command.start(self.folder)
        if refusal:
            self.tell({"refused": [refusal.status, refusal.message]})
        self._await_command(silently=refusal is not None)
        self._await_orphans()
        waiter = Waiter(interrupted=lambda: time.monotonic() >= self._until)
        serving.end(waiter, waiter, lambda pending: self.tell({"pending": pending}))

    def farewell(self, last: Farewell) -> int:
        """The last word goes to ``run``."""
        if self._temporary:
            with suppress(OSError):
                self._mountpoint.rmdir()
        self.tell({"ended": asdict(last)})
        return 0

    # processes

    def _await_command(self, *, silently: bool) -> None:
        """Reap whatever ends, until it is the command."""
        pid = status = 0
        while pid != self._command.pid:
            ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOWAIT)
            assert ended is not None  # it is for WNOHANG only
            with self._mu:
                pid, status = os.waitpid(ended.si_pid, 0)
                self._ended = pid == self._command.pid
        with self._mu:
            if self._hurry:
                self._until = min(self._until, time.monotonic() + self._drain_s)
        if not silently:
            self.tell({"status": status})

    def _await_orphans(self) -> None:
        """Wait for the processes that the command left; name those that stay too long."""
        # In a hurry half of the time is for sending what they write.
        patience = self._drain_s / 2 if self._hurry else self._drain_s
        until = time.monotonic() + patience
        while True:
            try:
                pid, _ = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid:
                continue
            if time.monotonic() >= min(until, self._until):
                self.tell({"left": children()})
                return
            time.sleep(_LOOK_S)

    # what ``run`` says

    def _listen(self) -> None:
        with suppress(OSError, ValueError), self._channel.makefile("rb") as lines:
            for line in lines:
                message = json.loads(line)
                self._signal(int(message["signal"]), terminal=bool(message["terminal"]))
        self._forsaken()

    def _signal(self, number: int, *, terminal: bool) -> None:
        """``run`` got a signal; what comes from the terminal the command got as well."""
        with self._mu:
            hurried = self._hurry
            self._hurry = hurried or number in _ENDING
            if self._ended:
                again = hurried or number not in _ENDING
                now = time.monotonic()
                self._until = min(self._until, now if again else now + self._drain_s)
            elif self._runs and not terminal:
                # A program of another user, as sudo starts it, may refuse.
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(self._command.pid, number)

    def _forsaken(self) -> None:
        """``run`` is gone: so goes everything else; what was written stays in the spool."""
        with self._mu:
            self._until = time.monotonic()
            runs = self._runs
        if not runs:
            # What waits to become the command ends with this process.
            there = mounts.mounted_at(self._mountpoint)
            if there is not None and there.fstype == mounts.FSTYPE:
                with suppress(XnatfsError):
                    mounts.unmount(self._mountpoint, lazy=True)
            if self._temporary:
                with suppress(OSError):
                    self._mountpoint.rmdir()
            os._exit(1)
        if not end_children(_KILLING_S):
            log.warning("not all processes of the command could be ended: %s", children())
