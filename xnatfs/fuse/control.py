"""How commands talk to a mount: a Unix socket with JSON lines, and a record of every mount.

The record (``mounts`` in the state folder) tells where the socket is, and outlives a mount that
died or ended with something left to say. Whether a mount lives is told by its socket alone: a
process that is gone answers no connection.

A connection carries one request, ``{"verb": …}``, and any number of replies, one JSON object a
line.
"""

from __future__ import annotations

import glob
import json
import logging
import os
import secrets
import socket
import stat
import struct
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from xnatfs.config import make_private
from xnatfs.errors import BadReply, DiskFault, TimedOut
from xnatfs.fuse.private import mount_space

log = logging.getLogger(__name__)

Message = dict[str, Any]
Say = Callable[[Message], None]

# A mount answers from memory; what takes longer hangs.
ANSWER_S = 5.0


@dataclass(frozen=True, slots=True)
class Record:
    """What is known of a mount without asking it."""

    host: str
    pid: int
    mountpoint: str
    server: str
    user: str
    # Seconds since the epoch.
    started: float
    socket: str
    # Log file; "" for a mount in the foreground, which logs to its terminal.
    log: str
    # How long it may go on sending after it is unmounted. Seconds.
    drain_s: float
    # The mount namespace it is mounted in.
    space: str = ""
    # It is of ``xnatfs run``: nobody unmounts it.
    for_command: bool = False
    # Seconds since the epoch; 0 as long as the mount did not end by itself.
    ended: float = 0.0
    # What it left: rows of uploads that did not arrive, files that could not be read.
    pending: list[Message] = field(default_factory=list)
    read_failures: list[Message] = field(default_factory=list)

    @property
    def here(self) -> bool:
        """Whether the mount is on this machine; a home folder may be shared by many."""
        return self.host == socket.gethostname()

    @property
    def seen(self) -> bool:
        """Whether this process sees the mount: that of ``run`` only its command does."""
        return self.here and self.space in ("", mount_space())


def _folder(state_folder: Path) -> Path:
    return state_folder / "mounts"


def _record_path(state_folder: Path, record: Record) -> Path:
    return _folder(state_folder) / f"{record.host}-{record.pid}.json"


def write_record(state_folder: Path, record: Record) -> None:
    """Write a record, as a whole.

    Raises: DiskFault.
    """
    path = _record_path(state_folder, record)
    beside = path.with_suffix(".new")
    try:
        make_private(path.parent)
        with open(os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            json.dump({"version": 1, **asdict(record)}, file, indent=1)
        os.replace(beside, path)
    except OSError as error:
        raise DiskFault(f"cannot write {path}: {error.strerror}") from error


def remove_record(state_folder: Path, record: Record) -> None:
    """Forget a mount."""
    with suppress(OSError):
        _record_path(state_folder, record).unlink()


def records(state_folder: Path, host: str = "") -> list[Record]:
    """The records of all mounts of this user (with a host: on that one only), oldest first."""
    found = []
    folder = _folder(state_folder)
    names = f"{glob.escape(host)}-*.json" if host else "*.json"
    for path in sorted(folder.glob(names)) if folder.is_dir() else []:
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))
            cells.pop("version")
            found.append(Record(**cells))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("cannot read %s: %s", path, error)
    return sorted(found, key=lambda record: record.started)


def record_of(state_folder: Path, mountpoint: Path) -> Record | None:
    """The record of the latest mount that this process sees at an (absolute) mount point."""
    found = [
        record
        for record in records(state_folder)
        if record.seen and record.mountpoint == str(mountpoint)
    ]
    return found[-1] if found else None


def run_folder(state_folder: Path) -> Path:
    """Where sockets live: a folder that only this user may enter.

    Raises: DiskFault.
    """
    uid = os.getuid()
    candidates = [os.environ.get("XDG_RUNTIME_DIR", ""), f"/run/user/{uid}"]
    base = next((Path(place) for place in candidates if _ours(place, uid)), state_folder / "run")
    folder = base / "xnatfs"
    try:
        make_private(folder)
        if stat.S_IMODE(folder.stat().st_mode) & 0o077:
            folder.chmod(0o700)
    except OSError as error:
        raise DiskFault(f"cannot make {folder}: {error.strerror}") from error
    return folder


def _ours(place: str, uid: int) -> bool:
    try:
        status = os.stat(place)
    except OSError:
        return False
    return place.startswith("/") and stat.S_ISDIR(status.st_mode) and status.st_uid == uid


@contextmanager
def _address(path: Path) -> Iterator[str]:
    """The path of a socket, however long: the kernel's limit is 107 bytes."""
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


class Control:
    """The mount's end of the socket.

    Args:
        folder: where the socket goes.
        verbs: what can be asked for; each gets the request and a function that replies. One
            that returns True keeps its connection until ``farewell``.

    Threading: a thread accepts, and each connection has one. ``_mu`` guards the list of kept
    connections.
    """

    def __init__(self, folder: Path, verbs: Mapping[str, Callable[[Message, Say], bool]]) -> None:
        self.path = folder / f"{os.getpid()}-{secrets.token_hex(4)}.sock"
        self._verbs = verbs
        self._mu = threading.Lock()
        self._kept: list[socket.socket] = []
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)

    def start(self) -> None:
        """Listen.

        Raises: DiskFault.
        """
        try:
            with _address(self.path) as address:
                self._listener.bind(address)
                os.chmod(self.path, 0o600)
            self._listener.listen(8)
        except OSError as error:
            raise DiskFault(f"cannot listen on {self.path}: {error}") from error
        threading.Thread(target=self._accept, name="control", daemon=True).start()

    def farewell(self, message: Message) -> None:
        """The last reply on every kept connection, and the end of listening."""
        self.path.unlink(missing_ok=True)
        with self._mu:
            kept, self._kept = self._kept, []
        for connection in kept:
            with suppress(OSError):
                _send(connection, message)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError as error:
                log.warning("control: %s", error)
                return
            threading.Thread(
                target=self._answer, args=(connection,), name="control-answer", daemon=True
            ).start()

    def _answer(self, connection: socket.socket) -> None:
        keep = False
        try:
            connection.settimeout(ANSWER_S)
            if _peer(connection) not in (0, os.getuid()):
                return
            line = connection.makefile("rb").readline(1 << 16)
            if not line:  # only looked whether we are there
                return
            request = json.loads(line)
            verb = self._verbs.get(request.get("verb", ""))
            if verb is None:
                _send(connection, {"error": f"this mount does not know {request.get('verb')!r}"})
                return
            # Kept before the verb runs: the mount may end while it does.
            with self._mu:
                self._kept.append(connection)
            keep = verb(request, lambda message: _send(connection, message))
        except Exception as error:  # noqa: BLE001 -- a bad request must not end the mount
            log.debug("control: %r", error)
            with suppress(OSError):
                _send(connection, {"error": str(error)})
        finally:
            if not keep:
                with self._mu:
                    if connection in self._kept:
                        self._kept.remove(connection)
                connection.close()


def _peer(connection: socket.socket) -> int:
    """The user id of the process at the other end."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return int(struct.unpack("3i", raw)[1])


def _send(connection: socket.socket, message: Message) -> None:
    connection.sendall(json.dumps(message).encode() + b"\n")


def ask(record: Record, request: Message, timeout_s: float = ANSWER_S) -> Iterator[Message]:
    """Send a request to a mount and hand out its replies as they come.

    Args:
        record: which mount.
        request: with its ``verb``.
        timeout_s: the longest time between two replies.

    Raises: BadReply: nobody listens there, or it ended meanwhile. TimedOut: the mount hangs.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(timeout_s)
        try:
            with _address(Path(record.socket)) as address:
                connection.connect(address)
            _send(connection, request)
            for line in connection.makefile("rb"):
                yield json.loads(line)
        except TimeoutError as error:
            raise TimedOut(
                f"{record.mountpoint}: its process {record.pid} does not answer"
            ) from error
        except (OSError, ValueError) as error:
            raise BadReply(
                f"{record.mountpoint}: its process {record.pid} is gone ({error})"
            ) from error


def is_alive(record: Record) -> bool:
    """Whether somebody listens for a mount of this machine."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as connection:
        connection.settimeout(ANSWER_S)
        try:
            with _address(Path(record.socket)) as address:
                connection.connect(address)
        except OSError:
            return False
    return True
