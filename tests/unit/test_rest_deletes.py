"""Deletes are exact: whatever a resource holds, one file goes and no other."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.errors import BadName, NotFound
from xnatfs.rest import deletes


def removed(sent: str, keys: list[str]) -> set[str]:
    """What the server removes, by its rules (R§4.2, R§5.2), independent of the planner."""
    text = sent
    if re.search("%20|%2B", sent):
        text = bytes(
            re.sub(
                rb"%(..)",
                lambda found: bytes([int(found[1], 16)]),
                sent.replace("+", " ").encode(),
            )
        ).decode()
    gone = {key for key in keys if key.startswith(text)}
    if text.endswith("*"):
        try:
            pattern = re.compile(text[:-1] + ".*")
        except re.error:
            return gone
        gone |= {key for key in keys if pattern.fullmatch(key)}
    return gone


# Few characters, so that names are alike: prefixes, wildcards, what is encoded or decoded.
PATHS = st.lists(
    st.text(st.sampled_from("ab.+ #*$%ü()[]/\n"), min_size=1, max_size=5), min_size=1, max_size=2
).map("/".join)


@given(st.lists(PATHS, min_size=1, max_size=8, unique=True), st.data())
def test_a_sibling_is_never_selected(keys: list[str], data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(keys))
    try:
        sent = deletes.selector(path, keys)
    except BadName:
        return
    assert sent.strip("/"), "an empty path would empty the resource"
    assert removed(sent, keys) == {path}


@pytest.mark.parametrize(
    ("path", "keys", "sent"),
    [
        ("a.nii", ["a.nii", "b.nii"], "a.nii"),
        ("a.nii", ["a.nii", "a.nii.gz", "a.nii.json"], "a.nii$*"),
        ("a.nii.gz", ["a.nii", "a.nii.gz"], "a.nii.gz"),
        ("sub/x", ["sub/x", "sub/xy", "sub2/x"], "sub/x$*"),
        ("a b", ["a b"], "a%20b"),
        ("größe.nii", ["größe.nii", "a"], "gr..e.nii$*"),
        ("a#b", ["a#b"], "a.b$*"),
        ("a%23b", ["a%23b", "c"], "a%23b"),
        ("50%", ["50%"], "50.$*"),
        ("a;b\\c", ["a;b\\c"], "a.b.c$*"),
        ("star*", ["star*", "x"], "star.$*"),
    ],
)
def test_the_selector(path: str, keys: list[str], sent: str) -> None:
    chosen = deletes.selector(path, keys)
    assert chosen == sent
    assert removed(chosen, keys) == {path}


def test_what_cannot_be_told_apart_is_refused() -> None:
    with pytest.raises(BadName):
        deletes.selector("a#b", ["a#b", "a?b"])
    with pytest.raises(BadName):
        deletes.selector("star*", ["star*", "start"])
    with pytest.raises(BadName):
        deletes.selector("#/a", ["#/a", "b"])


def test_a_listing_without_it_or_with_two_of_it() -> None:
    with pytest.raises(NotFound):
        deletes.selector("a", ["b"])
    with pytest.raises(NotFound):
        deletes.selector("", ["b"])
    with pytest.raises(BadName):
        deletes.selector("a", ["a", "a"])
