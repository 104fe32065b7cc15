"""One listing: the rows that the server answers with, or an error."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypeVar

from xnatfs.rest import replies
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
