"""Single flight among processes: what another one is fetching is awaited, not fetched again."""

from __future__ import annotations

from collections.abc import Callable

from xnatfs.cache.claims import Claim, Claims
from xnatfs.cache.content import Content
from xnatfs.download.demands import blocks_of
from xnatfs.waiting import Waiter


def bring(
    claims: Claims,
    name: str,
    content: Content,
    span: tuple[int, int],
    take: Callable[[int, bytes], object],
    fetch: Callable[[int, int, Claim], None],
    moves: Callable[[], None],
    waiter: Waiter,
) -> None:
    """Bring a range of a content: what no other process brings is fetched.

    Args:
        claims: of the store.
        name: of the content, for the claims.
        content: what is to be filled.
        span: start and end of the range, on block borders or at the end of the content.
        take: gets the start and bytes of each block that came from another process.
        fetch: brings a range (start, end), and beats the claim.
        moves: called when another process moves.
        waiter: the limits of waiting for others.

    Raises: what ``take``, ``fetch`` and the waiter raise.
    """
    block = content.block
    start, end = span
    lacking = content.missing(start, end - start)

    def changed() -> bool:
        nonlocal lacking
        content.look()
        now = content.missing(start, end - start)
        came = sorted({*blocks_of(lacking, block)} - {*blocks_of(now, block)})
        for index in came:
            # None: it is damaged, and missing again.
            if (piece := content.read(index * block, block)) is not None:
                take(index * block, piece)
        if came:
            lacking = content.missing(start, end - start)
            moved()
        return bool(came)

    def moved() -> None:
        waiter.progress()
        moves()

    while lacking:
        first, length = lacking[0]
        claim = claims.obtain(name, changed, moved, waiter, first // block, -(-length // block))
        if claim is None:
            continue
        with claim:
            start = first + length
            fetch(first, start, claim)
        lacking = content.missing(start, end - start)
