"""Renames: the state of the source and of the target decide.

What is only here is renamed for free. What the server has is sent under the new name, verified,
and the old name deleted exactly: XNAT has no rename (R§5.1).
"""

from __future__ import annotations

from contextlib import ExitStack

from xnatfs.config import MIB
from xnatfs.errors import CrossResource, IsAFolder, Protected
from xnatfs.fs.names import NameClass, classify
from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.parts import Parts
from xnatfs.fs.states import Reading
from xnatfs.fs.values import Kind
from xnatfs.model.entities import Item
from xnatfs.model.paths import join, server_name
from xnatfs.model.versions import Version
from xnatfs.rest.addresses import check_new_file
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


def rename(
    parts: Parts, source: Node, folder: Node, name: str, target: Node | None, waiter: Waiter
) -> bool:
    """Rename a file.

    Args:
        parts: the mount.
        source: the file.
        folder: the folder that it goes to.
        name: its new file name there.
        target: what stands there now, or None.
        waiter: the limits of the caller's wait.

    Returns: False: source or target was only here and has arrived at the server meanwhile;
        nothing has changed, look again.

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
    if source.file is not None and name_class not in (NameClass.REAL, NameClass.REMOVED):
        raise Protected(
            f"{source.path} is on the server and {name} is a name that never goes there: "
            "rename it to another name, or copy it"
        )
    file = parts.files.find(resource, source.inner)
    replaced = _local(parts, target)
    if source.file is None and file is None:
        return False
    if target is not None and target.file is None and replaced is None:
        return False
    with ExitStack() as turns:
        if replaced is not None and not turns.enter_context(replaced.stepping_aside(waiter)):
            return False
        base = _replaced(parts, target, waiter) or reclaim(parts, resource, path, waiter)
        if source.file is None:
            assert file is not None
            if not _move_local(
                parts, resource, file, path, label, name_class, base, replaced, waiter
            ):
                return False
        elif name_class is NameClass.REMOVED:
            _hide(parts, source, resource, path, label, waiter)
        else:
            _move_remote(parts, source, resource, path, label, base, waiter)
            parts.overlay.remove_file(resource, path)
        if replaced is not None:
            if not replaced.given_up:
                replaced.give_up()
            parts.files.drop(replaced)
    if file is not None and source.file is None:
        _send_off(parts, resource, file, name_class, waiter)
    return True


def reclaim(parts: Parts, resource: Item, path: str, waiter: Waiter) -> Version | None:
    """The name of a file that was removed while open comes back: one overwrite, and no gap.

    Returns: the server's version, which whatever comes there replaces; None when there is none.
    """
    if not parts.overlay.is_hidden(resource, path):
        return None
    for file in parts.files.all():
        same = file.resource.address == resource.address and file.removes == path
        if same and file.take_back(waiter):
            parts.overlay.unhide(resource, path)
            return file.base
    return None


def _local(parts: Parts, target: Node | None) -> OpenFile | None:
    """What is only here and called as the target, or waits to replace it on the server."""
    if target is None or target.resource is None:
        return None
    file = parts.files.find(target.resource, target.inner)
    return file if file is not None and (target.file is None or file.waits) else None


def _replaced(parts: Parts, target: Node | None, waiter: Waiter) -> Version | None:
    """The server's version that the rename replaces."""
    if target is None or target.resource is None or target.file is None:
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
    replaced: OpenFile | None,
    waiter: Waiter,
) -> bool:
    """Rename what is only here; False: the server has got it under its old name meanwhile."""
    old, local_only = file.path, file.local_only
    # Before it waits under its new name: a temporary one never goes.
    file.local_only = name_class is not NameClass.REAL
    if not file.readdress(path, label, base, waiter, replaced):
        file.local_only = local_only
        return False
    if base is None:
        parts.overlay.add_file(resource, path)
    parts.files.move(file, path, label)
    parts.appearance.move(resource, old, path)
    parts.overlay.remove_file(resource, old)
    return True


def _send_off(
    parts: Parts, resource: Item, file: OpenFile, name_class: NameClass, waiter: Waiter
) -> None:
    """What nobody may write is complete: under a real name it goes."""
    if name_class is not NameClass.REAL or parts.files.written_to(file):
        return
    try:
        file.send_off(waiter)
    finally:
        if parts.files.decided(file):
            parts.overlay.remove_file(resource, file.path)


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
