"""The file systems of this process: one for each choice of settings and login.

fsspec makes many instances for one archive (one for each thread, and new ones where they are
unpickled); they all work on the same connection, listings and open files. A forked child begins
with none.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
from concurrent.futures import Future

from xnatfs.config import Settings
from xnatfs.errors import XnatfsError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.rest.login import Credentials
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)


class Connections:
    """Connections by settings and login.

    Threading: ``_mu`` guards ``_open``; the first who asks logs in, outside of it, and the others
    wait for that.
    """

    def __init__(self) -> None:
        self._mu = threading.Lock()
        self._open: dict[tuple[Settings, Credentials], Future[FileSystem]] = {}

    def get(self, settings: Settings, credentials: Credentials, waiter: Waiter) -> FileSystem:
        """The file system for these settings; logs in when it is the first.

        Raises: LoginRefused, Unreachable, NotXnat, NoSpace, and what the waiter raises.
        """
        key = (settings, credentials)
        with self._mu:
            future = self._open.get(key)
            mine = future is None
            if future is None:
                future = self._open[key] = Future()
        if mine:
            try:
                fs = FileSystem.connect(settings, credentials, waiter)
                fs.adopt(waiter)
            except BaseException as error:  # noqa: BLE001 -- the Future hands it to all who wait
                with self._mu:
                    del self._open[key]
                future.set_exception(error)
            else:
                future.set_result(fs)
        return waiter.result(future, f"the login at {settings.server.url}")

    def close(self) -> None:
        """Send what waits, then close everything; what is not sent stays in the spool."""
        with self._mu:
            futures = list(self._open.items())
            self._open.clear()
        for (settings, _), future in futures:
            if not future.done() or future.exception() is not None:
                continue
            fs = future.result()
            try:
                fs.drain(Waiter(total_s=settings.limits.drain_s))
            except XnatfsError as error:
                log.warning("not everything was sent: %s", error)
            for row in fs.pending():
                log.warning("not on the server: %s (%s)", row["path"], row["error"] or "")
            fs.close()


connections = Connections()


def _begin_anew() -> None:
    # Threads and connections stay with the parent, and so does its lock if a thread held it.
    connections.__init__()  # type: ignore[misc]  # the same object: others have imported it


os.register_at_fork(after_in_child=_begin_anew)
atexit.register(connections.close)
