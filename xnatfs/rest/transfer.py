"""Transfers: the bytes of files, down and up, in constant memory.

A download hands out only bytes that belong to the version the caller believes in; an upload
says what the server did with it. Resuming, verifying and repeating are the callers' business.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, closing
from enum import Enum
from typing import BinaryIO

from xnatfs.errors import BadName, BadReply, NotFound, NotPermitted, Stale
from xnatfs.model.entities import Head, Item
from xnatfs.rest import addresses, archives, faults, replies
from xnatfs.rest.archive import event
from xnatfs.rest.bodies import Multipart, multipart_boundary, pieces
from xnatfs.rest.repeats import failed
from xnatfs.rest.session import Expects, Session
from xnatfs.rest.wire import PIECE, Reply
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

_CONTENT_RANGE = re.compile(r"bytes\s+(?P<first>\d+)-(?P<last>\d+)/(?P<total>\d+|\*)")

# The name of an archive; only its suffix matters to the server (R§4.3).
_ARCHIVE_NAME = "xnatfs.zip"


class Sent(Enum):
    """What the server said to an upload; a listing afterwards says what it did (R§4.5)."""

    STORED = "stored"
    # It has a file of that name and did nothing.
    DUPLICATE = "duplicate"


class Transfer:
    """Downloads and uploads of single files.

    Args: as ``Archive``.

    Threading: holds no state that changes; any number of threads.
    """

    def __init__(self, session: Session, reason: str) -> None:
        self._session = session
        self._reason = reason

    # -- down ------------------------------------------------------------------------------

    def fetch(
        self,
        resource: Item,
        path: str,
        sink: Callable[[bytes], None],
        waiter: Waiter,
        *,
        start: int = 0,
        length: int | None = None,
        size: int | None = None,
        modified: str = "",
    ) -> Head:
        """Download a file or a range of it.

        Args:
            resource: whose file.
            path: below its ``files``, as the listing has it.
            sink: gets the bytes of the range in order, in pieces of at most 1 MiB.
            waiter: limits; told of progress with every piece.
            start: first byte.
            length: bytes wanted; None means to the end. More than there is, is cut.
            size: bytes that the caller believes the file to have; None: not known.
            modified: ``Last-Modified`` that the caller believes in; "" = not known.

        Returns:
            size and Last-Modified as this reply told them.

        Raises:
            Stale: the server has another version.
            TransferBroken: the body ended early; the sink got what had arrived.
            TimedOut, NotFound, BadName (no address reaches it), BadReply, and those of
                ``Session.request``.
        """
        address = f"{resource.address}/files/{addresses.readable(path)}"
        if size is None and (start or length is not None):
            # The server does not know the end of a file when it cuts ranges (R§3.2).
            size = self._size(address, waiter)
        end = size if length is None or size is None else min(start + length, size)
        if size is not None and end is not None and start >= end and size > 0:
            return Head(size, modified)
        headers = {}
        if size and end is not None and (start > 0 or end < size):
            headers["Range"] = f"bytes={start}-{end - 1}"
        with self._session.request(
            "GET", address, headers=headers, waiter=waiter, stream=True, expects=Expects.FILE
        ) as reply:
            first = _first_byte(reply, start, end, size, ranged=bool(headers))
            head = _head(reply, size, modified)
            arrived = _pour(reply, sink, waiter, skip=start - first, most=_most(start, end))
        wanted = _most(start, end)
        if wanted is not None and arrived < wanted:
            if reply.header("Content-Length"):
                raise faults.broken_off(reply.what, arrived, wanted)
            # Without a length the end of the body is the end of the file.
            raise Stale(f"{path}: the server's file has {start + arrived} bytes, not {size}")
        if head.size is None and wanted is None:
            return Head(arrived, head.modified)
        return head

    def fetch_all(self, resource: Item, sink: Callable[[bytes], None], waiter: Waiter) -> None:
        """Download all files of a resource as one uncompressed tar (R§3.4).

        One resource for each stream: what leads to the files is then the same in all names.

        Args:
            resource: whose files.
            sink: gets the bytes of the archive in order, in pieces of at most 1 MiB.
            waiter: limits; told of progress with every piece.

        Raises:
            NotFound: the resource has no files, or is not there.
            TransferBroken, TimedOut, BadReply, and those of ``Session.request``.
        """
        with self._session.request(
            "GET",
            f"{resource.address}/files",
            params={"format": "tar"},
            waiter=waiter,
            stream=True,
            expects=Expects.FILE,
        ) as reply:
            _first_byte(reply, 0, None, None, ranged=False)
            _pour(reply, sink, waiter, skip=0, most=None)

    def _size(self, address: str, waiter: Waiter) -> int:
        reply = self._session.request("HEAD", address, waiter=waiter, expects=Expects.FILE)
        if reply.status != 200:
            raise failed(reply)
        length = reply.header("Content-Length")
        if not length.isdecimal():
            raise BadReply(f"{reply.what}: the server does not tell the size of the file")
        return int(length)

    # -- up --------------------------------------------------------------------------------

    def send(
        self,
        resource: Item,
        path: str,
        open_body: Callable[[], BinaryIO],
        size: int,
        waiter: Waiter,
        *,
        overwrite: bool,
    ) -> Sent:
        """Upload one file. One at a time per resource (R§4.6); verify afterwards (R§4.5).

        A name that no address carries is sent as an archive with one entry, or, to overwrite
        it, by the part's own name, which works in the resource's root only (R§4.2).

        Args:
            resource: where to, by its own parent's address (R§12.8).
            path: below its ``files``.
            open_body: opens the content at its start; called again when it has to be sent
                again. The file is closed here.
            size: length of the content, bytes.
            waiter: limits; told of progress with every piece.
            overwrite: replace what is there.

        Returns:
            what the server said.

        Raises:
            BadName: it cannot be sent; nothing was.
            NotPermitted, NotFound, QuotaExceeded, Unreachable: surely nothing was stored.
            ServerFault, ServerBusy, TransferBroken, TimedOut: it may have been stored, even
                in part or outside the catalog (R§4.6).
        """
        addresses.check_new_file(path)
        encoded = addresses.literal(path)
        if encoded is None and not overwrite:
            entry = archives.Entry(path, size, open_body)
            return Sent.DUPLICATE if self.send_archive(resource, [entry], waiter) else Sent.STORED
        params = {"overwrite": "true"} if overwrite else {}
        if encoded is not None:
            method, address, filename = "PUT", f"{resource.address}/files/{encoded}", "file"
        else:
            _check_part_name(path)
            method, address, filename = "POST", f"{resource.address}/files", path
        with ExitStack() as files:

            def content() -> Iterable[bytes]:
                return pieces(files.enter_context(open_body()), size)

            reply = self._send(method, address, params, filename, content, size, waiter)
        return Sent.DUPLICATE if self._refused(reply, path) else Sent.STORED

    def send_archive(
        self, resource: Item, entries: Sequence[archives.Entry], waiter: Waiter
    ) -> list[str]:
        """Upload files as one archive, which the server unpacks; it overwrites none (R§4.3).

        Args:
            resource: where to.
            entries: the files.
            waiter: limits; told of progress with every piece.

        Returns:
            the paths that the server has and left alone.

        Raises: as ``send``.
        """
        for entry in entries:
            addresses.check_new_file(entry.path)
        address, what = f"{resource.address}/files", f"{len(entries)} files"
        with ExitStack() as bodies:

            def content() -> Iterable[bytes]:
                return bodies.enter_context(closing(archives.content(entries)))

            size = archives.length(entries)
            reply = self._send(
                "POST", address, {"extract": "true"}, _ARCHIVE_NAME, content, size, waiter
            )
        return self._refused(reply, entries[0].path if len(entries) == 1 else what)

    def _send(
        self,
        method: str,
        address: str,
        params: dict[str, str],
        filename: str,
        content: Callable[[], Iterable[bytes]],
        size: int,
        waiter: Waiter,
    ) -> Reply:
        boundary = multipart_boundary()
        return self._session.request(
            method,
            address,
            params=event(self._session, self._reason) | params,
            headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
            body=lambda: Multipart(boundary, filename, content(), size, waiter),
            waiter=waiter,
        )

    def _refused(self, reply: Reply, what: str) -> list[str]:
        """The paths that the server has already and did nothing to."""
        if reply.status in (200, 201):
            return replies.duplicates(reply.content)
        if reply.status == 403:
            raise NotPermitted(f"{what}: user {self._session.user!r} may not write here")
        raise failed(reply)


def _check_part_name(path: str) -> None:
    """Refuse what the name of a multipart part cannot carry (R§4.1)."""
    if "/" in path:
        raise BadName(
            f"{path!r}: XNAT cannot overwrite a file with such a name below a folder; "
            "remove it first or use a name without special characters"
        )
    if '"' in path:
        raise BadName(f"{path!r}: XNAT cannot overwrite a file with a quote in its name")


def _most(start: int, end: int | None) -> int | None:
    return None if end is None else max(0, end - start)


def _head(reply: Reply, size: int | None, modified: str) -> Head:
    """What the reply tells of the file, checked against what the caller believes."""
    told = reply.header("Last-Modified")
    if modified and told and told != modified:
        raise Stale(f"{reply.what}: changed on the server at {told}, opened was {modified}")
    total: int | None = None
    if reply.status == 206:
        found = _CONTENT_RANGE.match(reply.header("Content-Range"))
        total = int(found["total"]) if found and found["total"] != "*" else None
    elif reply.header("Content-Length").isdecimal():
        total = int(reply.header("Content-Length"))
    if size is not None and total is not None and total != size:
        raise Stale(f"{reply.what}: the server's file has {total} bytes, not {size}")
    return Head(total if total is not None else size, told)


def _first_byte(
    reply: Reply, start: int, end: int | None, size: int | None, *, ranged: bool
) -> int:
    """Check status and kind of a download's reply; which byte of the file its body begins with.

    A proxy may answer a range with the whole file (R§3.2).
    """
    if reply.status == 404:
        raise NotFound(f"{reply.what}: the server does not have this file (any more)")
    if reply.status not in (200, 206):
        raise failed(reply)
    if replies.is_html(reply.header("Content-Type"), b"") and not reply.header(
        "Content-Disposition"
    ):
        raise BadReply(f"{reply.what}: a web page instead of a file")
    if reply.header("Content-Encoding") not in ("", "identity") and not reply.header(
        "Content-Length"
    ):
        raise BadReply(f"{reply.what}: recoded on the way ({reply.header('Content-Encoding')})")
    if reply.status == 200:
        return 0
    found = _CONTENT_RANGE.match(reply.header("Content-Range"))
    if not ranged or not found:
        raise BadReply(f"{reply.what}: a part of the file that was not asked for")
    if found["total"] != "*" and size is not None and int(found["total"]) != size:
        raise Stale(f"{reply.what}: the server's file has {found['total']} bytes, not {size}")
    if int(found["first"]) != start or (end is not None and int(found["last"]) != end - 1):
        raise BadReply(f"{reply.what}: another part of the file than asked for: {found[0]}")
    return start


def _pour(
    reply: Reply, sink: Callable[[bytes], None], waiter: Waiter, *, skip: int, most: int | None
) -> int:
    """Hand the body's bytes after ``skip`` to the sink, at most ``most``; how many they were."""
    handed = 0
    while most is None or handed < most:
        piece = reply.read(PIECE)
        if not piece:
            break
        waiter.progress()
        if skip:
            cut = min(skip, len(piece))
            skip -= cut
            piece = piece[cut:]
        if most is not None:
            piece = piece[: most - handed]
        if piece:
            sink(piece)
            handed += len(piece)
        waiter.check(reply.what)
    return handed
