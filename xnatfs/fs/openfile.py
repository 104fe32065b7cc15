"""The heart: one open file, whoever has it open, from its first open to its last release.

Everything about several descriptors, flushes, mappings and hidden names is decided here and
nowhere else. ``files`` keeps the table of them; ``filesystem`` calls them by handle.

    Reading(version, source) --first write: copied up--> Writing(upload)
    Writing(upload) --flush, sent and verified--> Reading(version, source = the upload's bytes)
    Writing(upload) --flush, write-back--> Sealed(upload) --sent in the background--> Reading
    Writing(upload), Sealed(upload) --not sent--> Failed(upload, error)
    Sealed(upload), Failed(upload, error) --write--> Writing(upload)
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from xnatfs.errors import XnatfsError
from xnatfs.fs.states import (
    Failed,
    Handle,
    Reading,
    Sealed,
    Source,
    SpoolSource,
    State,
    Ways,
    Writing,
    pieces,
)
from xnatfs.fs.turn import Turn
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.versions import Version
from xnatfs.upload.outcomes import may_pass
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
        held: sent in the background only when everything is: who may not delete could not take
            back what turns out to be a temporary file.
        upload: a sealed one that a dead mount has left; None: there is none.

    Threading: whoever changes the state, or the bytes in the spool, takes the ``Turn`` and may
    then wait for the network without a lock; readers take the state as it is (one reference) and
    need none.
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
        held: bool = False,
        upload: Upload | None = None,
    ) -> None:
        self._ways = ways
        self.resource = resource
        self.path = path
        self.label = label
        self.local_only = local_only
        self.held = held
        # What the server has under this name, which our next upload replaces.
        self.base = version
        # Removed while open: nothing more is sent, the content lives until the last release …
        self.removed = False
        # … and then the file of this name goes, unless the name came back meanwhile.
        self.removes = ""
        # What was closed of it and is another file's now, which has its name.
        self._passed_on: Upload | None = None
        # Nobody wants the content any more.
        self.given_up = False
        # Opens and renames that are at work with it, and descriptors; ``files`` counts and guards
        # them.
        self.holds = self.handles = 0
        self._turn = Turn()
        # Written to (not only created or truncated by an open): see ``flush``.
        self._written = False
        self._state: State
        if upload is not None:
            self._state = Sealed(upload)
        elif version is None:
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
    def unsealed(self) -> bool:
        """Whether it was changed and nobody has said that it is complete."""
        return isinstance(self._state, Writing) and not self._unwanted

    @property
    def waits(self) -> bool:
        """Whether it is sent in the background: it stays when nobody has it open."""
        return isinstance(self._state, Sealed) and not self._unwanted and not self.local_only

    @property
    def unsent(self) -> bool:
        """Whether something of it should still go to the server."""
        return isinstance(self._state, Writing | Sealed) and not self._unwanted

    def read(self, offset: int, size: int, waiter: Waiter) -> bytes:
        """Exactly ``size`` bytes from ``offset``, fewer only at the end of the file."""
        state = self._state
        if isinstance(state, Reading):
            return state.source.read(offset, size, waiter)
        return state.upload.read(offset, size)

    # -- changes

    def write(self, offset: int, data: bytes, waiter: Waiter) -> None:
        """Write all of ``data``; the first write to an existing file copies it up."""
        with self._changing(waiter):
            upload = self._writable(self.size, waiter)
            self._written = True
            try:
                self._ways.find_room(lambda: upload.write(offset, data), waiter)
            except XnatfsError as error:
                # A file with a hole is not sent: whoever goes on writing may, a close says why.
                upload.fail(str(error))
                self._fail(error)
                raise

    def truncate(self, length: int, waiter: Waiter) -> None:
        """Cut the file, or lengthen it with zeros."""
        with self._changing(waiter):
            upload = self._writable(length, waiter)
            self._ways.find_room(lambda: upload.truncate(length), waiter)
            self._written = True

    def begin_empty(self, waiter: Waiter) -> None:
        """O_TRUNC: start from nothing.

        Nothing is sent before something is written or the last descriptor is released, so that
        ``cmd > file`` is one upload, with no empty one before it.
        """
        with self._changing(waiter):
            self._writable(0, waiter).truncate(0)

    def fsync(self, waiter: Waiter) -> None:
        """Bytes and record survive a power loss."""
        waiter.check(self.label)
        state = self._state
        if not isinstance(state, Reading):
            state.upload.fsync()

    @contextmanager
    def _changing(self, waiter: Waiter) -> Iterator[None]:
        """Hold the turn. The background sender passes over what is held: it is posted anew."""
        with self._turn.held(waiter, self.label):
            yield
        if self.waits:
            self._ways.post(self)

    def _writable(self, keep: int, waiter: Waiter) -> Upload:
        """The upload to write into; called with the turn. ``keep``: old bytes still wanted."""
        state = self._state
        if isinstance(state, Reading | Sealed):
            upload = self._ways.find_room(lambda: self._copied_up(state, keep, waiter), waiter)
            if isinstance(state, Reading):
                self._sources.append(state.source)
                self._state = Writing(upload)
            else:
                self._state = Writing(upload, before=state.upload)
            return upload
        if isinstance(state, Failed):
            self._ways.find_room(state.upload.reopen, waiter)
            self._state = Writing(state.upload, state.before)
        return state.upload

    def _copied_up(self, state: Reading | Sealed, keep: int, waiter: Waiter) -> Upload:
        source = state.source if isinstance(state, Reading) else SpoolSource(state.upload)
        old = pieces(source, min(keep, self.size), waiter)
        before = state.upload if isinstance(state, Sealed) else None
        return self._ways.new_upload(self.resource, self.path, self.label, self.base, old, before)

    def _fail(self, error: XnatfsError) -> None:
        """It was not written, or not sent; called with the turn."""
        state = self._state
        assert not isinstance(state, Reading)
        before = state.before if isinstance(state, Writing) else None
        self._state = Failed(state.upload, error, before)

    def _drop_before(self) -> None:
        """What was closed before counts no more; called with the turn."""
        state = self._state
        if isinstance(state, Writing | Failed) and state.before is not None:
            state.before.done()
            self._state = replace(state, before=None)

    # -- the ways out

    def flush(self, handle: Handle, caller_pid: int, waiter: Waiter) -> None:
        """One descriptor is being closed; its error reaches close(2).

        Shells and ``subprocess`` close inherited copies before and between writes. So nothing is
        sent for a file that was not written yet (the release sends it), nor for a process other
        than the opener while the opener lives.

        Raises: whatever kept the data from the server; the data stays in the spool.
        """
        if not handle.writes or self.local_only or self._unwanted:
            return
        state = self._state
        if isinstance(state, Failed):
            raise state.error
        if not self._written or not self.unsealed:
            return
        if not handle.is_inherited_by(caller_pid):
            self.send_off(waiter)

    def finish(self, waiter: Waiter) -> None:
        """The last descriptor is gone: send what is still unsent. Only the log can tell."""
        if self.local_only:
            return
        state = self._state
        if isinstance(state, Failed) and state.before is not None:
            # Writing over it went wrong: what was closed before goes instead.
            self._state = Sealed(state.before)
        if self.waits:
            self._ways.post(self)
        if not self.unsealed:
            return
        try:
            self.send_off(waiter)
        except XnatfsError as error:
            log.error("%s was closed but is not on the server: %s", self.label, error)

    def send_off(self, waiter: Waiter) -> None:
        """The content is complete: send it, with write-back in the background.

        Raises: what ``send`` raises.
        """
        if self._ways.write_back and self._seal(waiter):
            self._ways.post(self)
        else:
            self.send(waiter)

    def _seal(self, waiter: Waiter) -> bool:
        """Whether the spool alone can be relied on from now on."""
        with self._changing(waiter):
            state = self._state
            if isinstance(state, Writing):
                self._ways.seal(state.upload)
                if not state.upload.kept:
                    return False
                if state.before is not None:
                    state.upload.supersede(state.before)
                self._state = Sealed(state.upload)
                self._written = False
            return isinstance(self._state, Sealed)

    def send(self, waiter: Waiter) -> None:
        """Send the content and wait until the server has it, whoever gives up waiting."""
        self._turn.take(waiter, self.label)
        try:
            work = self._ways.patient()
            self._turn.follow(work)
            sent = self._ways.submit(lambda: self._send(work))
        except BaseException:
            self._turn.end()
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
                if isinstance(state, Sealed) and may_pass(error):
                    # Whoever closed it was told that it will arrive: it waits on.
                    self._ways.seal(upload)
                    raise
                self._fail(error)
                if upload.record.md5 and upload.kept:
                    self._drop_before()
                raise
            self._drop_before()
            self._now_on_server(row, upload)
        finally:
            self._turn.end()
            if self.waits:
                self._ways.post(self)

    def _now_on_server(self, row: RemoteFile, upload: Upload) -> None:
        """The server holds the content; called with the turn."""
        self.base = Version(row.resource_id, row.path, upload.size, row.digest)
        self._written = False
        self._state = Reading(self.base, SpoolSource(upload))

    # -- sent in the background: ``outbox.Parcel``

    def claim(self, wanted: threading.Event) -> Upload | None:
        """Take the turn for the sender, if there is something to send and nobody is at it."""
        if not self._turn.take_if_free(wanted):
            return None
        state = self._state
        if isinstance(state, Sealed) and self.waits:
            return state.upload
        self._turn.end()
        return None

    def arrived(self, row: RemoteFile) -> None:
        """The server has it."""
        state = self._state
        assert isinstance(state, Sealed)
        self._now_on_server(row, state.upload)
        self._decided()

    def refused(self, error: XnatfsError) -> None:
        """It does not go; whoever has it open hears of it at close."""
        state = self._state
        assert isinstance(state, Sealed)
        log.error("%s was closed but is not on the server: %s", self.label, error)
        self._state = Failed(state.upload, error)
        self._decided()

    def _decided(self) -> None:
        # Whoever has waited for the turn must not find it under its name any more.
        try:
            self._ways.decided(self)
        finally:
            self._turn.end()

    def put_back(self) -> None:
        """Not now."""
        self._turn.end()

    # -- other ends

    def readdress(
        self,
        path: str,
        label: str,
        base: Version | None,
        waiter: Waiter,
        *,
        local_only: bool = False,
        over: OpenFile | None = None,
    ) -> bool:
        """The file is about to get another name: what is in the spool goes there.

        Args:
            path: below ``files``.
            label: path in the mount.
            base: the server's version under the new name, which it replaces; None: there is none.
            waiter: the limits of the caller's wait.
            local_only: never sent under the new name.
            over: what had that name until now (``succeed``).

        Returns: False: the server has got it meanwhile, under the old name; nothing has changed.

        Raises: what the spool raises; nothing has changed then.
        """
        with self._changing(waiter):
            if not self.removed and not self._only_here(waiter):
                return False
            state = self._state
            if not isinstance(state, Reading):
                upload = state.upload
                before = None if isinstance(state, Sealed) else state.before
                if before is not None:
                    self._ways.readdress(before, self.resource, path, label, base)
                # Where something else counts, it need not be on disk what this one is called.
                self._ways.readdress(
                    upload, self.resource, path, label, base, surely=before is None
                )
                if isinstance(state, Failed) and upload.record.md5:
                    # Under another name it may go.
                    upload.reopen()
                    self._state = Writing(upload, before)
                self._written = isinstance(self._state, Writing)
            if over is not None:
                self.succeed(over)
            self.base, self.local_only = base, local_only
            return True

    def succeed(self, other: OpenFile) -> None:
        """Get the name of another file, which has stepped aside; called with the turn, if shared.

        What was closed of the other counts until the content of this one is complete.
        """
        state, closed = self._state, other._closed
        if closed is None:
            return
        other._passed_on = closed
        if isinstance(state, Writing | Failed) and state.before is None:
            self._state = replace(state, before=closed)
        elif isinstance(state, Sealed):
            state.upload.supersede(closed)
        else:
            closed.done()

    @property
    def _closed(self) -> Upload | None:
        """What was closed last, if it is only in the spool and still to be sent."""
        state = self._state
        if isinstance(state, Sealed):
            return state.upload
        return state.before if isinstance(state, Writing | Failed) else None

    def follow(self, copy: OpenFile, waiter: Waiter) -> None:
        """The file is called as ``copy`` from now on, which the server has just got."""
        with self._changing(waiter):
            state = self._state
            if isinstance(state, Reading):
                self._sources.append(state.source)
                self.base, self._state = copy.base, copy.state
                return
        self.readdress(copy.path, copy.label, copy.base, waiter)

    def hide(self, waiter: Waiter, *, on_server: bool) -> bool:
        """It is removed while open: what the server or the spool has of it goes at the end.

        Args:
            waiter: the limits of the caller's wait.
            on_server: whether the server has a file of its name.

        Returns: False: by now the server has; nothing has changed.
        """
        with self._changing(waiter):
            # Asked in any case: what it replaced may be replaced by now.
            if not self._only_here(waiter) and not on_server:
                return False
            self.local_only = self.removed = True
            self.removes = self.path
            return True

    def take_back(self, waiter: Waiter) -> bool:
        """Its name is used again: who reads it here keeps a copy, what is elsewhere is replaced.

        Returns: False: that is gone already.
        """
        with self._changing(waiter):
            if not self.removes:
                return False
            if isinstance(self._state, Reading):
                self._writable(self.size, waiter)
            self.removes = ""
            return True

    def remove_for_good(
        self, delete: Callable[[str, Version | None], None], waiter: Waiter
    ) -> None:
        """The last release of a removed file: ``delete`` the server's unless its name came back."""
        with self._changing(waiter):
            if self.removes:
                delete(self.removes, self.base)
            self.removes = ""

    @contextmanager
    def stepping_aside(self, waiter: Waiter) -> Iterator[bool]:
        """Its name is about to go to another file, or to nobody: who does that, gives it up.

        Yields: whether it is only here; if not, the server has it by now.
        """
        with self._changing(waiter):
            yield self._only_here(waiter)

    def _only_here(self, waiter: Waiter) -> bool:
        """Whether the server has nothing of what is in the spool; called with the turn."""
        state = self._state
        if isinstance(state, Reading):
            return False
        before = None if isinstance(state, Sealed) else state.before
        sent = before or state.upload
        if not sent.record.perhaps:
            return True
        # It was sent and the answer was lost.
        row = self._ways.look(self.resource, sent, waiter)
        if row is None:
            return True
        if row.digest != sent.record.md5:
            # An earlier version of it, which it replaces.
            self.base = Version(row.resource_id, row.path, row.size or 0, row.digest)
            self._ways.readdress(sent, self.resource, self.path, self.label, self.base)
        elif before is None:
            self._now_on_server(row, sent)
        else:
            self.base = Version(row.resource_id, row.path, sent.size, row.digest)
            self._drop_before()
        return False

    def give_up(self) -> None:
        """Its content is wanted no more (a local file was removed)."""
        self.given_up = True
        state = self._state
        if isinstance(state, Reading):
            return
        for upload in filter(None, {state.upload, self._closed} - {self._passed_on}):
            upload.done()

    def not_needed(self) -> None:
        """Another file of the same name was made faster; what waits to be sent stays."""
        if isinstance(self._state, Writing):
            self.give_up()
        self.close()

    def close(self) -> None:
        """Nobody has it open any more."""
        state = self._state
        if isinstance(state, Reading):
            self._sources.append(state.source)
        for source in self._sources:
            source.close()
