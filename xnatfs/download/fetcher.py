"""One transfer: a range of one version, resumed at the byte for as long as it moves.

Called on workers only. It knows no store; ``Fetch`` is the only thing it knows of the server.
"""

from __future__ import annotations

from collections.abc import Callable

from xnatfs.model.entities import Head
from xnatfs.waiting import Waiter

# One GET of one file: (start, length, sink, waiter) -> Head.
#
# ``length`` None: to the end (a GET without Range when start is 0). ``sink`` gets the body's bytes
# in order from ``start``; an error that it raises ends the GET and comes out unchanged. The
# Head's size is that of the whole file (Content-Range's total, or the length of a full reply),
# its ``modified`` the file's. ``waiter.progress()`` is called as bytes arrive. Raises
# TransferBroken after a partial body, Stale when the reply's header shows another version, and
# the errors of one request.
Fetch = Callable[[int, int | None, Callable[[bytes], None], Waiter], Head]
