"""One file on its way: its bytes and its record, in a folder of the spool."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from xnatfs.errors import Conflict, DiskFault, Protected, SpaceProblem
from xnatfs.upload.content import BYTES_NAME, Bound, Content
from xnatfs.upload.disk import local_disk, remove_folder, sync_file, sync_folder
from xnatfs.upload.record import RECORD_NAME, Base, Record, State, Target, write_record

__all__ = ["BYTES_NAME", "LEAVING", "Upload"]

log = logging.getLogger(__name__)

# Prefix of a folder that is being removed; a leading dot keeps it out of ``ls``.
LEAVING = ".gone-"


class Table(Bound, Protocol):
    """What an upload asks of its spool: room, the time, and to be forgotten at the end."""

    def now(self) -> float:
        """The time, later than that of all others in the spool. Seconds since the epoch."""

    def forget(self, upload: Upload) -> None:
        """The upload is gone."""


class Upload:
    """One file on its way, from its first byte to the moment the server surely has it.

    Once it is done its bytes can be read for as long as somebody has the object.

    Threading: the bytes guard themselves (``Content``). ``_mu`` guards ``_changing``, which lets
    one transition of the record pass at a time; the record is written to disk, and anything made
    durable, without the lock. ``size``, ``record`` and ``gone`` are read without it.
    """

    def __init__(self, table: Table, folder: Path, record: Record) -> None:
        """An upload that stands in ``folder``. Raises DiskFault."""
        self._table = table
        self._folder = folder
        self._record = record
        self._mu = threading.Condition()
        self._changing = False
        self._gone = False
        # Whether a record of it was made durable; all later ones must be then.
        self._durable = False
        # Whether the record that counts could not be written: the one on disk is older.
        self._unwritten = False
        # The version of it that the server holds already, when it is written on after a send.
        self._stored: Base | None = None
        # Whether the bytes are known to be those of the record's MD5.
        self._proven = False
        self._bytes = Content(table, folder, self._what, writable=record.state is State.OPEN)

    @property
    def folder(self) -> Path:
        """Its folder in the spool."""
        return self._folder

    @property
    def record(self) -> Record:
        """The record; as it stands on disk unless ``kept`` says no."""
        return self._record

    @property
    def kept(self) -> bool:
        """Whether another process would find on disk what this one knows."""
        return not self._unwritten

    @property
    def size(self) -> int:
        """Bytes, as written so far."""
        return self._bytes.size

    @property
    def gone(self) -> bool:
        """Whether it is done: nothing of it is left on disk."""
        return self._gone

    # -- the bytes

    def read(self, offset: int, size: int) -> bytes:
        """Read up to ``size`` bytes; fewer only where the file ends.

        Raises: DiskFault.
        """
        return self._bytes.read(offset, size)

    def write(self, offset: int, data: bytes) -> int:
        """Write all of ``data``; the upload must be OPEN.

        Returns: its length in bytes.

        Raises: NoSpace, QuotaExceeded, DiskFault; a part of ``data`` may be written then.
        """
        return self._bytes.write(offset, data)

    def truncate(self, length: int) -> None:
        """Cut, or lengthen with zeros; the upload must be OPEN.

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        self._bytes.truncate(length)

    def open_body(self, on_read: Callable[[], None] | None = None) -> BinaryIO:
        """The bytes for a transfer, from the start; the caller closes it.

        Args:
            on_read: called after each piece that was read.

        Raises: DiskFault.
        """
        return self._bytes.open_body(on_read)

    def close(self) -> None:
        """Let go of the descriptor; the next use opens it again."""
        self._bytes.close()

    def fsync(self) -> None:
        """Make bytes and record survive a power loss; later records will, too.

        Raises: NoSpace, QuotaExceeded, DiskFault.
        """
        with self._transition(), local_disk(self._what):
            if self._gone:
                return
            self._durable = True
            sync_file(self._bytes.path)
            sync_file(self._folder / RECORD_NAME)
            sync_folder(self._folder)
            sync_folder(self._folder.parent)

    def synced(self) -> None:
        """Its file system was synced as a whole since the last change: as after ``fsync``."""
        self._durable = True

    # -- the transitions

    def seal(self) -> Record:
        """Nothing more is written for now: size and MD5 go into the record, state SEALED.

        Reads what was not hashed while it was written. A FAILED one is SEALED again. A full disk
        does not keep it from being sent: then ``kept`` says that the record is not on disk.

        Raises: Conflict (it stays one), DiskFault.
        """
        with self._transition():
            self._refuse_conflict()
            if self._record.md5:
                if self._record.state is State.FAILED or self._unwritten:
                    self._write_if_possible(state=State.SEALED)
                return self._record
            self._bytes.end_writing()
            try:
                md5 = self._bytes.md5()
            except BaseException:
                self._bytes.let_write()
                raise
            self._write_if_possible(state=State.SEALED, size=self.size, md5=md5)
            self._proven = True
            if self.kept:
                # Else the descriptor may be all that there is: the folder is gone, say.
                self.close()
            return self._record

    def resume(self) -> Record:
        """Make ready to be sent: it is what was sealed, and a FAILED one is SEALED again.

        Raises: Conflict (it stays one). Protected: it was never sealed, so it may be half a file.
            DiskFault: its bytes are not those that were sealed (a power loss, a failing disk).
        """
        with self._transition():
            self._refuse_conflict()
            record = self._record
            if not record.md5:
                raise Protected(
                    f"{record.target.labels} was not written to its end; "
                    f"xnatfs uploads export {record.id} saves what there is"
                )
            if not self._proven:
                if (self.size, self._bytes.md5()) != (record.size, record.md5):
                    raise DiskFault(
                        f"{self._what} {self._bytes.path} is not what was written there"
                    )
                self._proven = True
            if record.state is State.FAILED:
                self._write_if_possible(state=State.SEALED)
            return self._record

    def reopen(self) -> None:
        """It is written again: SEALED or FAILED becomes OPEN.

        If the server has taken it meanwhile, that version is what the next one replaces. The
        caller sees to it that nobody is sending it.

        Raises: Conflict (it stays one), NoSpace, QuotaExceeded, DiskFault.
        """
        with self._transition():
            self._refuse_conflict()
            changes: dict[str, Any] = {"state": State.OPEN, "size": 0, "md5": "", "last_error": ""}
            if self._stored is not None:
                changes |= {"base": self._stored, "perhaps": ()}
            self._write(**changes)
            self._bytes.let_write()
            self._proven = False

    def readdress(self, target: Target, base: Base | None, *, surely: bool = True) -> None:
        """It gets another name before it was sent; nothing of it is on the server.

        Args:
            target: where it goes now.
            base: what it replaces there.
            surely: False: it counts even if the disk does not take it.

        Raises: NoSpace, QuotaExceeded, DiskFault; it goes where it went then.
        """
        with self._transition():
            changes: dict[str, Any] = {"target": target, "base": base}
            if self._record.md5:
                changes |= {"state": State.SEALED, "last_error": ""}
            # Of two under one name the later counts.
            changes |= {"created": self._table.now(), "attempts": 0, "perhaps": ()}
            (self._write if surely else self._write_if_possible)(**changes)

    def stored(self, version: Base) -> None:
        """The server has taken it as ``version``; its MD5 may still be owed."""
        self._stored = version

    def doubt(self) -> None:
        """It may be on the server already: another process had it and cannot be asked."""
        self._record = _doubted(self._record)

    def absent(self) -> None:
        """The server was seen not to have it."""
        self._record = self._record.replaced(perhaps=())

    def trouble(self, reason: str, *, asked: bool = True) -> None:
        """Sending it failed for now: count the attempt and remember why; the state stays.

        Args:
            reason: one line.
            asked: whether the server may have it all the same.

        None of ``trouble``, ``fail`` and ``conflict`` raises: a record that cannot be written
        leaves the one before on disk, by which the next process looks before it sends.
        """
        self._note(self._record.state, reason, asked=asked)

    def fail(self, reason: str, *, asked: bool = False) -> None:
        """Give up: state FAILED, with the reason."""
        self._end(State.FAILED, reason, asked=asked)

    def conflict(self, reason: str) -> None:
        """Somebody else's version is there: state CONFLICT, with the reason."""
        self._end(State.CONFLICT, reason, asked=False)

    def done(self) -> None:
        """Remove it from the spool: the server surely has it, or nobody wants it.

        Never raises: what cannot be removed is found to be on the server by the next process.
        """
        with self._transition():
            if self._gone:
                return
            self._gone = True
            # From here to the last reference: whoever has the file open reads on.
            self._bytes.keep_readable()
            leaving = self._folder.with_name(LEAVING + self._folder.name)
            try:
                # In one step: a folder that lost its record but not its bytes would be a riddle.
                os.rename(self._folder, leaving)
                remove_folder(leaving)
            except FileNotFoundError:
                log.info("%s was gone from the spool", self._folder)
            except OSError as error:
                log.warning("cannot remove %s from the spool: %s", self._folder, error)
        self._table.forget(self)

    def supersede(self, earlier: Upload) -> None:
        """It is complete and stands for an earlier one of its name, which goes.

        Never raises: what cannot be made as durable as the earlier one was leaves both, of which
        the later counts.
        """
        try:
            if earlier._durable:
                self.fsync()
        except (SpaceProblem, DiskFault) as error:
            log.warning("%s: what it replaces stays too: %s", self._what, error)
        else:
            earlier.done()

    def settle_in(self, place: Path) -> None:
        """Rename its folder to ``place``. Raises OSError."""
        os.rename(self._folder, place)
        self._folder = place
        self._bytes.moved(place)

    @property
    def _what(self) -> str:
        return f"the spool copy of {self._record.target.labels}"

    @contextmanager
    def _transition(self) -> Iterator[None]:
        """One change of the record at a time; waits only as long as the local disk takes."""
        with self._mu:
            self._mu.wait_for(lambda: not self._changing)
            self._changing = True
        try:
            yield
        finally:
            with self._mu:
                self._changing = False
                self._mu.notify_all()

    def _write(self, **changes: Any) -> None:
        record = self._record.replaced(**changes)
        write_record(self._folder, record, durable=self._durable)
        self._record, self._unwritten = record, False

    def _write_if_possible(self, **changes: Any) -> None:
        """A change that counts even if the disk does not take it; the next one tries again."""
        try:
            self._write(**changes)
        except (SpaceProblem, DiskFault) as error:
            self._record, self._unwritten = self._record.replaced(**changes), True
            log.warning("%s: its record could not be written: %s", self._what, error)

    def _note(self, state: State, reason: str, *, asked: bool) -> None:
        with self._transition():
            if self._gone:
                return
            old = self._record
            new = _doubted(old) if asked else old
            new = new.replaced(state=state, last_error=reason)
            tries = old.attempts + 1
            if new == old:
                # The same again, of thousands of files perhaps: not worth the disk's time.
                self._record = old.replaced(attempts=tries)
                return
            self._write_if_possible(
                state=state, last_error=reason, perhaps=new.perhaps, attempts=tries
            )

    def _end(self, state: State, reason: str, *, asked: bool) -> None:
        self._bytes.end_writing()
        self._note(state, reason, asked=asked)
        self.close()

    def _refuse_conflict(self) -> None:
        if self._record.state is State.CONFLICT:
            raise Conflict(f"{self._record.target.labels}: {self._record.last_error}")


def _doubted(record: Record) -> Record:
    """The record of an upload that the server may have now."""
    if not record.md5 or record.version in record.perhaps:
        return record
    return record.replaced(perhaps=(*record.perhaps, record.version))
