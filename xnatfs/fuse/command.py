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

# Python ignores these; what it starts should not (as subprocess does).
_IGNORED_BY_PYTHON = (signal.SIGPIPE, signal.SIGXFSZ)


@dataclass(frozen=True, slots=True)
class Order:
    """What to run."""

    # The program, as for execvp(3), and its arguments.
    words: list[str]
    # Its environment.
    variables: Mapping[str, str]
    # The working folder; None: that of ``run``.
    folder: Path | None = None


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

    def start(self) -> Refusal | None:
        """Let it become the command; returns why it could not."""
        with suppress(BrokenPipeError):  # somebody has killed it
            os.write(self._go, b"go")
        os.close(self._go)
        # Closed by a successful exec.
        with open(self._report, "rb") as pipe:
            status, _, message = pipe.read().decode(errors="replace").partition(" ")
        return Refusal(int(status), message) if status else None


def _wait_and_become(order: Order, mask: set[int], parent: int, go: int, report: int) -> NoReturn:
    try:
        die_with_parent()
        if os.getppid() == parent and os.read(go, 2):
            refusal = _become(order, mask)
            os.write(report, f"{refusal.status} {refusal.message}".encode(errors="replace"))
    finally:
        os._exit(FAILED)


def _become(order: Order, mask: set[int]) -> Refusal:
    """Execute the command; returns only if that is not possible."""
    program = order.words[0]
    try:
        if order.folder is not None:
            os.chdir(order.folder)
    except OSError as error:
        return Refusal(FAILED, f"{order.folder}: {error.strerror}")
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
