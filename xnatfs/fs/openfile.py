"""The heart: one open file, whoever has it open, from its first open to its last release.

Everything about several descriptors, flushes, mappings and hidden names is decided here and
nowhere else. ``files`` keeps the table of them; ``filesystem`` calls them by handle.

    Reading(version, source) --first write: copied up--> Writing(upload)
    Writing(upload) --flush, sent and verified--> Reading(version, source = the upload's bytes)
    Writing(upload) --not sent--> Failed(upload, error) --write--> Writing(upload)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from xnatfs.errors import XnatfsError
from xnatfs.fs.states import (
    Failed,
    Handle,
    Reading,
    Source,
    SpoolSource,
    State,
    Ways,
    Writing,
    pieces,
)
from xnatfs.model.entities import Item
from xnatfs.model.versions import Version
from xnatfs.upload.upload import Upload
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)


class OpenFile:
    """One file that somebody has open, or that lives here only.

    Args:
        ways: the mount.
        resource: where the file lies.
        path: below ``files``, as the server has it or shall have it.
        label: path in the mount, for people.
        version: what the server has; None for a new file.
        local_only: never sent under this name (temporary names, desktops' files).

    Threading: ``_turns`` guards ``_busy`` and ``_work``: whoever changes the state, or the bytes
    in the spool, takes the turn and may then wait for the network without a lock; readers take
    the state as it is (one reference) and need none.
    """

    def __init__(
        self,
        ways: Ways,
        resource: Item,
        path: str,
        label: str,
        version: Version | None,
        *,
        local_only: bool = False,
    ) -> None:
        self._ways = ways
        self.resource = resource
        self.path = path
        self.label = label
        self.local_only = local_only
        # What the server has under this name, which our next upload replaces.
        self.base = version
        # Removed while open: nothing more is sent, the content lives until the last release …
        self.removed = False
        # … and then this file of the server goes, unless its name came back meanwhile.
        self.removes = ""
        # Nobody wants the content any more.
        self.given_up = False
        # Opens and renames that are at work with it; ``files`` counts and guards them.
        self.holds = 0
        self._turns = threading.Condition()
        self._busy = False
        # The waiter of the sending that has the turn.
        self._work: Waiter | None = None
        # Written to (not only created or truncated by an open): see ``flush``.
        self._written = False
        self._state: State
        if version is None:
            self._state = Writing(ways.new_upload(resource, path, label, None, None))
        else:
            self._state = Reading(version, ways.open_source(resource, version, label))
        self._sources: list[Source] = []

    # -- questions

    @property
    def state(self) -> State:
        """The state at this moment."""
        return self._state

    @property
    def size(self) -> int:
        """Bytes."""
        state = self._state
        return state.version.size if isinstance(state, Reading) else state.upload.size

    @property
    def _unwanted(self) -> bool:
        return self.given_up or self.removed

    @property
    def unsent(self) -> bool:
        """Whether something of it should still go to the server."""
        state = self._state
        return isinstance(state, Writing) and state.dirty and not self._unwanted

    def read(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """Exactly ``size`` bytes from ``offset``, fewer only at the end of the file."""
        state = self._state
        if isinstance(state, Reading):
            return state.source.read(offset, size, waiter)
        return state.upload.read(offset, size)

    # -- changes

    def write(self, offset: int, data: bytes, waiter: Waiter) -> None:
        """Write all of ``data``; the first write to an existing file copies it up."""
        with self._turn(waiter):
            upload = self._writable(self.size, waiter)
            self._written = True
            try:
                upload.write(offset, data)
            except XnatfsError as error:
                # A file with a hole is not sent: whoever goes on writing may, a close says why.
                upload.fail(str(error))
                self._state = Failed(upload, error)
                raise

    def truncate(self, length: int, waiter: Waiter) -> None:
        """Cut the file, or lengthen it with zeros."""
        with self._turn(waiter):
            self._writable(length, waiter).truncate(length)
            self._written = True

    def begin_empty(self, waiter: Waiter) -> None:
        """O_TRUNC: start from nothing.

        Nothing is sent before something is written or the last descriptor is released, so that
        ``cmd > file`` is one upload, with no empty one before it.
        """
        with self._turn(waiter):
            self._writable(0, waiter).truncate(0)

    def fsync(self, waiter: Waiter) -> None:
        """Bytes and record survive a power loss."""
        with self._turn(waiter):
            state = self._state
            if not isinstance(state, Reading):
                state.upload.fsync()

    def _writable(self, keep: int, waiter: Waiter) -> Upload:
        """The upload to write into; called with the turn. ``keep``: old bytes still wanted."""
        state = self._state
        if isinstance(state, Reading):
            old = pieces(state.source, min(keep, state.version.size), waiter)
            upload = self._ways.new_upload(self.resource, self.path, self.label, self.base, old)
            self._sources.append(state.source)
        else:
            upload = state.upload
            if isinstance(state, Failed):
                upload.reopen()
        self._state = Writing(upload)
        return upload

    # -- the ways out

    def flush(self, handle: Handle, caller_pid: int, waiter: Waiter) -> None:
        """One descriptor is being closed; its error reaches close(2).

        Not every flush is the end of writing: a shell and ``subprocess`` close inherited
        copies of a descriptor before and between writes. So nothing is sent for a file that
        was not written yet (the release sends it), nor for a process other than the opener
        while the opener lives.

        Raises: whatever kept the data from the server; the data stays in the spool.
        """
        if not handle.writes or self.local_only or self._unwanted:
            return
        state = self._state
        if isinstance(state, Failed):
            raise state.error
        if not self._written or not self.unsent:
            return
        if caller_pid and handle.opener not in (0, caller_pid) and _lives(handle.opener):
            return
        self.send(waiter)

    def finish(self, waiter: Waiter) -> None:
        """The last descriptor is gone: send what is still unsent. Only the log can tell."""
        if not self.unsent or self.local_only:
            return
        try:
            self.send(waiter)
        except XnatfsError as error:
            log.error("%s was closed but is not on the server: %s", self.label, error)

    def send(self, waiter: Waiter) -> None:
        """Send the content and wait until the server has it.

        The sending goes on when the wait is interrupted.
        """
        self._take_turn(waiter)
        try:
            work = self._work = self._ways.patient()
            sent = self._ways.submit(lambda: self._send(work))
        except BaseException:
            self._end_turn()
            raise
        waiter.result(sent, f"the upload of {self.label}", work)

    def _send(self, waiter: Waiter) -> None:
        """On a worker, which owns the turn."""
        try:
            state = self._state
            if isinstance(state, Failed):
                raise state.error
            if not self.unsent or isinstance(state, Reading):
                return
            upload = state.upload
            try:
                row = self._ways.send(self.resource, upload, waiter)
            except XnatfsError as error:
                self._state = Failed(upload, error)
                raise
            version = Version(row.resource_id, row.path, upload.size, row.digest)
            self.base = version
            self._written = False
            self._state = Reading(version, SpoolSource(upload))
        finally:
            self._end_turn()

    def seal_for_later(self) -> None:
        """The mount ends: make what is unsent survive it, for the next one."""
        state = self._state
        if isinstance(state, Writing) and state.dirty and not self._unwanted:
            try:
                state.upload.fsync()
            except XnatfsError as error:
                log.error("%s: %s", self.label, error)

    def readdress(self, path: str, label: str, base: Version | None, waiter: Waiter) -> None:
        """The file is about to get another name: what is in the spool goes there.

        Args:
            path: below ``files``.
            label: path in the mount.
            base: the server's version under the new name, which it replaces; None: there is none.
            waiter: the limits of the caller's wait.

        Raises: what the spool raises; nothing has changed then.
        """
        with self._turn(waiter):
            state = self._state
            if not isinstance(state, Reading):
                old = pieces(SpoolSource(state.upload), state.upload.size, waiter)
                upload = self._ways.new_upload(self.resource, path, label, base, old)
                state.upload.done()
                self._written = True
                self._state = Writing(upload)
            self.base = base

    def follow(self, copy: OpenFile, waiter: Waiter) -> None:
        """The file is called as ``copy`` from now on, which the server has just got."""
        with self._turn(waiter):
            state = self._state
            if isinstance(state, Reading):
                self._sources.append(state.source)
                self.base, self._state = copy.base, copy.state
                return
        self.readdress(copy.path, copy.label, copy.base, waiter)

    def take_back(self, waiter: Waiter) -> bool:
        """The name that it was removed from is used again: the server's file is replaced instead.

        Who still reads it here keeps a copy.

        Returns: False: the server's file is gone already.
        """
        with self._turn(waiter):
            if not self.removes:
                return False
            if isinstance(self._state, Reading):
                self._writable(self.size, waiter)
            self.removes = ""
            return True

    def remove_for_good(self, delete: Callable[[str, Version], None], waiter: Waiter) -> None:
        """The last release of a removed file: the server's goes, unless its name came back.

        Args:
            delete: deletes a path of the server that still has that version.
            waiter: the limits of the caller's wait.
        """
        with self._turn(waiter):
            if self.removes and self.base is not None:
                delete(self.removes, self.base)
            self.removes = ""

    def give_up(self) -> None:
        """Its content is wanted no more (a local file was removed)."""
        self.given_up = True
        state = self._state
        if not isinstance(state, Reading):
            state.upload.done()

    def close(self) -> None:
        """Nobody has it open any more."""
        state = self._state
        if isinstance(state, Reading):
            self._sources.append(state.source)
        for source in self._sources:
            source.close()

    # -- turns

    @contextmanager
    def _turn(self, waiter: Waiter) -> Iterator[None]:
        self._take_turn(waiter)
        try:
            yield
        finally:
            self._end_turn()

    def _take_turn(self, waiter: Waiter) -> None:
        def free() -> bool:
            if self._work is not None:
                waiter.follow(self._work)
            return not self._busy

        with self._turns:
            waiter.until(self._turns, free, self.label)
            self._busy = True

    def _end_turn(self) -> None:
        with self._turns:
            self._busy = False
            self._work = None
            self._turns.notify_all()


def _lives(pid: int) -> bool:
    """Whether a process exists (a zombie, which has closed its files, does not count)."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:
            return stat.read().rpartition(b")")[2].split()[0] not in (b"Z", b"X")
    except (OSError, IndexError):
        return False
