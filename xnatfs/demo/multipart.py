"""Reading `multipart/form-data` as it arrives, in constant memory; file parts go to disk.

Names are taken as commons-fileupload takes them: raw bytes as UTF-8, no `filename*`, only what
follows the last backslash, and of that the basename (R§4.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from tempfile import NamedTemporaryFile

from xnatfs.demo.wire import PIECE, Body, BrokenTransferError

_LIMIT = 1 << 16  # bytes of a part's headers
_PARAMETER = re.compile(r';\s*([\w*]+)=(?:"([^"]*)"|([^;\s]*))')


class MultipartError(Exception):
    """The body is not what its Content-Type says."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: a form field, or a file that was spooled to `place`."""

    field: str
    filename: str = ""
    place: Path | None = None


class _Window:
    """The body with some bytes of foresight."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._held = bytearray()

    def until(self, mark: bytes) -> Iterator[bytes]:
        """The bytes up to `mark`, which is swallowed. Raises BrokenTransferError at the end."""
        while (at := self._held.find(mark)) < 0:
            safe = len(self._held) - len(mark) + 1
            if safe > 0:
                yield self.take(safe)
            self._more()
        yield self.take(at)
        self.take(len(mark))

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        while len(self._held) < count:
            self._more()
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def _more(self) -> None:
        piece = self._body.read(PIECE)
        if not piece:
            raise BrokenTransferError("the multipart body ended early")
        self._held += piece


def parts(body: Body, content_type: str, spool: Path, spooled: ExitStack) -> Iterator[Part]:
    """The parts of a body; files lie below `spool` until `spooled` is closed.

    Raises MultipartError or BrokenTransferError.
    """
    boundary = _parameters(content_type).get("boundary", "").encode()
    if not boundary:
        raise MultipartError("no boundary")
    window = _Window(body)
    for _preamble in window.until(b"--" + boundary):
        pass
    while (ending := window.take(2)) != b"--":
        if ending != b"\r\n":
            raise MultipartError("no line end after the boundary")
        header = b"\r\n"
        for piece in window.until(b"\r\n\r\n"):
            header += piece
            if len(header) > _LIMIT:
                raise MultipartError("a header is too long")
        names = _names(header.decode("utf-8", "replace"))
        content = window.until(b"\r\n--" + boundary)
        if "filename" in names:
            name = names["filename"].rpartition("\\")[2].rpartition("/")[2]
            yield Part(names.get("name", ""), name, _kept(content, spool, spooled))
        else:
            for _text in content:
                pass
            yield Part(names.get("name", ""))
    while body.read(PIECE):
        pass  # what follows the last boundary


def _parameters(text: str) -> dict[str, str]:
    return {it[1].lower(): it[3] if it[2] is None else it[2] for it in _PARAMETER.finditer(text)}


def _names(header: str) -> dict[str, str]:
    line = re.search(r"\r\ncontent-disposition:\s*form-data(.*)", header, re.IGNORECASE)
    if line is None:
        raise MultipartError("a part without Content-Disposition")
    return _parameters(line[1])


def _kept(content: Iterator[bytes], spool: Path, spooled: ExitStack) -> Path:
    with NamedTemporaryFile(dir=spool, prefix="upload_", delete=False) as out:
        place = Path(out.name)
        spooled.callback(partial(place.unlink, missing_ok=True))
        for piece in content:
            out.write(piece)
    return place
