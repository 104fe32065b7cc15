"""Addresses: what arrives at the server is what was meant, or nothing is sent."""

from urllib.parse import unquote, unquote_plus

import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.errors import BadName
from xnatfs.model.levels import PROJECT, RESOURCE, SCAN
from xnatfs.rest import addresses

NAMES = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)
PATHS = st.lists(NAMES, min_size=1, max_size=3).map("/".join)


def arrives(encoded: str) -> str:
    """What the library puts on the wire for an encoded path."""
    prepared = requests.Request("GET", f"http://localhost/data/f/{encoded}").prepare().url
    assert prepared is not None
    return prepared.removeprefix("http://localhost/data/f/")


@pytest.mark.parametrize(
    ("id_", "address"),
    [
        ("4", "/experiments/E1/scans/4"),
        ("1-MR1", "/experiments/E1/scans/1-MR1"),
        ("a b", "/experiments/E1/scans/a%20b"),
        ("a+b", "/experiments/E1/scans/a%2Bb"),
        ("a/b", "/experiments/E1/scans/a%5BSLASH%5Db"),
        ("ü", "/experiments/E1/scans/%C3%BC"),
        ("{parent}", "/experiments/E1/scans/%7Bparent%7D"),
    ],
)
def test_an_id_becomes_one_segment(id_: str, address: str) -> None:
    made = addresses.object_address(SCAN, id_, "/experiments/E1")
    assert made == address
    addresses.check(made)


@pytest.mark.parametrize("id_", ["1,2", "*", "ALL", "NULL", "a;b", "a\\b", "50%", "..", "."])
def test_an_id_that_means_something_else_is_refused(id_: str) -> None:
    with pytest.raises(BadName):
        addresses.check(addresses.object_address(SCAN, id_, "/experiments/E1"))


def test_levels_without_a_parent_in_their_address() -> None:
    assert addresses.object_address(PROJECT, "P1", "") == "/projects/P1"
    assert addresses.object_address(RESOURCE, "77", "/projects/P1") == "/projects/P1/resources/77"


@pytest.mark.parametrize(
    ("path", "literal"),
    [
        ("a/b.nii.gz", "a/b.nii.gz"),
        ("it's(1)=a,b&c!$*:@~.txt", "it's(1)=a,b&c!$*:@~.txt"),
        ("a b", "a%20b"),
        ("a+b", "a%2Bb"),
        ("a #ü+", "a%20%23%C3%BC%2B"),
        ("a#b", None),
        ("größe.nii", None),
        ("a%23b", "a%23b"),
        ("gr%C3%B6%C3%9Fe", "gr%C3%B6%C3%9Fe"),
        ("a%41b", None),
        ("a%2Fb", None),
        ("100%", None),
        ("a%23 b", None),
    ],
)
def test_literal(path: str, literal: str | None) -> None:
    assert addresses.literal(path) == literal


@given(PATHS)
def test_a_literal_is_stored_as_the_path_itself(path: str) -> None:
    encoded = addresses.literal(path)
    if encoded is not None and addresses.is_sendable("/" + encoded):
        assert arrives(encoded) == encoded
        assert addresses.as_stored(encoded) == path


@given(PATHS)
def test_a_readable_path_is_found_by_itself_or_decoded(path: str) -> None:
    try:
        encoded = addresses.readable(path)
        addresses.check("/" + encoded)
    except BadName:
        return
    wire = arrives(encoded)
    assert wire == encoded
    assert path in (wire, unquote_plus(wire))
    assert not set(";\\") & set(unquote(wire))


@pytest.mark.parametrize(
    "path",
    [
        "",
        "a//b",
        "/a",
        "a/",
        "..",
        "a/../b",
        "./a",
        "a;b",
        "a\\b",
        "50%",
        "a\nb",
        "a\udcffb",
        "x.zip/a",
        "x.zip!/a",
        "X.ZIP/a",
        "in/y.jar/b",
    ],
)
def test_what_no_address_carries_is_refused(path: str) -> None:
    with pytest.raises(BadName):
        addresses.readable(path)


@pytest.mark.parametrize("path", ["x_catalog.xml", "a/.~lock-x", "n" * 256])
def test_new_files_that_would_hurt_are_refused(path: str) -> None:
    with pytest.raises(BadName):
        addresses.check_new_file(path)


@pytest.mark.parametrize("label", ["NIFTI", "T1.mgz", "a-b_c", "2mm", "QC+", "=x", "n" * 200])
def test_good_labels(label: str) -> None:
    addresses.check_new_label(label)
    assert arrives(label) == label


@pytest.mark.parametrize(
    "label",
    [
        "",
        "77",
        "a,b",
        "a/b",
        "a b",
        "ü",
        "a'b",
        "a&b",
        "NULL",
        "..",
        "DROP TABLE",
        "n" * 201,
        "*",
        "a%20b",
        "a#b",
        "a?b",
        "٣",
    ],
)
def test_labels_that_would_not_come_back_are_refused(label: str) -> None:
    with pytest.raises(BadName):
        addresses.check_new_label(label)
