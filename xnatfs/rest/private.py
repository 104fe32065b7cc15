"""A folder of small records that only their owner may read: logins, sessions, refusals."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import logging
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from xnatfs.config import make_private
from xnatfs.errors import DiskFault, NoSpace
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


class PrivateFolder:
    """A folder with mode 0700 and JSON records with mode 0600.

    Args:
        path: the folder; made with the first record.

    Threading: records are replaced atomically, so any number of processes may read and write.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> dict[str, Any]:
        """A record; empty when it is missing, unreadable, not ours or open to others."""
        try:
            descriptor = os.open(self._path / name, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            with open(descriptor, "rb") as file:
                status = os.fstat(descriptor)
                if status.st_uid != os.getuid() or status.st_mode & 0o077:
                    return {}
                record = json.loads(file.read())
        except (OSError, ValueError):
            return {}
        return record if isinstance(record, dict) else {}

    def loose_mode(self, name: str) -> int:
        """The mode of a record that others may read or write; 0 of one that is private or gone."""
        try:
            mode = stat.S_IMODE((self._path / name).stat().st_mode)
        except OSError:
            return 0
        return mode if mode & 0o077 else 0

    def names(self, ending: str) -> list[str]:
        """The names of the records with this ending."""
        try:
            return sorted(path.name for path in self._path.iterdir() if path.suffix == ending)
        except OSError:
            return []

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace a record. Raises: NoSpace, DiskFault."""
        try:
            self._replace(name, json.dumps({"version": 1, **record}).encode())
        except OSError as error:
            kind = NoSpace if error.errno in _FULL else DiskFault
            raise kind(f"{self._path / name}: cannot be written: {error.strerror}") from error

    def try_write(self, name: str, record: Mapping[str, Any]) -> None:
        """Replace a record that only saves work: a full disk must not stop a login."""
        try:
            self.write(name, record)
        except (NoSpace, DiskFault) as error:
            log.info("%s", error)

    def _replace(self, name: str, content: bytes) -> None:
        make_private(self._path)
        beside = self._path / f".{name}.{secrets.token_hex(8)}"
        descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with open(descriptor, "wb") as file:
                file.write(content)
            beside.replace(self._path / name)
        except BaseException:
            beside.unlink(missing_ok=True)
            raise

    def remove(self, name: str) -> None:
        """Remove a record, if it is there."""
        with contextlib.suppress(OSError):
            (self._path / name).unlink(missing_ok=True)

    def salt(self) -> bytes:
        """The folder's own salt for hashes, made once; the first process to link it wins."""
        for _ in range(2):
            stored = self.read("salt").get("salt")
            if isinstance(stored, str):
                return stored.encode()
            made = f"salt.{secrets.token_hex(8)}"
            self.try_write(made, {"salt": secrets.token_hex(32)})
            with contextlib.suppress(OSError):
                # A link fails where the name is taken, so that all agree on one salt.
                os.link(self._path / made, self._path / "salt")
            self.remove(made)
        # No folder can be kept here: nothing is shared, and any salt does.
        return secrets.token_bytes(32)

    @contextlib.contextmanager
    def lock(self, name: str, waiter: Waiter, what: str) -> Iterator[None]:
        """Hold a lock between processes; without effect where there are no locks.

        Raises: what the waiter raises while another process holds it.
        """
        try:
            make_private(self._path)
            descriptor = os.open(self._path / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            log.info("%s: no lock: %s", self._path / name, error.strerror)
            yield
            return
        try:
            while True:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    waiter.sleep(0.05, what)
                    continue
                except OSError as error:
                    # Lustre without -o flock: ENOSYS or ENOTSUP.
                    log.info("%s: no lock: %s", self._path / name, error.strerror)
                break
            yield
        finally:
            os.close(descriptor)
