"""Bodies: exactly the announced length, readable by others, in small memory."""

import email
import io
import zipfile

import pytest

from xnatfs.errors import Conflict
from xnatfs.rest.bodies import Multipart, pieces, zip_around
from xnatfs.waiting import Waiter


def drain(body: Multipart) -> bytes:
    got = b""
    while piece := body.read(1):
        got += piece
    return got


def test_multipart_is_what_it_says() -> None:
    content = bytes(range(256)) * 5000
    body = Multipart("bnd", "file", io.BytesIO(content), len(content), Waiter())
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


@pytest.mark.parametrize("name", ["größe.nii", "sub/a#b.txt", "plain"])
@pytest.mark.parametrize("content", [b"", b"x" * 3_000_000])
def test_one_entry_archive(name: str, content: bytes) -> None:
    before, after = zip_around(name, io.BytesIO(content), len(content))
    with zipfile.ZipFile(io.BytesIO(before + content + after)) as archive:
        assert archive.testzip() is None
        (entry,) = archive.infolist()
        assert entry.filename == name
        assert entry.compress_type == zipfile.ZIP_STORED
        assert archive.read(entry) == content
