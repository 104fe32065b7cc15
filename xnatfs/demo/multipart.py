"""Reading `multipart/form-data` as it arrives, in constant memory; file parts go to disk.

Names are taken as commons-fileupload takes them: raw bytes as UTF-8, no `filename*`, only what
follows the last backslash (R§4.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO

from xnatfs.demo.wire import Body, BrokenTransferError

_PIECE = 1 << 20
_HEADER_LIMIT = 1 << 16
_PARAMETER = re.compile(r';\s*([\w*]+)=(?:"([^"]*)"|([^;\s]*))')


class MultipartError(Exception):
    """The body is not what its Content-Type says."""


@dataclass(frozen=True, slots=True)
class Part:
    """One part: a form field with its `text`, or a file that was spooled to `place`."""

    field: str
    filename: str | None
    text: str = ""
    place: Path | None = None


def boundary_of(content_type: str) -> bytes:
    """The boundary of a Content-Type header. Raises MultipartError."""
    for match in _PARAMETER.finditer(content_type):
        name, quoted, plain = match.groups()
        if name.lower() == "boundary" and (quoted or plain):
            return str(quoted or plain).encode()
    raise MultipartError("no boundary")


class _Window:
    """The body with some bytes of foresight."""

    def __init__(self, body: Body) -> None:
        self._body = body
        self._held = bytearray()

    def until(self, mark: bytes) -> Iterator[bytes]:
        """The bytes up to `mark`, which is swallowed. Raises BrokenTransferError at the end."""
        while True:
            at = self._held.find(mark)
            if at >= 0:
                yield bytes(self._held[:at])
                del self._held[: at + len(mark)]
                return
            safe = len(self._held) - len(mark) + 1
            if safe > 0:
                yield bytes(self._held[:safe])
                del self._held[:safe]
            self._more()

    def take(self, count: int) -> bytes:
        """Exactly `count` bytes."""
        while len(self._held) < count:
            self._more()
        taken = bytes(self._held[:count])
        del self._held[:count]
        return taken

    def drain(self) -> None:
        """Read the rest of the body away."""
        while self._body.read(_PIECE):
            pass

    def _more(self) -> None:
        piece = self._body.read(_PIECE)
        if not piece:
            raise BrokenTransferError("the multipart body ended early")
        self._held += piece


def parts(body: Body, content_type: str, spool: Path) -> Iterator[Part]:
    """The parts of a body; files are spooled below `spool` and belong to the caller.

    Raises MultipartError or BrokenTransferError.
    """
    boundary = boundary_of(content_type)
    window = _Window(body)
    for _preamble in window.until(b"--" + boundary):
        pass
    while True:
        ending = window.take(2)
        if ending == b"--":
            window.drain()
            return
        if ending != b"\r\n":
            raise MultipartError("no line end after the boundary")
        header = b"\r\n" + _limited(window.until(b"\r\n\r\n"))
        field, filename = _names(header.decode("utf-8", "replace"))
        content = window.until(b"\r\n--" + boundary)
        if filename is None:
            text = _limited(content, 1 << 20).decode("utf-8", "replace")
            yield Part(field, None, text=text)
        else:
            yield Part(field, filename, place=_spooled(content, spool))


def _limited(pieces: Iterator[bytes], limit: int = _HEADER_LIMIT) -> bytes:
    held = b""
    for piece in pieces:
        held += piece
        if len(held) > limit:
            raise MultipartError("a header or a field is too long")
    return held


def _names(header: str) -> tuple[str, str | None]:
    line = re.search(r"\r\ncontent-disposition:\s*form-data(.*)", header, re.IGNORECASE)
    if line is None:
        raise MultipartError("a part without Content-Disposition")
    found = {m[1].lower(): m[2] if m[2] is not None else m[3] for m in _PARAMETER.finditer(line[1])}
    return found.get("name", ""), found.get("filename")


def _spooled(content: Iterator[bytes], spool: Path) -> Path:
    with NamedTemporaryFile(dir=spool, prefix="upload_", delete=False) as out:
        place = Path(out.name)
        try:
            _copy(content, out)
        except BaseException:
            place.unlink()
            raise
    return place


def _copy(content: Iterator[bytes], out: IO[bytes]) -> None:
    for piece in content:
        out.write(piece)
