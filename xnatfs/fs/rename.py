"""Renames: the state of the source and of the target decide.

What is only here is renamed for free. What the server has is sent under the new name, verified,
and the old name deleted exactly: XNAT has no rename (R§5.1).
"""

from __future__ import annotations

from xnatfs.config import MIB
from xnatfs.errors import AlreadyExists, CrossResource, IsAFolder, Protected
from xnatfs.fs.names import NameClass, classify
from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.parts import Parts
from xnatfs.fs.states import Reading
from xnatfs.fs.values import Kind
from xnatfs.model.entities import Item
from xnatfs.model.paths import join, server_name
from xnatfs.model.versions import Version
from xnatfs.rest.addresses import check_new_file
from xnatfs.tree.namespace import Node
from xnatfs.waiting import Waiter


def rename(
    parts: Parts, source: Node, folder: Node, name: str, target: Node | None, waiter: Waiter
) -> None:
    """Rename a file.

    Args:
        parts: the mount.
        source: the file.
        folder: the folder that it goes to.
        name: its new file name there.
        target: what stands there now, or None.
        waiter: the limits of the caller's wait.

    Raises: CrossResource (``mv`` copies instead), Protected, NotPermitted, what an upload or a
        delete raises.
    """
    resource = source.resource
    if source.kind is not Kind.FILE or resource is None or resource != folder.resource:
        raise CrossResource(f"{source.path}: only files can be renamed, within one resource")
    if target is not None and target.kind is Kind.FOLDER:
        raise IsAFolder(f"{target.path} is a folder")
    path = join(folder.inner, server_name(name))
    label = f"{folder.path.rstrip('/')}/{name}"
    name_class = classify(name)
    if name_class is NameClass.REAL:
        check_new_file(path)
    base = _replaced(parts, target, waiter) or reclaim(parts, resource, path, waiter)
    file = parts.files.find(resource, source.inner)
    if source.file is None:
        if file is None:
            raise AlreadyExists(f"{source.path} is on its way to the server")
        _move_local(parts, resource, file, path, label, name_class, base, waiter)
    elif name_class is NameClass.REMOVED:
        _hide(parts, source, resource, path, label, waiter)
    elif name_class is NameClass.REAL:
        _move_remote(parts, source, resource, path, label, base, waiter)
    else:
        raise Protected(
            f"{source.path} is on the server and {name} is a name that never goes there: "
            "rename it to another name, or copy it"
        )


def reclaim(parts: Parts, resource: Item, path: str, waiter: Waiter) -> Version | None:
    """The name of a file that was removed while open comes back: one overwrite, and no gap.

    Returns: the server's version, which whatever comes there replaces; None when there is none.
    """
    for file in parts.files.all():
        if file.resource == resource and file.removes == path and file.take_back(waiter):
            parts.overlay.unhide(resource, path)
            return file.base
    return None


def _replaced(parts: Parts, target: Node | None, waiter: Waiter) -> Version | None:
    """The server's version that the rename replaces; a local target is given up."""
    if target is None or target.resource is None:
        return None
    if target.file is None:
        local = parts.files.find(target.resource, target.inner)
        if local is not None:
            local.give_up()
            parts.files.drop(local)
        parts.overlay.remove_file(target.resource, target.inner)
        return None
    version = parts.version(target.resource, target.file, waiter)
    parts.rights.require_change(target, version, waiter)
    return version


def _move_local(
    parts: Parts,
    resource: Item,
    file: OpenFile,
    path: str,
    label: str,
    name_class: NameClass,
    base: Version | None,
    waiter: Waiter,
) -> None:
    old = file.path
    file.readdress(path, label, base, waiter)
    if base is None:
        parts.overlay.add_file(resource, path)
    parts.files.move(file, path, label)
    parts.appearance.move(resource, old, path)
    parts.overlay.remove_file(resource, old)
    file.local_only = name_class is not NameClass.REAL
    if name_class is NameClass.REAL and not parts.files.is_open(file):
        try:
            file.send(waiter)
        finally:
            parts.files.drop(file)
            parts.overlay.remove_file(resource, path)


def _hide(
    parts: Parts,
    source: Node,
    resource: Item,
    path: str,
    label: str,
    waiter: Waiter,
) -> None:
    """An open file is removed: libfuse renames it and unlinks that name at the last release."""
    assert source.file is not None
    version = parts.version(resource, source.file, waiter)
    parts.rights.require_remove(source, version, waiter)
    file = parts.files.hold(
        resource,
        source.inner,
        lambda: OpenFile(parts, resource, source.inner, source.path, version),
    )
    file.local_only = True
    file.removed = True
    file.removes = source.inner
    parts.overlay.hide(resource, source.inner)
    parts.overlay.add_file(resource, path)
    parts.files.move(file, path, label)
    parts.files.let_go(file)


def _move_remote(
    parts: Parts,
    source: Node,
    resource: Item,
    path: str,
    label: str,
    base: Version | None,
    waiter: Waiter,
) -> None:
    assert source.file is not None
    version = parts.version(resource, source.file, waiter)
    parts.rights.require_remove(source, version, waiter)
    file = parts.files.find(resource, source.inner)
    if file is not None and file.unsent:
        file.send(waiter)
        version = file.base or version
    reading = OpenFile(parts, resource, source.inner, source.path, version)
    copy = OpenFile(parts, resource, path, label, base)
    try:
        copy.truncate(0, waiter)
        for offset in range(0, reading.size, MIB):
            copy.write(offset, reading.read(offset, MIB, waiter), waiter)
            waiter.progress()
        copy.send(waiter)
        assert isinstance(copy.state, Reading)
    finally:
        reading.close()
        copy.close()
    # Neither pages nor attributes of what stood there before count any more.
    parts.files.replaced(label)
    parts.appearance.move(resource, source.inner, path)
    parts.delete(resource, source.inner, version, source.path, waiter)
    if file is not None:
        parts.files.move(file, path, label)
        file.follow(copy, waiter)
