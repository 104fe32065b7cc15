"""Renames: the state of the source and of the target decide.

What is only here is renamed for free. What the server has is sent under the new name, verified,
and the old name deleted exactly: XNAT has no rename (R§5.1).
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from xnatfs.config import MIB
from xnatfs.errors import CrossResource, IsAFolder, Protected, XnatfsError
from xnatfs.fs.names import NameClass, classify
from xnatfs.fs.openfile import OpenFile
from xnatfs.fs.parts import Parts
from xnatfs.fs.states import Failed, Reading
from xnatfs.fs.values import Kind
from xnatfs.model.entities import Item
from xnatfs.model.paths import join, server_name
from xnatfs.model.versions import Version
from xnatfs.rest.addresses import check_new_file
from xnatfs.tree.node import Node
from xnatfs.waiting import Waiter


@dataclass(frozen=True, slots=True)
class _Name:
    """What a file is to be called."""

    # Below ``files``, as the server has it.
    path: str
    # In the mount.
    label: str
    name_class: NameClass


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
    # It may arrive at the server meanwhile, and would end with that.
    file = parts.files.hold_if_there(resource, source.inner)
    try:
        return _rename(
            parts, source, resource, file, target, _Name(path, label, name_class), waiter
        )
    finally:
        if file is not None and parts.files.let_go(file):
            parts.overlay.remove_file(resource, file.path)


def _rename(
    parts: Parts,
    source: Node,
    resource: Item,
    file: OpenFile | None,
    target: Node | None,
    new: _Name,
    waiter: Waiter,
) -> bool:
    replaced = _local(parts, target)
    if source.file is None and file is None:
        return False
    if target is not None and target.file is None and replaced is None:
        return False
    with ExitStack() as turns:
        if replaced is not None and not turns.enter_context(replaced.stepping_aside(waiter)):
            return False
        base = _replaced(parts, target, waiter)
        over = replaced
        if base is None and (gone := reclaim(parts, resource, new.path, waiter)) is not None:
            base, over = gone.base, gone
        if new.name_class is NameClass.REMOVED:
            if not _hide(parts, source, resource, new, waiter):
                return False
        elif source.file is None:
            assert file is not None
            local_only = new.name_class is not NameClass.REAL
            if not file.readdress(
                new.path, new.label, base, waiter, local_only=local_only, over=over
            ):
                return False
            _moved(parts, resource, file, new)
        else:
            _move_remote(parts, source, resource, file, new, base, waiter)
        if replaced is not None:
            replaced.give_up()
            parts.files.drop(replaced)
    if source.file is None and new.name_class is NameClass.REAL:
        assert file is not None
        # What nobody may write is complete: it goes.
        if not parts.files.written_to(file):
            file.send_off(waiter)
    return True


def reclaim(parts: Parts, resource: Item, path: str, waiter: Waiter) -> OpenFile | None:
    """The name of a file that was removed while open comes back: one overwrite, and no gap.

    Returns: that file: whatever comes there replaces its ``base`` and is to ``succeed`` it; None
        when there is none.
    """
    if not parts.overlay.is_hidden(resource, path):
        return None
    for file in parts.files.all():
        same = file.resource.address == resource.address and file.removes == path
        if same and file.take_back(waiter):
            parts.overlay.unhide(resource, path)
            return file
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
    latest = parts.listings.latest(target.resource, target.file)
    version = parts.version(target.resource, latest, waiter)
    parts.rights.require_change(target, version, waiter)
    return version


def _moved(parts: Parts, resource: Item, file: OpenFile, new: _Name) -> None:
    """What is only here is called otherwise now."""
    old = file.path
    if file.base is None or file.removed:
        parts.overlay.add_file(resource, new.path)
    parts.files.move(file, new.path, new.label)
    parts.appearance.move(resource, old, new.path)
    parts.overlay.remove_file(resource, old)


def _hide(
    parts: Parts,
    source: Node,
    resource: Item,
    new: _Name,
    waiter: Waiter,
) -> bool:
    """An open file is removed: libfuse renames it and unlinks that name at the last release.

    Returns: False: it was only here and has arrived at the server meanwhile.
    """
    version = None
    if source.file is not None:
        version = parts.version(resource, parts.listings.latest(resource, source.file), waiter)
        parts.rights.require_remove(source, version, waiter)
    file = parts.files.hold(
        resource,
        source.inner,
        lambda: OpenFile(parts, resource, source.inner, source.path, version),
    )
    try:
        if not file.hide(waiter, on_server=version is not None):
            return False
        parts.overlay.hide(resource, source.inner)
        _moved(parts, resource, file, new)
        return True
    finally:
        parts.files.let_go(file)


def _move_remote(
    parts: Parts,
    source: Node,
    resource: Item,
    file: OpenFile | None,
    new: _Name,
    base: Version | None,
    waiter: Waiter,
) -> None:
    assert source.file is not None
    version = parts.version(resource, parts.listings.latest(resource, source.file), waiter)
    parts.rights.require_remove(source, version, waiter)
    if file is not None and file.unsent:
        file.send(waiter)
        version = file.base or version
    copy = OpenFile(parts, resource, new.path, new.label, base)
    try:
        _fill(copy, OpenFile(parts, resource, source.inner, source.path, version), waiter)
        copy.send(waiter)
        assert isinstance(copy.state, Reading)
    except XnatfsError:
        if isinstance(copy.state, Failed) and not copy.state.upload.record.perhaps:
            # The server has the content under its old name, and only there.
            copy.give_up()
        raise
    finally:
        copy.close()
    # Neither pages nor attributes of what stood there before count any more.
    parts.files.replaced(new.label)
    parts.files.supplanted(resource, new.path)
    parts.appearance.move(resource, source.inner, new.path)
    parts.delete(resource, source.inner, version, source.path, waiter)
    if file is not None:
        parts.files.move(file, new.path, new.label)
        file.follow(copy, waiter)
    parts.overlay.remove_file(resource, new.path)


def _fill(copy: OpenFile, original: OpenFile, waiter: Waiter) -> None:
    """Copy the content of a file that nobody else has, and close that."""
    try:
        copy.truncate(0, waiter)
        for offset in range(0, original.size, MIB):
            copy.write(offset, original.read(offset, MIB, waiter), waiter)
            waiter.progress()
    except BaseException:
        copy.give_up()
        raise
    finally:
        original.close()
