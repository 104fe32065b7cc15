"""The two worlds in which the model is tried: the core in a process of its own, and a real mount.

Both can be killed. Paths are below the ``files`` of one resource; an operation that fails raises
``Trouble``, whatever the world calls it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

from tests.core.driver import ME, SESSION, Driver, soon
from tests.mount.desk import SESSION as SHOWN
from tests.mount.desk import Desk, gone, within
from xnatfs.config import Limits, ServerSettings, Settings, SpoolSettings, StoreSettings
from xnatfs.errors import NotFound, XnatfsError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.rest.login import Credentials
from xnatfs.upload.queue import Queue, Row
from xnatfs.upload.record import State


class Trouble(Exception):
    """An operation failed; the text tells how."""


class World(Protocol):
    """A mount of one user, with one resource to work in."""

    # Whether a release is over when its close returns.
    prompt: bool

    def open(self, name: str, *, new: bool) -> int: ...
    def write(self, number: int, offset: int, content: bytes) -> None: ...
    def truncate(self, number: int, length: int) -> None: ...
    def truncate_path(self, name: str, length: int) -> None: ...
    def read(self, number: int) -> bytes: ...
    def flush(self, number: int) -> None: ...
    def close(self, number: int) -> None: ...
    def unlink(self, name: str) -> None: ...
    def rename(self, old: str, new: str) -> None: ...
    def mkdir(self, name: str) -> None: ...
    def rmdir(self, name: str) -> None: ...
    def size(self, name: str) -> int | None: ...
    def content(self, name: str) -> bytes: ...
    def forget(self) -> None: ...
    def remount(self) -> None: ...
    def crash(self) -> None: ...
    def end(self) -> None: ...
    def left(self) -> list[Row]: ...


@dataclass
class Kernel:
    """Drives a FileSystem as the kernel and its library do.

    A file that is removed or replaced while it is open is renamed to a hidden name first, and
    unlinked with its last descriptor.
    """

    fs: FileSystem
    root: str
    paths: dict[int, str] = field(default_factory=dict)
    hidden: int = 0

    def __post_init__(self) -> None:
        self.drive = Driver(self.fs)

    def at(self, name: str) -> str:
        return f"{self.root}/{name}"

    def open(self, name: str, *, new: bool) -> int:
        path = self.at(name)
        number = self.drive.create(path) if new else self.drive.open(path, os.O_RDWR)
        self.paths[number] = path
        return number

    def write(self, number: int, offset: int, content: bytes) -> None:
        assert self.fs.write(number, content, offset, soon()) == len(content)

    def truncate(self, number: int, length: int) -> None:
        self.fs.truncate("/unused", length, number, soon())

    def truncate_path(self, name: str, length: int) -> None:
        self.fs.truncate(self.at(name), length, None, soon())

    def read(self, number: int) -> bytes:
        return self.fs.read(number, 1 << 20, 0, soon())

    def flush(self, number: int) -> None:
        self.fs.flush(number, ME, soon())

    def close(self, number: int) -> None:
        path = self.paths.pop(number)
        try:
            self.fs.flush(number, ME, soon())
        finally:
            self.fs.release(number, soon())
            if ".fuse_hidden" in path and path not in self.paths.values():
                # Nobody hears of an error.
                with suppress(XnatfsError):
                    self.fs.unlink(path, soon())

    def unlink(self, name: str) -> None:
        if self.at(name) in self.paths.values():
            self.hide(name)
        else:
            self.fs.unlink(self.at(name), soon())

    def rename(self, old: str, new: str) -> None:
        if self.at(new) in self.paths.values():
            self.hide(new)
        self.move(self.at(old), self.at(new))

    def hide(self, name: str) -> None:
        self.hidden += 1
        folder = self.at(name).rpartition("/")[0]
        self.move(self.at(name), f"{folder}/.fuse_hidden{self.hidden:08x}00000001")

    def move(self, old: str, new: str) -> None:
        self.fs.rename(old, new, soon())
        self.paths = {number: new if path == old else path for number, path in self.paths.items()}

    def mkdir(self, name: str) -> None:
        self.fs.mkdir(self.at(name), soon())

    def rmdir(self, name: str) -> None:
        self.fs.rmdir(self.at(name), soon())

    def size(self, name: str) -> int | None:
        try:
            return self.drive.stat(self.at(name)).size
        except NotFound:
            return None

    def content(self, name: str) -> bytes:
        return self.drive.read(self.at(name))

    def forget(self) -> None:
        self.fs.refresh("/", soon())

    def remount(self) -> None:
        """The end of this process's part: everything is sent."""
        self.fs.drain(soon())
        assert self.fs.pending() == []
        self.fs.close()

    def recovered(self) -> None:
        """What was left has been sent."""
        self.fs.drain(soon())


def _serve(settings: Settings, root: str, pipe: Connection) -> None:
    """The process of a mount: one call after the other, until it is killed or the pipe ends."""
    try:
        fs = FileSystem.connect(settings, Credentials("admin", "admin", "the test"), soon())
        fs.adopt(soon())
        fs.recover()
        if not Driver(fs).exists(root):
            Driver(fs).mkdir(root.rpartition("/")[0])
    except XnatfsError as error:
        pipe.send((False, repr(error)))
        return
    pipe.send((True, None))
    kernel = Kernel(fs, root)
    with suppress(EOFError):
        while True:
            verb, words, named = pipe.recv()
            try:
                pipe.send((True, getattr(kernel, verb)(*words, **named)))
            except XnatfsError as error:
                pipe.send((False, repr(error)))
            except AssertionError as error:
                pipe.send((False, f"assertion {error!r}"))
    os._exit(0)


# Children are forked from a process without threads and without a server.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload([__name__])


class Core:
    """The core, driven as the kernel would, in a process that can be killed.

    Args:
        url: of the server; folder: for spool and store; state: the state folder.
        label: of the resource.
        write_back: whether a close is content with the spool.
    """

    prompt = True

    def __init__(
        self, url: str, folder: Path, state: Path, label: str, *, write_back: bool
    ) -> None:
        self.settings = Settings(
            server=ServerSettings(url=url),
            limits=Limits(io_timeout_s=20),
            store=StoreSettings(folder=folder / "cache"),
            spool=SpoolSettings(folder=folder / "spool", write_back=write_back),
            state_folder=state,
        )
        self.root = f"{SESSION}/resources/{label}/files"
        self.start()

    def start(self) -> None:
        self.pipe, theirs = _PROCESSES.Pipe()
        self.process = _PROCESSES.Process(
            target=_serve, args=(self.settings, self.root, theirs), daemon=True
        )
        self.process.start()
        theirs.close()
        self.answer()

    def answer(self) -> Any:
        well, result = self.pipe.recv()
        if not well:
            raise Trouble(result)
        return result

    def __getattr__(self, verb: str) -> Any:
        def call(*words: object, **named: object) -> Any:
            self.pipe.send((verb, words, named))
            return self.answer()

        return call

    def remount(self) -> None:
        self.__getattr__("remount")()
        self.kill()
        self.start()

    def crash(self) -> None:
        self.kill()
        self.start()
        self.__getattr__("recovered")()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()
        self.pipe.close()

    end = kill

    def left(self) -> list[Row]:
        return Queue(self.settings.spool).rows()


@contextmanager
def _trouble() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Trouble(repr(error)) from None


class Mounted:
    """A real mount, driven by system calls.

    Args:
        desk: of the user; nothing is mounted.
        label: of the resource.
        write_back: whether a close is content with the spool.
    """

    prompt = False

    def __init__(self, desk: Desk, label: str, *, write_back: bool) -> None:
        self.desk = desk
        self.options = ["--write-back"] if write_back else []
        self.root = desk.point / SHOWN / "resources" / label / "files"
        self.start()
        os.mkdir(self.root.parent)

    def start(self) -> None:
        done = self.desk.xnatfs("mount", self.desk.url, self.desk.point, *self.options)
        assert done.returncode == 0, done.stderr

    def open(self, name: str, *, new: bool) -> int:
        with _trouble():
            return os.open(self.root / name, os.O_RDWR | (os.O_CREAT if new else 0), 0o644)

    def write(self, number: int, offset: int, content: bytes) -> None:
        with _trouble():
            assert os.pwrite(number, content, offset) == len(content)

    def truncate(self, number: int, length: int) -> None:
        with _trouble():
            os.ftruncate(number, length)

    def truncate_path(self, name: str, length: int) -> None:
        with _trouble():
            os.truncate(self.root / name, length)

    def read(self, number: int) -> bytes:
        with _trouble():
            return os.pread(number, 1 << 20, 0)

    def flush(self, number: int) -> None:
        with _trouble():
            os.close(os.dup(number))

    def close(self, number: int) -> None:
        with _trouble():
            os.close(number)

    def unlink(self, name: str) -> None:
        with _trouble():
            os.unlink(self.root / name)

    def rename(self, old: str, new: str) -> None:
        with _trouble():
            os.rename(self.root / old, self.root / new)

    def mkdir(self, name: str) -> None:
        with _trouble():
            os.mkdir(self.root / name)

    def rmdir(self, name: str) -> None:
        with _trouble():
            os.rmdir(self.root / name)

    def size(self, name: str) -> int | None:
        try:
            return os.stat(self.root / name).st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise Trouble(repr(error)) from None

    def content(self, name: str) -> bytes:
        with _trouble():
            return (self.root / name).read_bytes()

    def forget(self) -> None:
        os.kill(self.desk.pid(), signal.SIGHUP)

    def remount(self) -> None:
        done = self.desk.umount()
        assert (done.returncode, done.stderr) == (0, "")
        self.start()

    def crash(self) -> None:
        pid = self.desk.pid()
        os.kill(pid, signal.SIGKILL)
        assert gone(pid, 10)
        self.start()
        assert within(30, lambda: not any(_is_sealed(row) for row in self.left()))

    def end(self) -> None:
        self.desk.umount("--wait", "1")

    def left(self) -> list[Row]:
        for _ in range(5):
            # A folder may go while it is looked at.
            with suppress(OSError, XnatfsError):
                return self.queue().rows()
        return self.queue().rows()

    def queue(self) -> Queue:
        return Queue(SpoolSettings(folder=self.desk.state / "spool"))


def _is_sealed(row: Row) -> bool:
    return row.record is not None and row.record.state is State.SEALED
