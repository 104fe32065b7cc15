"""Mounts a small file system in memory: what is under test is the adapter, over the real kernel.

    python fake_mount.py MOUNTPOINT STATE_FOLDER [foreground] [remembers] [old-kernel]

Files: ``hello`` (5 bytes), ``big`` (1 MiB), ``hang-stat``, ``hang-read``, ``hang-close`` wait
for 30 s there; ``err-CLASS`` raises that error of ``xnatfs.errors`` when it is opened;
``crash`` raises what nobody expects. ``keep`` and ``fresh`` count their reads (attribute
``user.xnat.reads``), with and without kept pages. ``unsent-*`` files never arrive. A refresh
removes ``stale``. ``remembers``: the kernel may answer from memory for 2 s; ``old-kernel``: it
knows no word that ends it.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from xnatfs import errors
from xnatfs.config import Limits, ServerSettings, Settings, SpoolSettings, StoreSettings
from xnatfs.fs.values import Attributes, Entry, Kind, Opened, ReadFailure, Space
from xnatfs.fuse import kernel, mounting
from xnatfs.fuse.serving import Plan

BIG = bytes(range(256)) * 4096
HANG_S = 30.0


class FakeFileSystem:
    def __init__(self):
        self.files = {"hello": b"hello", "big": BIG, "keep": BIG[:65536], "fresh": BIG[:65536]}
        self.files |= {f"hang-{verb}": b"x" * 100 for verb in ("stat", "read", "close", "open")}
        self.files |= {
            f"err-{name}": b"" for name in dir(errors) if isinstance(getattr(errors, name), type)
        }
        self.files |= {"crash": b"", "unreadable": b"12345", "counted": b"1234", "stale": b"1"}
        self.folders = {"", "folder"}
        self.times = {}
        self.handles = {}
        self.reads = {}
        self.callers = []
        self.failures = []

    def warm_up(self):
        pass

    def adopt(self, waiter):
        pass

    def recover(self):
        pass

    def _data(self, path):
        try:
            return self.files[path[1:]]
        except KeyError:
            raise errors.NotFound(f"no {path}") from None

    def getattr(self, path, handle, waiter):
        if path == "/hang-stat":
            waiter.sleep(HANG_S, "a stat")
        ino = abs(hash(path)) % 10**9 + 2
        mtime = self.times.get(path, 1e9)
        if path[1:] in self.folders:
            return Attributes(Kind.FOLDER, 0o755, 0, ino, os.getuid(), os.getgid(), mtime)
        if path == "/link":
            return Attributes(Kind.LINK, 0o777, 5, ino, os.getuid(), os.getgid(), mtime)
        size = len(self._data(path))
        return Attributes(Kind.FILE, 0o644, size, ino, os.getuid(), os.getgid(), mtime)

    def readdir(self, path, waiter):
        if path == "/folder":
            yield Entry("one", Kind.FILE, 77)
            raise errors.BadReply("half a listing")
        for name in self.files:
            yield Entry(name, Kind.FILE, abs(hash("/" + name)) % 10**9 + 2)
        yield Entry("folder", Kind.FOLDER, 5)
        yield Entry("link", Kind.LINK, 6)

    def readlink(self, path, waiter):
        return "hello"

    def mkdir(self, path, waiter):
        self.folders.add(path[1:])

    def unlink(self, path, waiter):
        del self.files[path[1:]]

    def symlink(self, path, target, waiter):
        raise errors.NotSupported("no links")

    link = symlink

    def chmod(self, path, mode, waiter):
        pass

    def utimens(self, path, atime, mtime, waiter):
        self.times[path] = mtime

    def getxattr(self, path, name, waiter):
        if name == "user.xnat.reads":
            return str(self.reads.get(path, 0)).encode()
        if name == "user.xnat.callers":
            return " ".join(map(str, self.callers)).encode()
        assert name.startswith("user."), name
        raise errors.NotSupported("no such attribute")

    def listxattr(self, path, waiter):
        return ["user.xnat.reads"]

    def open(self, path, flags, caller, waiter):
        name = path[1:]
        if name == "hang-open":
            waiter.sleep(HANG_S, "an open")
        if name == "crash":
            raise ZeroDivisionError("nobody expects this")
        if name.startswith("err-"):
            raise getattr(errors, name[4:])("as asked")
        self._data(path)
        if flags & os.O_TRUNC:
            self.files[name] = b""
        self.callers.append(caller.pid)
        handle = len(self.handles) + 1
        self.handles[handle] = path
        return Opened(handle, path == "/keep")

    def create(self, path, flags, mode, caller, waiter):
        self.files[path[1:]] = b""
        return self.open(path, flags, caller, waiter)

    def read(self, handle, size, offset, waiter):
        path = self.handles[handle]
        self.reads[path] = self.reads.get(path, 0) + 1
        if path == "/hang-read":
            waiter.sleep(HANG_S, "a read")
        if path == "/unreadable":
            self.failures.append(ReadFailure(path, "broken", 1.0))
            raise errors.TransferBroken("broken")
        return self._data(path)[offset : offset + size]

    def write(self, handle, data, offset, waiter):
        name = self.handles[handle][1:]
        old = self.files[name].ljust(offset, b"\0")
        self.files[name] = old[:offset] + data + old[offset + len(data) :]
        return len(data)

    def truncate(self, path, length, handle, waiter):
        self.files[path[1:]] = self._data(path)[:length].ljust(length, b"\0")

    def flush(self, handle, caller, waiter):
        path = self.handles[handle]
        if path == "/hang-close":
            waiter.sleep(HANG_S, "a close")
        if path.startswith("/unsent"):
            raise errors.QuotaExceeded("no room")

    def fsync(self, handle, waiter):
        pass

    def release(self, handle, waiter):
        pass

    def statfs(self):
        return Space(4096, 1000, 500, 400, 100, 50)

    def pending(self):
        return [
            {"path": f"/{name}", "size": 1, "state": "failed", "error": "no room", "id": name}
            for name in self.files
            if name.startswith("unsent")
        ]

    def status(self):
        return {"user": "ada", "uploads": {"sent_files": 3, "sent_bytes": 3000}}

    def read_failures(self):
        return self.failures

    def drain(self, waiter):
        pass

    def refresh(self, path, waiter):
        self.files["refreshed"] = b""
        self.files.pop("stale", None)

    def close(self):
        pass


def main() -> None:
    mountpoint, state, *words = sys.argv[1:]
    state_folder = Path(state)
    memory_s = 4.0 if "remembers" in words else 0.0
    if "old-kernel" in words:
        kernel._INC_EPOCH = 99
    settings = Settings(
        server=ServerSettings("http://fake.example"),
        limits=Limits(io_timeout_s=20.0, metadata_ttl_s=memory_s, drain_s=4.0),
        store=StoreSettings(folder=state_folder / "cache"),
        spool=SpoolSettings(folder=state_folder / "spool"),
        state_folder=state_folder,
    )

    def connect(waiter):
        if "refused" in words:
            raise errors.LoginRefused("fake.example: user ada was refused")
        return FakeFileSystem()

    try:
        place = mounting.check(Path(mountpoint), allow_other=False)
        if "foreground" in words:
            mounting.in_foreground(connect, settings, Plan(place, foreground=True))
        log = mounting.default_log(state_folder, place)
        plan = Plan(place, log_file=log, log_level="debug")
        print("mounted as", mounting.in_background(connect, settings, plan))
    except errors.XnatfsError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(9)


if __name__ == "__main__":
    main()
