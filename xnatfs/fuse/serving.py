"""The process that serves a mount, from its first request to its last word.

Called by ``mounting`` in the process that stays: the child in the background, the command
itself in the foreground. It never returns: the process ends here, with ``os._exit``, because a
worker that waits for a stalled server must not hold it.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from xnatfs.config import Settings
from xnatfs.errors import FuseUnusable, WaitEnded, XnatfsError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.fuse import binding, control, kernel, metrics, mounts
from xnatfs.fuse.farewell import Farewell
from xnatfs.fuse.notify import notify
from xnatfs.fuse.operations import Operations
from xnatfs.fuse.private import mount_space
from xnatfs.waiting import POLL_S, Waiter

log = logging.getLogger(__name__)

# Told how many uploads are still to come.
Progress = Callable[[int], None]

# fs.close() may log out at the server; nobody waits longer than this for it.
_CLOSE_S = 5.0

# Between two reports of progress to a waiting ``xnatfs umount``.
_PROGRESS_S = 0.5


@dataclass(frozen=True, slots=True)
class Plan:
    """How to mount."""

    # Absolute.
    mountpoint: Path
    # Let other users of this machine in.
    allow_other: bool = False
    # Serve in the process that was started, and log to its stderr if there is no log file.
    foreground: bool = False
    log_file: Path | None = None
    log_level: str = "info"
    # Gets the figures of the mount, for Prometheus.
    metrics_file: Path | None = None
    # Hears the last word; its value is the exit status of the process.
    farewell: Callable[[Farewell], int] = lambda _farewell: 0
    # Decides, on a thread of its own, when the mount ends, and calls ``Serving.end``. None: a
    # signal ends it, or whoever unmounts it.
    attend: Callable[[Serving], None] | None = None


# Asked to end; the last only says so where there is a terminal.
_SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, signal.SIGHUP})


def hold_signals() -> None:
    """Keep signals for the thread that waits for them; before any other thread is started.

    While libfuse serves, the main thread never comes back to Python's own handlers. And libfuse
    leaves SIGPIPE deadly behind when it ends: a server that hangs up would end the last uploads.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, {*_SIGNALS, signal.SIGPIPE})


class Serving:
    """One mount being served.

    Args:
        fs: connected and adopted, after ``hold_signals``.
        settings: all of them.
        plan: how to mount.
        ready: called when the kernel has the mount; gets the name of the user at the server.

    Threading: libfuse's threads serve; a thread waits for signals, ``Control`` has its own.
    Whichever comes first to ``_finish`` ends the process; ``_last`` lets only one in. The rest
    is written before the threads start.
    """

    def __init__(
        self, fs: FileSystem, settings: Settings, plan: Plan, ready: Callable[[str], None]
    ) -> None:
        self._fs = fs
        self._settings = settings
        self._plan = plan
        self._tell_ready = ready
        self._mounted = threading.Event()
        self._loop_ended = threading.Event()
        self._last = threading.Lock()
        self._libfuse = binding.load()
        self._operations = Operations(fs, settings.limits, self._libfuse, self._ready)
        self._control = control.Control(
            control.run_folder(settings.state_folder),
            {
                "status": self._status,
                "refresh": self._refresh,
                "umount": self._drain_for_umount,
                "send": self._send_now,
                "end": self._end,
            },
        )
        about = fs.status()
        self._record = control.Record(
            host=socket.gethostname(),
            pid=os.getpid(),
            mountpoint=str(plan.mountpoint),
            server=settings.server.url,
            user=str(about.get("user", "")),
            started=time.time(),
            socket=str(self._control.path),
            log=str(plan.log_file or ""),
            drain_s=settings.limits.drain_s,
            space=mount_space(),
            for_command=plan.attend is not None,
        )

    def run(self) -> NoReturn:
        """Mount, serve until the mount is gone, say the last word, end the process.

        Raises: FuseUnusable: nothing was mounted.
        """
        attend = self._plan.attend or Serving._wait_for_signals
        attending = threading.Thread(target=attend, args=(self,), name="attend", daemon=True)
        attending.start()
        self._fs.warm_up()
        failed = ""
        try:
            self._libfuse.serve(
                self._operations,
                str(self._plan.mountpoint),
                **binding.options(
                    self._settings, self._libfuse.version, allow_other=self._plan.allow_other
                ),
            )
        except RuntimeError as error:
            failed = f"libfuse ended with status {error}"
        if failed and not self._mounted.is_set():
            raise FuseUnusable(f"{self._plan.mountpoint}: the kernel refused the mount: {failed}")
        if failed:
            log.error("%s", failed)
        self._loop_ended.set()
        if self._plan.attend:
            attending.join()  # which ends the process
        self._finish(Waiter(total_s=self._settings.limits.drain_s))

    def end(
        self, waiter: Waiter, patience: Waiter, progress: Progress = lambda _pending: None
    ) -> NoReturn:
        """Take the mount away, send what is left, say the last word, end the process.

        Args:
            waiter: how long to go on sending.
            patience: how long to wait for who still works in the mount.
            progress: told the number of uploads still to come.
        """
        try:
            # Nobody new gets in; what is open is served on. What is mounted there after ours was
            # taken away is not ours.
            if not self._loop_ended.is_set():
                mounts.unmount(self._plan.mountpoint, lazy=True)
        except XnatfsError as error:
            log.warning("%s", error)
        with suppress(WaitEnded):
            while self._operations.busy() and not self._loop_ended.wait(POLL_S):
                patience.check("the end of all work in the mount")
        self._finish(waiter, progress)

    def _ready(self) -> None:
        """The kernel has the mount. An error here cannot reach it: the mount ends itself."""
        try:
            self._control.start()
            control.write_record(self._settings.state_folder, self._record)
        except XnatfsError as error:
            # Without its socket a mount still serves; only the commands cannot reach it.
            log.error("%s", error)
        self._mounted.set()
        threading.Thread(target=self._keep_login, name="login", daemon=True).start()
        if self._plan.metrics_file is not None:
            self._write_figures(mounted=True)
            threading.Thread(target=self._tell_figures, name="metrics", daemon=True).start()
        log.info("mounted %s at %s", self._record.server, self._record.mountpoint)
        self._tell_ready(self._record.user)
        notify("READY=1", f"STATUS={self._record.server} as {self._record.user}")

    # what commands ask

    def _status(self, _request: control.Message, say: control.Say) -> bool:
        say({"status": self._figures()})
        return False

    def _figures(self) -> dict[str, Any]:
        return self._fs.status() | {"errors": self._operations.errors()}

    def _refresh(self, request: control.Message, say: control.Say) -> bool:
        path = str(request.get("path", "/"))
        # A path of the archive, in place of one in this mount.
        problem = self._forget(path, whole=bool(request.get("whole")))
        if not kernel.forget_names():
            # Whoever asked looks as soon as the answer is there. The kernel counts in ticks.
            self._loop_ended.wait(self._settings.limits.kernel_ttl_s + 0.1)
        say({"problem": problem} if problem else {"done": True})
        return False

    def _forget(self, path: str, *, whole: bool = False) -> str:
        """Forget what is known of names at and below a path; returns what was in the way."""
        try:
            inside = self._fs.inside(path) if whole else path
            self._fs.refresh(inside, Waiter(total_s=self._settings.limits.io_timeout_s))
        except XnatfsError as error:
            log.info("cannot refresh %s: %s", path, error)
            return str(error)
        return ""

    def _drain_for_umount(self, request: control.Message, say: control.Say) -> bool:
        """Send what is left, with progress; the command then takes the mount away."""
        if self._plan.attend or self._operations.writing():
            say({"in_use": True})
            return False
        self._send_now(request, say)
        return True

    def _send_now(self, request: control.Message, say: control.Say) -> bool:
        """Send what is complete, with progress."""
        wait = request.get("wait")
        waiter = Waiter(total_s=None if wait is None else float(wait))
        self._drain(waiter, lambda pending: say({"pending": pending}))
        say({"drained": True})
        return False

    def _end(self, _request: control.Message, _say: control.Say) -> bool:
        """The mount was taken away; a copy in some container's namespace must not keep us."""
        if not self._plan.attend:
            self._finish(Waiter(total_s=self._settings.limits.drain_s))
        return False

    def _keep_login(self) -> None:
        """Renew a stored login while the mount lives; an idle one would lose it."""
        budget = self._settings.limits.io_timeout_s
        again = 0.0
        while not self._loop_ended.wait(again):
            try:
                again = self._fs.keep_login(Waiter(total_s=budget))
            except XnatfsError as error:
                log.info("the login was not looked after: %s", error)

    def _tell_figures(self) -> None:
        """Write the metrics while the mount lives."""
        while not self._loop_ended.wait(metrics.EVERY_S):
            self._write_figures(mounted=True)

    def _write_figures(self, *, mounted: bool) -> None:
        if self._plan.metrics_file is None:
            return
        try:
            metrics.write(self._plan.metrics_file, metrics.render(self._figures(), mounted=mounted))
        except XnatfsError as error:
            log.warning("%s", error)

    # the end

    def _drain(self, waiter: Waiter, progress: Progress) -> None:
        sending = threading.Thread(target=self._send, args=(waiter,), name="drain", daemon=True)
        sending.start()
        while sending.is_alive():
            sending.join(_PROGRESS_S)
            progress(len(self._fs.pending()))

    def _send(self, waiter: Waiter) -> None:
        try:
            self._fs.drain(waiter)
        except XnatfsError as error:
            log.warning("not everything was sent: %s", error)

    def _wait_for_signals(self) -> None:
        # In the foreground it says that the terminal is gone.
        while signal.sigwait(_SIGNALS) == signal.SIGHUP and not self._plan.foreground:
            self._forget("/")
            kernel.forget_names()
        # A second one while the first is being obeyed ends it at once.
        threading.Thread(target=self._end_now, name="signals-2", daemon=True).start()
        drain_s = self._settings.limits.drain_s
        waiter = Waiter(total_s=drain_s)
        if not self._mounted.is_set():
            self._finish(waiter)
        log.info("asked to end")
        # Half of the time for who still writes: the other half sends what they wrote.
        self.end(waiter, Waiter(total_s=drain_s / 2))

    def _end_now(self) -> None:
        while signal.sigwait(_SIGNALS) == signal.SIGHUP:
            pass
        log.warning("asked twice: what was not sent stays in the spool")
        os._exit(1)

    def _finish(self, waiter: Waiter, progress: Progress = lambda _pending: None) -> NoReturn:
        """Drain, report, end the process."""
        if not self._last.acquire(blocking=False):
            # Another thread is at it and ends the process.
            while True:
                time.sleep(_CLOSE_S)
        code = 1
        notify("STOPPING=1", "STATUS=sending what is left")
        try:
            self._drain(waiter, progress)
            self._operations.give_up()
            last = self._last_word()
            self._write_figures(mounted=False)
            closing = threading.Thread(target=self._fs.close, name="close", daemon=True)
            closing.start()
            closing.join(_CLOSE_S)
            self._keep_or_forget(last)
            self._control.farewell({"ended": asdict(last)})
            log.info("%s: unmounted", self._record.mountpoint)
            code = self._plan.farewell(last)
        except BaseException:
            log.exception("the end of the mount failed")
        finally:
            logging.shutdown()
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _last_word(self) -> Farewell:
        status = self._fs.status()
        uploads = status.get("uploads", {})
        last = Farewell(
            sent_files=int(uploads.get("sent_files", 0)),
            sent_bytes=int(uploads.get("sent_bytes", 0)),
            pending=self._fs.pending(),
            offline=bool(status.get("offline")),
            refused=str(status.get("login", {}).get("refused", "")),
            read_failures=[asdict(failure) for failure in self._fs.read_failures()],
        )
        level = logging.INFO if last.offline else logging.WARNING
        for row in last.pending:
            log.log(level, "not on the server: %s (%s)", row.get("path"), row.get("error") or "")
        return last

    def _keep_or_forget(self, last: Farewell) -> None:
        """The record stays when there is something left to say that nobody may have heard."""
        folder = self._settings.state_folder
        if not last.pending and not last.read_failures:
            control.remove_record(folder, self._record)
            return
        ended = replace(
            self._record,
            ended=time.time(),
            pending=last.pending,
            read_failures=last.read_failures,
        )
        try:
            control.write_record(folder, ended)
        except XnatfsError as error:
            log.error("%s", error)
