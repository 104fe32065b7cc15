"""Whose folder of the spool this is, and whether that process is surely dead.

Every process that spools has a folder of its own with an ``owner`` file in it. Nobody touches
the folder of a process that may live: two senders of one file would store it twice or half.
"""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

from xnatfs.errors import DiskFault
from xnatfs.upload.disk import local_disk, replace_file

VERSION = 1
OWNER_NAME = "owner"
RELEASED_NAME = "released"

_UNREADABLE = re.compile(r"[^A-Za-z0-9._-]+")


@dataclass(frozen=True, slots=True)
class Owner:
    """A process that spools. Two are the same process when all but the last three are equal."""

    host: str
    # /etc/machine-id: tells machines apart that have one host name ("localhost"); "" if missing.
    machine: str
    # /proc/sys/kernel/random/boot_id.
    boot: str
    # The pid namespace: the same pid in two containers is two processes.
    pid_space: str
    pid: int
    # Start time in clock ticks since the boot, because pids come again.
    start: int
    # The work: base URL, login name, and mount point ("" without a mount).
    server: str
    account: str
    mount: str

    @classmethod
    def of_this_process(cls, server: str, account: str, mount: str) -> Owner:
        """The owner that this process is."""
        pid = os.getpid()
        return cls(
            host=socket.gethostname(),
            machine=_text(Path("/etc/machine-id")),
            boot=_text(Path("/proc/sys/kernel/random/boot_id")),
            pid_space=_pid_space(),
            pid=pid,
            start=_start_time(pid) or 0,
            server=server,
            account=account,
            mount=mount,
        )

    @property
    def folder_name(self) -> str:
        """The name of its folder in the spool."""
        host = _UNREADABLE.sub("_", self.host)[:60].lstrip(".") or "host"
        return f"{host}-{self.boot[:8] or 'boot'}-{self.pid}-{self.start}"

    @property
    def where(self) -> str:
        """For people: "node17, process 4711"."""
        return f"{self.host}, process {self.pid}"


def surely_dead(owner: Owner) -> bool:
    """Whether the process is surely gone, as seen from here. In doubt: no."""
    if not owner.boot:
        return False
    if owner.boot != _text(Path("/proc/sys/kernel/random/boot_id")):
        # Another kernel: dead if this very machine was started anew, else unknown.
        here = (socket.gethostname(), _text(Path("/etc/machine-id")))
        return bool(owner.machine) and (owner.host, owner.machine) == here
    if owner.pid_space != _pid_space():
        return False
    return _start_time(owner.pid) != owner.start


def surely_here(owner: Owner) -> bool:
    """Whether the process lives on this machine, as seen from here."""
    same = (owner.boot, owner.pid_space) == (
        _text(Path("/proc/sys/kernel/random/boot_id")),
        _pid_space(),
    )
    return bool(owner.boot) and same and _start_time(owner.pid) == owner.start


def write_owner(folder: Path, owner: Owner) -> None:
    """Write the owner file. Raises NoSpace, QuotaExceeded, DiskFault."""
    text = json.dumps({"version": VERSION, **asdict(owner)}, indent=1) + "\n"
    replace_file(folder / OWNER_NAME, text.encode(), durable=True)


def read_owner(folder: Path) -> Owner:
    """The owner of a folder. Raises DiskFault: missing, unreadable, of a later version."""
    with local_disk(f"the owner of {folder}"):
        text = (folder / OWNER_NAME).read_text(encoding="utf-8", errors="surrogateescape")
    try:
        cells = json.loads(text)
        if cells["version"] != VERSION:
            raise ValueError(f"version {cells['version']}")
        return Owner(**{name: cells[name] for name in Owner.__slots__})
    except (KeyError, TypeError, ValueError) as error:
        raise DiskFault(f"cannot read {folder / OWNER_NAME}: {error}") from error


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _pid_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _start_time(pid: int) -> int | None:
    """Field 22 of /proc/PID/stat (proc(5)); None when there is no such process, or a zombie."""
    stat = _text(Path(f"/proc/{pid}/stat"))
    # The second field is the program's name in parentheses and may hold anything.
    fields = stat.rpartition(")")[2].split()
    if len(fields) < 20 or fields[0] in ("Z", "X"):
        return None
    return int(fields[19])
