"""Bodies: exactly the announced length, readable by others, in small memory."""

import email
import io
import os
import zipfile
from pathlib import Path

import pytest

from xnatfs.errors import Conflict
from xnatfs.rest import archives
from xnatfs.rest.bodies import Multipart, pieces
from xnatfs.waiting import Waiter


def drain(body: Multipart) -> bytes:
    got = b""
    while piece := body.read(1):
        got += piece
    return got


def test_multipart_is_what_it_says() -> None:
    content = bytes(range(256)) * 5000
    body = Multipart(
        "bnd", "file", pieces(io.BytesIO(content), len(content)), len(content), Waiter()
    )
    raw = drain(body)
    assert len(raw) == len(body)
    message = email.message_from_bytes(
        b"Content-Type: multipart/form-data; boundary=bnd\r\n\r\n" + raw
    )
    (part,) = message.get_payload()  # type: ignore[misc]  # a list of messages
    assert part.get_filename() == "file"  # type: ignore[union-attr]
    assert part.get_payload(decode=True) == content  # type: ignore[union-attr]


def test_a_file_that_shrinks_is_no_upload() -> None:
    with pytest.raises(Conflict):
        list(pieces(io.BytesIO(b"abc"), 5))


def test_a_file_that_grows_is_cut_at_its_announced_size() -> None:
    assert b"".join(pieces(io.BytesIO(b"abcdef"), 4)) == b"abcd"


FILES = {"größe.nii": b"x" * 3_000_000, "sub/a#b.txt": b"", "plain": b"abc", "sub/c": bytes(70_000)}


@pytest.mark.parametrize("names", [[name] for name in FILES] + [list(FILES)], ids=len)
def test_an_archive_is_one_for_everybody(names: list[str]) -> None:
    entries = [
        archives.Entry(name, len(FILES[name]), lambda name=name: io.BytesIO(FILES[name]))
        for name in names
    ]
    raw = b"".join(archives.content(entries))
    assert len(raw) == archives.length(entries)
    with zipfile.ZipFile(io.BytesIO(raw)) as archive:
        assert archive.testzip() is None
        assert archive.namelist() == names
        for entry in archive.infolist():
            assert entry.compress_type == zipfile.ZIP_STORED
            # A reader of streams must know the length before the content.
            assert not entry.flag_bits & 0x08
            assert archive.read(entry) == FILES[entry.filename]


class Zeros(io.RawIOBase):
    """A file of zeros that is never in memory."""

    def __init__(self, size: int) -> None:
        self.left = self.size = size

    def read(self, size: int = -1) -> bytes:
        piece = bytes(min(size, self.left))
        self.left -= len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        self.left = self.size - offset
        return offset


@pytest.mark.long
def test_an_archive_of_more_than_4_gib(tmp_path: Path) -> None:
    sizes = {"huge": (4 << 30) + 5, "behind": 10}
    entries = [
        archives.Entry(name, size, lambda size=size: Zeros(size)) for name, size in sizes.items()
    ]
    place = tmp_path / "huge.zip"
    with place.open("wb") as out:
        for piece in archives.content(entries):
            if piece.count(0) == len(piece):
                out.seek(len(piece), os.SEEK_CUR)  # a hole
            else:
                out.write(piece)
    assert place.stat().st_size == archives.length(entries)
    with zipfile.ZipFile(place) as archive:
        assert {entry.filename: entry.file_size for entry in archive.infolist()} == sizes
        assert archive.read("behind") == bytes(10)
