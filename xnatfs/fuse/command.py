"""The command of ``run``: forked before any thread, executed when the mount is there.

The command gets the terminal, the standard streams, the descriptors and the process group of
``run``: job control works as without it.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from xnatfs.fuse.private import die_with_parent

# As env(1), nice(1) and timeout(1) have them.
FAILED = 125
NOT_EXECUTABLE = 126
NOT_FOUND = 127

# What the waiting process is told, before its folder.
_GO = b"go:"

# Python ignores these; what it starts should not (as subprocess does).
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Order:
    """What to run."""

    # The program, as for execvp(3), and its arguments.
    words: list[str]
    # Its environment.
    variables: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a command could not be run."""

    # The exit status that says so.
    status: int
    message: str


class Command:
    """A process that waits to become a command.

    Made before any thread is started. It ends with the process that made it, whatever happens.

    Args:
        order: what it becomes.
        mask: the signals that it is to block.

    Threading: belongs to the thread that made it, and later to the one that starts it.
    """

    def __init__(self, order: Order, mask: set[int]) -> None:
        go_reading, self._go = os.pipe()
        self._report, report_writing = os.pipe()
        parent = os.getpid()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            os.close(self._report)
            _wait_and_become(order, mask, parent, go_reading, report_writing)
        os.close(go_reading)
        os.close(report_writing)

    def start(self, folder: Path | None) -> Refusal | None:
        """Let it become the command; returns why it could not.

        Args:
            folder: its working folder; None: that of ``run``.
        """
        with suppress(BrokenPipeError), open(self._go, "wb") as pipe:  # somebody has killed it
            pipe.write(_GO + (os.fsencode(folder) if folder else b""))
        # Closed by a successful exec.
        with open(self._report, "rb") as pipe:
            status, _, message = pipe.read().decode(errors="replace").partition(" ")
        return Refusal(int(status), message) if status else None


def _wait_and_become(order: Order, mask: set[int], parent: int, go: int, report: int) -> NoReturn:
    try:
        die_with_parent()
        with open(go, "rb") as pipe:
            word = pipe.read()
        if os.getppid() == parent and word.startswith(_GO):
            refusal = _become(order, word.removeprefix(_GO), mask)
            os.write(report, f"{refusal.status} {refusal.message}".encode(errors="replace"))
    finally:
        os._exit(FAILED)


def _become(order: Order, folder: bytes, mask: set[int]) -> Refusal:
    """Execute the command; returns only if that is not possible."""
    program = order.words[0]
    try:
        if folder:
            os.chdir(folder)
    except OSError as error:
        return Refusal(FAILED, f"{os.fsdecode(folder)}: {error.strerror}")
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    try:
        os.execvpe(program, order.words, order.variables)  # noqa: S606 -- no shell: as typed
    except OSError as error:
        missing = error.errno in (errno.ENOENT, errno.ENOTDIR)
        return Refusal(NOT_FOUND if missing else NOT_EXECUTABLE, f"{program}: {error.strerror}")
    except ValueError as error:
        return Refusal(NOT_EXECUTABLE, f"{program}: {error}")
