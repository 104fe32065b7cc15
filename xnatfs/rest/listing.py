"""One listing: the rows that the server answers with, or an error."""

from __future__ import annotations

from collections.abc import Mapping

from xnatfs.rest import replies
from xnatfs.rest.repeats import failed
from xnatfs.rest.session import Expects, Session
from xnatfs.waiting import Waiter


def listing(
    session: Session,
    address: str,
    params: Mapping[str, str],
    waiter: Waiter,
    most: int | None = None,
) -> list[dict[str, str]]:
    """The rows of a listing.

    Args:
        session: open.
        address: below ``/data``, percent-encoded.
        params: query, beside the format.
        waiter: limits of the wait.
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
    return replies.rows(reply.content, reply.header("Content-Type"), reply.what)
