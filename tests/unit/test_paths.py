"""Names: from the server's labels to file names and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xnatfs.model.entities import RemoteFile
from xnatfs.model.paths import (
    NAME_MAX,
    decode_name,
    encode_name,
    folder_tree,
    unique_names,
)

LABELS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80)


@pytest.mark.parametrize(
    ("label", "name"),
    [
        ("DICOM", "DICOM"),
        ("größe +&'.nii", "größe +&'.nii"),
        ("a/b", "a%2Fb"),
        (".", "%2E"),
        ("..", "%2E%2E"),
        ("...", "..."),
        ("100%", "100%"),
        ("50%ab", "50%25ab"),
        ("tab\there", "tab%09here"),
        ("x\udcff", "x%ED%B3%BF"),
    ],
)
def test_names_stay_readable_and_come_back(label: str, name: str) -> None:
    assert encode_name(label) == name
    assert decode_name(name) == label


@given(LABELS)
def test_every_label_becomes_a_file_name_and_comes_back(label: str) -> None:
    name = encode_name(label)
    assert name
    assert name not in (".", "..")
    assert "/" not in name
    assert "\0" not in name
    assert len(name.encode()) <= NAME_MAX
    if len(name.encode()) < NAME_MAX - 9:
        assert decode_name(name) == label


def test_a_long_name_is_cut_and_marked() -> None:
    one, two = encode_name("ä" * 200), encode_name("ä" * 201)
    assert len(one.encode()) <= NAME_MAX
    assert one != two
    assert one[-9] == "~"


def test_the_lowest_id_keeps_a_shared_label() -> None:
    entries = [("12", "DICOM", "b"), ("3", "DICOM", "a"), ("40", "", "c"), ("5", "QC", "d")]
    assert unique_names(entries) == {"DICOM~12": "b", "DICOM": "a", "40": "c", "QC": "d"}


@given(st.lists(st.tuples(st.integers(1, 99), st.sampled_from(["A", "A~1", "B", ""])), max_size=9))
def test_every_entry_gets_a_name_of_its_own(rows: list[tuple[int, str]]) -> None:
    entries = [(str(id_), label, index) for index, (id_, label) in enumerate(rows)]
    assert sorted(unique_names(entries).values()) == list(range(len(rows)))


def _row(path: str) -> RemoteFile:
    return RemoteFile("7", path, 1, "")


def test_folders_come_from_the_paths_of_the_files() -> None:
    tree = folder_tree([_row("a/b/c.txt"), _row("x"), _row("x/y"), _row("d//e")])
    assert list(tree.folders) == ["a", "x"]
    assert {name: getattr(file, "path", "") for name, file in tree.files.items()} == {
        "x~file": "x",
        "d%2F%2Fe": "d//e",
    }
    below = tree.at(["a", "b"])
    assert below is not None
    assert below.path == "a/b"
    assert list(below.files) == ["c.txt"]


@given(st.lists(st.text("ab/~", min_size=1, max_size=5), unique=True, max_size=8))
def test_every_file_is_shown_exactly_once(paths: list[str]) -> None:
    def shown(folder) -> list[str]:
        files = [row.path for row in folder.files.values()]
        for name, child in folder.folders.items():
            assert name not in folder.files
            files += shown(child)
        return files

    assert sorted(shown(folder_tree([_row(path) for path in paths]))) == sorted(paths)
