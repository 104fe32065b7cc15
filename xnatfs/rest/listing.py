"""One listing: the rows that the server answers with, and what they stand for, or an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from xnatfs.errors import BadReply
from xnatfs.model.entities import Item
from xnatfs.model.levels import Level
from xnatfs.rest import addresses, replies
from xnatfs.rest.repeats import failed
from xnatfs.rest.session import Expects, Session
from xnatfs.waiting import Waiter

Row = TypeVar("Row")


def listing(
    session: Session, address: str, params: Mapping[str, str], waiter: Waiter
) -> list[replies.Cells]:
    """The rows of a listing, every cell as text.

    Args, raises: as ``made``.
    """
    return made(session, address, params, waiter, dict, lambda cells: cells)


def made(
    session: Session,
    address: str,
    params: Mapping[str, str],
    waiter: Waiter,
    kind: type[Row],
    make: Callable[[replies.Cells], Row],
    most: int | None = None,
) -> list[Row]:
    """The rows of a listing, made into something else.

    Args:
        session: open.
        address: below ``/data``, percent-encoded.
        params: query, beside the format.
        waiter: limits of the wait.
        kind: of what they are made into.
        make: makes it.
        most: bytes that it may have.

    Raises: NotFound, BadReply and those of ``Session.request``.
    """
    reply = session.request(
        "GET",
        address,
        params={"format": "json", **params},
        waiter=waiter,
        most=most,
        expects=Expects.LISTING,
    )
    if reply.status != 200:
        raise failed(reply)
    return replies.rows(reply.take(), reply.header("Content-Type"), reply.what, kind, make)


def item_of(level: Level, parent: Item | None, row: Mapping[str, str], what: str) -> Item:
    """An object of a level out of its row in a listing.

    Args:
        level: of the object.
        parent: whose listing it is.
        row: its cells.
        what: the listing's address, for the text of errors.

    Raises: BadReply: the row has no id, or is of another parent (R§1.4).
    """
    id_ = row.get(level.key, "")
    if not id_:
        raise BadReply(f"GET {what}: a row without {level.key}")
    owned = parent is not None and "{parent}" in level.address
    if parent is not None and owned:
        owner, marker, _ = row.get("URI", "").partition(f"/{level.collection}/")
        # R§1.4: for a parent that is gone the server may list another's children.
        if marker and not owner.endswith("/" + parent.id):
            raise BadReply(f"GET {what}: the listing has rows of {owner}")
    return Item(
        level=level,
        id=id_,
        label=row.get(level.label, ""),
        address=addresses.object_address(level, id_, parent.address if parent is not None else ""),
        cells=row,
    )
