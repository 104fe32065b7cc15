"""The archive as files: every operation of a file system, by path, free of FUSE.

``fuse.operations`` translates the kernel's requests into these calls, one line each; fsspec and
transfer enter here too. Nothing in this package knows errno or HTTP.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from xnatfs.cache import accounts
from xnatfs.config import Settings
from xnatfs.errors import (
    Interrupted,
    IsAFolder,
    NotFound,
    NotSupported,
    Protected,
    ServerFault,
    Stale,
    UsageError,
    XnatfsError,
)
from xnatfs.fs import removing
from xnatfs.fs import rename as renaming
from xnatfs.fs.appearance import PREFIX, Mark, inode
from xnatfs.fs.below import Depth
from xnatfs.fs.folders import Folders
from xnatfs.fs.names import NameClass, classify
from xnatfs.fs.opening import Opening
from xnatfs.fs.overview import pending, status
from xnatfs.fs.parts import Parts
from xnatfs.fs.search import Search
from xnatfs.fs.sendoff import SendOff
from xnatfs.fs.unstored import Unstored
from xnatfs.fs.values import Attributes, Caller, Entry, Kind, Opened, ReadFailure, Space
from xnatfs.rest import tokens
from xnatfs.rest.identity import GUEST
from xnatfs.rest.login import Credentials
from xnatfs.rest.offline import OfflineSession
from xnatfs.rest.session import Session
from xnatfs.tree.node import Node
from xnatfs.upload.queue import Row
from xnatfs.waiting import Waiter

_DAY_S = 86400.0

_NO_BYTES = "it is in the catalog, but the server has no bytes of it"

# Names that a desktop or a shell asks for everywhere; no request is made for them.
_NEVER_ASKED = (NameClass.LOCAL, NameClass.REMOVED)


class FileSystem:
    """One archive, seen by one user.

    Paths are absolute, "/"-separated file names as the kernel sends them. Every method may raise
    the errors of ``xnatfs.errors`` and nothing else.

    Args:
        settings: all of them.
        session: logged in.
        mount: the mount point, for people; "" without one.

    Threading: holds no state of its own; the parts guard themselves.
    """

    def __init__(self, settings: Settings, session: Session, mount: str = "") -> None:
        self._settings = settings
        self._session = session
        self._mount = mount
        self._root = "/" + settings.view.path.strip("/")
        self._parts = Parts(settings, session, mount)
        self._folders = Folders(self._parts)
        self._opening = Opening(self._parts)
        self._unstored = Unstored(self._parts)
        self.search = Search(self._parts)
        self.depth = Depth(self._parts)
        self._send_off = SendOff(self._parts)

    @classmethod
    def connect(
        cls, settings: Settings, credentials: Credentials, waiter: Waiter, mount: str = ""
    ) -> FileSystem:
        """Log in and verify the identity; starts no thread, so that a fork may follow.

        Raises: LoginRefused, Unreachable, NotXnat.
        """
        session = Session(settings.server, settings.limits, credentials, settings.state_folder)
        session.open(waiter)
        # Commands that end soon keep a stored login alive too.
        tokens.keep(session, settings.state_folder, waiter)
        return cls(settings, session, mount)

    @classmethod
    def offline(cls, settings: Settings, user: str = "", mount: str = "") -> FileSystem:
        """Show what the store has, without a login and without a network.

        Args:
            settings: all of them.
            user: whose, if the store knows several accounts of the server.
            mount: as above.

        Raises: UsageError: the store has nothing of the server, or of several accounts.
        """
        url, folder = settings.server.url.rstrip("/"), settings.store.folder
        known = accounts.known(folder, url)
        wanted = settings.server.user or (user if user in known else "")
        if settings.server.anonymous:
            wanted = GUEST
        if not known or wanted not in ("", *known):
            who = f" for {wanted!r}" if known else ""
            raise UsageError(
                f"{folder} holds nothing of {url}{who}: run `xnatfs prefetch` with this "
                "--cache-dir where there is a network"
            )
        if not wanted and len(known) > 1:
            raise UsageError(f"{folder} holds {', '.join(known)}: say which with -u")
        return cls(settings, OfflineSession(url, wanted or known[0]), mount)

    def adopt(self, waiter: Waiter) -> None:
        """Start serving, in this process: take a place in the spool, look at the root.

        Raises: NotFound (``settings.view.path``), NoSpace, DiskFault.
        """
        self._session.adopt()
        self._parts.spool.adopt()
        self._root = self.search.resolve(self._root, waiter)

    def recover(self) -> None:
        """Send what mounts of this account that are gone had to send. Never raises."""
        if not self._settings.policy.read_only:
            self._send_off.recover()

    def warm_up(self) -> None:
        """Begin asking for what the first look at anything needs; waits for nothing."""
        self._parts.listings.warm_up()

    # -- names

    def getattr(self, path: str, handle: int | None, waiter: Waiter) -> Attributes:
        """Attributes of an entry; of an open file when a handle is given."""
        if handle is not None:
            file, _ = self._parts.files.by_handle(handle)
            parent = self._node(os.path.dirname(path), waiter)
            node = Node(Kind.FILE, path, parent.chain, "files", file.path)
            return self._attributes(node, file.size, waiter)
        return self._look(self._node(path, waiter), waiter)

    def readdir(self, path: str, waiter: Waiter) -> Iterator[Entry]:
        """The entries of a folder, in the server's order."""
        for node in self._parts.names.children(self._node(path, waiter), waiter):
            yield Entry(node.name, node.kind, inode(node))

    def readlink(self, path: str, waiter: Waiter) -> str:
        """Where a link leads, relative to its folder."""
        return self._parts.names.link_target(self._node(path, waiter), waiter)

    def access(self, path: str, mode: int, waiter: Waiter) -> None:
        """Whether the entry exists; the kernel compares the mode bits itself."""
        del mode
        self._node(path, waiter)

    def mkdir(self, path: str, waiter: Waiter) -> None:
        """Make a resource (below ``resources``) or a local folder (below ``files``)."""
        parent, name = self._parent(path, waiter)
        self._folders.make(parent, name, waiter)

    def rmdir(self, path: str, waiter: Waiter) -> None:
        """Remove an empty folder below ``files``, or an empty resource that this mount made."""
        self._folders.remove(self._node(path, waiter), waiter)

    def unlink(self, path: str, waiter: Waiter) -> None:
        """Remove a file: on the server when it is there, exactly that one."""
        node = self._node(path, waiter)
        if node.kind is Kind.FOLDER:
            raise IsAFolder(f"{path} is a folder")
        if not node.in_files:
            raise Protected(f"{path} is a link to the one place of its session")
        removing.remove(self._parts, node, lambda: self._node(path, waiter), waiter)

    def rename(self, old: str, new: str, waiter: Waiter) -> None:
        """Rename a file within its resource."""
        while True:
            source = self._node(old, waiter)
            folder, name = self._parent(new, waiter)
            try:
                target: Node | None = self._parts.names.child(folder, name, waiter)
            except NotFound:
                target = None
            if renaming.rename(self._parts, source, folder, name, target, waiter):
                return
            # One of them has arrived at the server meanwhile.
            waiter.check(f"the renaming of {old}")

    def symlink(self, path: str, target: str, waiter: Waiter) -> None:
        """XNAT stores none."""
        del target, waiter
        raise NotSupported(f"{path}: XNAT stores no symbolic links")

    def link(self, path: str, target: str, waiter: Waiter) -> None:
        """XNAT stores none."""
        del target, waiter
        raise NotSupported(f"{path}: XNAT stores no hard links")

    def mknod(self, path: str, mode: int, waiter: Waiter) -> None:
        """XNAT stores none."""
        del mode, waiter
        raise NotSupported(f"{path}: XNAT stores no device nodes, pipes or sockets")

    # -- what XNAT does not store

    def chmod(self, path: str, mode: int, waiter: Waiter) -> None:
        """Remembered for the mount's life, on own files and writable folders."""
        self._unstored.mark(self._node(path, waiter), Mark(mode=mode & 0o7777), waiter)

    def chown(self, path: str, uid: int, gid: int, waiter: Waiter) -> None:
        """Remembered for the mount's life; -1 leaves a value as it is."""
        mark = Mark(uid=uid if uid >= 0 else None, gid=gid if gid >= 0 else None)
        self._unstored.mark(self._node(path, waiter), mark, waiter)

    def utimens(self, path: str, atime: float, mtime: float, waiter: Waiter) -> None:
        """Remembered for the mount's life. Seconds since the epoch."""
        del atime
        self._unstored.mark(self._node(path, waiter), Mark(mtime=mtime), waiter)

    def getxattr(self, path: str, name: str, waiter: Waiter) -> bytes:
        """One extended attribute.

        Raises: NotSupported: there is none of this name.
        """
        value = None
        if name.startswith(PREFIX):
            shown = self._unstored.extended(self._node(path, waiter))
            value = shown.get(name.removeprefix(PREFIX))
        if value is None:
            raise NotSupported(f"{path} has no attribute {name}")
        return value.encode("utf-8", "surrogatepass")

    def listxattr(self, path: str, waiter: Waiter) -> list[str]:
        """The names of the extended attributes."""
        return [PREFIX + name for name in self._unstored.extended(self._node(path, waiter))]

    def setxattr(self, path: str, name: str, value: bytes, waiter: Waiter) -> None:
        """XNAT stores none."""
        del value, waiter
        raise NotSupported(f"{path}: the attribute {name} cannot be stored")

    def removexattr(self, path: str, name: str, waiter: Waiter) -> None:
        """XNAT stores none."""
        del waiter
        raise NotSupported(f"{path}: the attribute {name} cannot be removed")

    # -- files; flags are os.O_* bits

    def open(self, path: str, flags: int, caller: Caller, waiter: Waiter) -> Opened:
        """Open a file that is there; pins the version that the kernel was told of."""
        node = self._node(path, waiter)
        try:
            return self._opening.open(node, flags, caller, waiter)
        except NotFound:
            if node.file is not None:
                if flags & os.O_ACCMODE == os.O_RDONLY:
                    self._missing(path, waiter)
                raise
        except (Interrupted, IsAFolder, Stale):  # the kernel opens once more after Stale
            raise
        except XnatfsError as error:
            # Where the catalog has no digest, opening asks the server.
            if flags & os.O_ACCMODE == os.O_RDONLY:
                self._parts.tally.read_failed(node.path, error)
            raise
        # It was only here, and has arrived at the server meanwhile.
        return self._opening.open(self._node(path, waiter), flags, caller, waiter)

    def _missing(self, path: str, waiter: Waiter) -> None:
        """Tell a file that was removed from one that the catalog still has, without bytes.

        Raises: ServerFault: it is.
        """
        parent, name = self._parent(path, waiter)
        try:
            self._parts.names.child_now(parent, name, waiter)
        except NotFound:
            return
        error = ServerFault(f"{path}: {_NO_BYTES}")
        self._parts.tally.read_failed(path, error)
        raise error

    def create(self, path: str, flags: int, mode: int, caller: Caller, waiter: Waiter) -> Opened:
        """Make a file and open it; it reaches the server when it is closed."""
        parent, name = self._parent(path, waiter)
        return self._opening.create(parent, name, flags, mode, caller, waiter)

    def read(self, handle: int, size: int, offset: int, waiter: Waiter) -> bytes:
        """Exactly ``size`` bytes, fewer only at the end of the file; else an error."""
        file, _ = self._parts.files.by_handle(handle)
        try:
            return file.read(offset, size, waiter)
        except Interrupted:
            raise
        except XnatfsError as error:
            # Neither the kernel's pages nor what it was told of the file can be relied on.
            self._parts.files.changed(file)
            if isinstance(error, Stale):
                self._parts.listings.forget(file.resource)
            if isinstance(error, NotFound):
                error = ServerFault(f"{_NO_BYTES}: {error}")
            self._parts.tally.read_failed(file.label, error)
            raise error from None

    def write(self, handle: int, data: bytes, offset: int, waiter: Waiter) -> int:
        """Write all of ``data`` into the spool; returns its length."""
        file, _ = self._parts.files.by_handle(handle)
        self._parts.files.note(handle, closed=False)
        file.write(offset, data, waiter)
        self._parts.changed(file)
        return len(data)

    def truncate(self, path: str, length: int, handle: int | None, waiter: Waiter) -> None:
        """Cut or lengthen a file; without a handle the server has it when this returns."""
        if handle is not None:
            file, _ = self._parts.files.by_handle(handle)
            self._parts.files.note(handle, closed=False)
            file.truncate(length, waiter)
            self._parts.changed(file)
            return
        opened = self.open(path, os.O_WRONLY, Caller(), waiter)
        try:
            self.truncate(path, length, opened.handle, waiter)
            self.flush(opened.handle, Caller(), waiter)
        finally:
            self.release(opened.handle, waiter)

    def flush(self, handle: int, caller: Caller, waiter: Waiter) -> None:
        """A descriptor is being closed; what keeps the data from the server is raised here."""
        file, descriptor = self._parts.files.by_handle(handle)
        if not descriptor.is_inherited_by(caller.pid):
            self._parts.files.note(handle, closed=True)
        file.flush(descriptor, caller.pid, waiter)

    def fsync(self, handle: int, waiter: Waiter) -> None:
        """The data survives a power loss, in the spool."""
        file, _ = self._parts.files.by_handle(handle)
        file.fsync(waiter)

    def release(self, handle: int, waiter: Waiter) -> None:
        """A descriptor is gone."""
        file = self._parts.files.release(handle, waiter)
        if self._parts.files.find(file.resource, file.path) is None:
            self._parts.overlay.remove_file(file.resource, file.path)

    def statfs(self) -> Space:
        """The disk of the spool; asks no server."""
        room = self._parts.spool.free()
        return Space(
            room.block_size,
            room.blocks,
            room.blocks_free,
            room.blocks_available,
            room.files,
            room.files_free,
        )

    # -- for the people around the mount

    def status(self) -> dict[str, Any]:
        """What ``xnatfs status --json`` shows of this mount (JSON-able)."""
        return status(self._parts, self._mount)

    def read_failures(self) -> list[ReadFailure]:
        """The files that could not be read."""
        return self._parts.tally.read_failures()

    def pending(self) -> list[dict[str, Any]]:
        """What has not reached the server, a row for each upload."""
        return pending(self._parts)

    def take_left(self, row: Row, *, force: bool = False) -> bool:
        """Take over an upload of a mount that is gone; it is sent in the background.

        Args, returns, raises: as ``SendOff.take``.
        """
        return self._send_off.take(row, force=force)

    def drain(self, waiter: Waiter) -> None:
        """Send what is still to be sent; returns when it is decided.

        Raises: TimedOut, Interrupted: the waiter ended first.
        """
        self._send_off.drain(waiter)

    def keep_login(self, waiter: Waiter) -> float:
        """Renew a stored login before it ends; returns seconds after which to look again."""
        if self._settings.offline:
            return _DAY_S
        folder = self._settings.state_folder
        return self._parts.run(partial(tokens.keep, self._session, folder), "the login", waiter)

    def refresh(self, path: str, waiter: Waiter) -> None:
        """Forget what is known of the names at and below a path; the next look asks the server.

        Raises: NotFound, and what the look-up raises.
        """
        whole = path.strip("/") == "" and self._root == "/"
        names = self._parts.names
        names.forget(names.root() if whole else self._node(path, waiter), waiter)

    def inside(self, path: str) -> str:
        """Where a path of the archive is in this mount.

        Raises: NotFound: the mount shows another part of the archive.
        """
        root = self._root.rstrip("/")
        if path != self._root and not path.startswith(f"{root}/"):
            raise NotFound(f"{path} is not below {self._root}")
        return path.removeprefix(root) or "/"

    def close(self) -> None:
        """Release the spool, log out of a session of our own. Never raises."""
        self._send_off.end()
        self._parts.store.close()
        self._session.close()

    # -- inside

    def _node(self, path: str, waiter: Waiter) -> Node:
        name = path.rpartition("/")[2]
        if classify(name) in _NEVER_ASKED and not self._parts.overlay.has_name(name):
            raise NotFound(f"no {name}: this name never leaves the machine")
        return self._parts.names.lookup(self._root.rstrip("/") + path, waiter)

    def _parent(self, path: str, waiter: Waiter) -> tuple[Node, str]:
        folder, _, name = path.rpartition("/")
        return self._node(folder or "/", waiter), name

    def _look(self, node: Node, waiter: Waiter) -> Attributes:
        if node.kind is Kind.LINK:
            target = self._parts.names.link_target(node, waiter)
            return self._attributes(node, len(target.encode()), waiter)
        if node.kind is Kind.FOLDER:
            return self._attributes(node, 0, waiter)
        return self._attributes(node, self._parts.size(node, waiter), waiter)

    def _attributes(self, node: Node, size: int, waiter: Waiter) -> Attributes:
        writable = self._parts.rights.seems("edit", node, waiter)
        return self._parts.appearance.attributes(node, size=size, writable=writable)
