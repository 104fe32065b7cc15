"""One file on its way: its bytes and its record, in a folder of the spool."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from xnatfs.config import MIB
from xnatfs.errors import Conflict, DiskFault
from xnatfs.upload.disk import local_disk, sync_folder, write_all
from xnatfs.upload.record import Base, Record, State, write_record

log = logging.getLogger(__name__)

BYTES_NAME = "bytes"


class Bound(Protocol):
    """What an upload asks of its spool: room for its bytes."""

    def reserve(self, size: int) -> None:
        """Count bytes before they are written; raises NoSpace."""

    def give_back(self, size: int) -> None:
        """Count bytes less."""

    def forget(self, upload: Upload) -> None:
        """The upload is gone."""


class Upload:
    """One file on its way, from its first byte to the moment the server surely has it.

    While it is OPEN its file is held open; in the other states it is opened for each use, so
    that thousands may wait.

    Threading: ``_mu`` guards the descriptor, the size, the running MD5 and the record; reads and
    writes of one file exclude each other. fsync happens on a descriptor of its own, without the
    lock. ``size``, ``record`` and ``gone`` are read without it.
    """

    @property
    def record(self) -> Record:
        """The record as it stands on disk."""
        raise NotImplementedError

    @property
    def size(self) -> int:
        """Bytes, as written so far."""
        raise NotImplementedError

    @property
    def gone(self) -> bool:
        """Whether it is done: nothing of it is left on disk."""
        raise NotImplementedError

    def read(self, offset: int, size: int) -> bytes:
        """Up to ``size`` bytes; fewer only at the end of the file."""
        raise NotImplementedError

    def write(self, offset: int, data: bytes) -> int:
        """Write all of ``data``; the upload must be OPEN. Raises NoSpace, QuotaExceeded."""
        raise NotImplementedError

    def truncate(self, length: int) -> None:
        """Cut or lengthen with zeros; the upload must be OPEN."""

    def fsync(self) -> None:
        """Make bytes and record survive a power loss."""

    def seal(self) -> Record:
        """Nothing more is written for now: size and MD5 go into the record, state SEALED."""
        raise NotImplementedError

    def reopen(self) -> None:
        """It is written again: SEALED or FAILED becomes OPEN. CONFLICT raises Conflict.

        The caller sees to it that nobody sends it meanwhile.
        """

    def fail(self, reason: str) -> None:
        """State FAILED."""

    def conflict(self, reason: str) -> None:
        """State CONFLICT."""

    def done(self) -> None:
        """The server surely has it, or nobody wants it: remove it from the spool."""

    def open_body(self) -> BinaryIO:
        """The bytes for a transfer, from the start; the caller closes it."""
        raise NotImplementedError
