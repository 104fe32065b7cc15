"""Replies: only what was asked for is believed."""

import json

import pytest

from xnatfs.errors import BadReply
from xnatfs.rest import replies

RESTLET = (
    b"<html>\n<head>\n   <title>Status page</title>\n</head>\n<body>\n"
    b"<h3>Already assigned to project:P1 &amp; more</h3><p>You can get technical details"
)


def rows(body: bytes, content_type: str = "application/json") -> list[dict[str, str]]:
    return replies.rows(body, content_type, "GET /x", dict, lambda cells: cells)


def listing(*rows: object) -> bytes:
    return json.dumps({"ResultSet": {"Result": list(rows), "totalRecords": "1"}}).encode()


def test_cells_are_text() -> None:
    got = rows(listing({"a": "x", "b": None, "c": 3, "d": True}))
    assert got == [{"a": "x", "b": "", "c": "3", "d": "true"}]


def test_no_rows() -> None:
    assert rows(listing()) == []


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b"", "application/json"),
        (b"  \n", "application/json"),
        (b"<!DOCTYPE html><html></html>", "application/json"),
        (listing(), "text/html;charset=UTF-8"),
        (b"[]", "application/json"),
        (b"not json", "application/json"),
        (b'{"ResultSet": {}}', "application/json"),
        (b'{"ResultSet": {"Result": ["x"]}}', "application/json"),
        (b'{"items": []}', "application/json"),
    ],
)
def test_what_is_no_listing_is_refused(body: bytes, content_type: str) -> None:
    with pytest.raises(BadReply):
        rows(body, content_type)


def test_the_servers_own_words() -> None:
    assert replies.said(RESTLET) == "Already assigned to project:P1 & more"
    assert replies.said(b"<html><title>Apache Tomcat/7.0.62</title>") == "Apache Tomcat/7.0.62"
    assert replies.said(b"User reader may not\n do it") == "User reader may not do it"
    assert replies.said(b"") == ""
    assert len(replies.said(b"x" * 5000)) == 200


@pytest.mark.parametrize(
    ("body", "name"),
    [
        (b"User 'ada' is logged in", "ada"),
        (b"<html>User 'o&apos;hara' is logged in</html>", "o'hara"),
        (
            b'<span id="user_info">Logged in as: <span style="color:red;">Guest</span>',
            "guest",
        ),
        (b"<html>It works!</html>", None),
        (b"", None),
    ],
)
def test_identity(body: bytes, name: str | None) -> None:
    assert replies.identity(body) == name


def test_duplicates() -> None:
    assert replies.duplicates(b'{"duplicates":["sub/a.nii"]}') == ["sub/a.nii"]
    assert replies.duplicates(b"") == []
    assert replies.duplicates(b'{"duplicates":[]}') == []
    with pytest.raises(BadReply):
        replies.duplicates(b"<html><form action='/login'></html>")


def row(uri: str, **cells: str) -> dict[str, str]:
    return {"URI": uri, "Name": "x", "Size": "7", "cat_ID": "77", "digest": "", **cells}


@pytest.mark.parametrize(
    "uri",
    [
        "/data/experiments/E1/scans/4/resources/77/files/sub/a.nii",
        "/experiments/E1/scans/4/resources/77/files/sub/a.nii",
        "/data/projects/P/subjects/S/experiments/E1/scans/4/resources/77/files/sub/a.nii",
    ],
)
def test_a_file_row(uri: str) -> None:
    file = replies.remote_file(row(uri, digest="ABCDEF0123456789" * 2), "77", "4", "w")
    assert (file.path, file.resource_id, file.size) == ("sub/a.nii", "77", 7)
    assert file.digest == "abcdef0123456789" * 2


def test_a_path_that_looks_like_a_resource() -> None:
    uri = "/data/experiments/E1/resources/77/files/resources/77/files/a"
    assert replies.remote_file(row(uri), "77", "E1", "w").path == "resources/77/files/a"
    assert replies.remote_file(row(uri), "", "", "w").path == "resources/77/files/a"


def test_missing_sizes_digests_and_keys() -> None:
    uri = "/data/experiments/E1/assessors/A/out/resources/77/files/a"
    file = replies.remote_file({"URI": uri, "Name": "a"}, "77", "A", "w")
    assert (file.size, file.digest) == (None, "")
    assert replies.remote_file(row(uri, Size="", digest="zz"), "77", "A", "w").size is None


@pytest.mark.parametrize(
    ("cells", "resource", "owner"),
    [
        ({"URI": "/data/subjects/S/resources/5/files/a", "cat_ID": "5"}, "77", ""),
        ({"URI": "/data/subjects/S/resources/77/files/a"}, "77", "4"),
        ({"URI": "/data/experiments/E1/resources/77/files/a", "cat_ID": "78"}, "77", "E1"),
        ({"URI": "/data/experiments/E1/resources/77/files/"}, "77", "E1"),
        ({"Name": "a"}, "77", "E1"),
    ],
)
def test_a_row_of_something_else(cells: dict[str, str], resource: str, owner: str) -> None:
    with pytest.raises(BadReply):
        replies.remote_file(cells, resource, owner, "w")
