"""What ``download`` may know of the files around one: its resource, and the next one like it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING

from xnatfs.download.siblings import Siblings, following
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.levels import BY_COLLECTION, EXPERIMENT, RESOURCE
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter

if TYPE_CHECKING:
    from xnatfs.download.reader import Reader
    from xnatfs.fs.parts import Parts


def siblings_of(parts: Parts, resource: Item, label: str) -> Siblings:
    """A resource as something that can be fetched whole.

    Args:
        parts: of the mount.
        resource: whose files.
        label: path of its ``files`` in the mount, with a slash at its end, for texts.
    """
    return Siblings(
        key=resource.address,
        label=label,
        rows=lambda waiter: parts.listings.files(resource, None, waiter).catalog.rows(),
        fetch=partial(parts.transfer.fetch_all, resource),
        open=lambda row: _open(parts, resource, row, label),
        listed=lambda path: parts.names.was_listed((label + path).rpartition("/")[0]),
        following=lambda before, waiter: _following(parts, resource, before, waiter),
    )


def _open(parts: Parts, resource: Item, row: RemoteFile, label: str) -> Reader:
    version = Version(row.resource_id, row.path, row.size or 0, row.digest)
    return parts.open_source(resource, version, label + row.path)


def _following(parts: Parts, resource: Item, before: str, waiter: Waiter) -> Siblings | None:
    """The resource of the same label of the next object, when objects are read in some order.

    Only within a session: scans, assessors, reconstructions. The order is that of the numbers
    (10 after 9), of the names (a shell's ``*``), or of the folder as it is listed.
    """
    owner = resource.address.removesuffix(f"{RESOURCE.listing}/{resource.id}")
    collection = owner.rpartition("/")[0]
    session, _, kind = collection.rpartition("/")
    level = BY_COLLECTION.get(kind)
    if level is None or level.listed_at != EXPERIMENT.name:
        return None
    at = Item(EXPERIMENT, session.rpartition("/")[2], "", session, {})
    # Of two with one label the first counts: this is only a guess.
    alike = {
        item.address.removesuffix(f"{RESOURCE.listing}/{item.id}"): item
        for item in reversed(parts.listings.resources(at, waiter).rows)
        if item.label == resource.label and item.address.startswith(collection + "/")
    }

    def orders() -> Iterator[list[str]]:
        yield sorted(alike, key=_numbers)
        yield sorted(alike)
        listed = [item.address for item in parts.listings.items(level, at, waiter).rows]
        yield [address for address in listed if address in alike]

    previous = before.rpartition(RESOURCE.listing + "/")[0]
    after = following(orders(), previous, owner)
    if not after:
        return None
    item = alike[after[0]]
    return siblings_of(parts, item, f"{item.address}/files/")


def _numbers(name: str) -> list[tuple[int, str]]:
    """A key by which 10 comes after 9."""
    return [
        (int(part or 0), "") if part.isdecimal() else (0, part) for part in re.split(r"(\d+)", name)
    ]
