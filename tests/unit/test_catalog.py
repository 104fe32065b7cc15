"""The files of one resource as folders, changed one by one."""

from __future__ import annotations

import threading

from hypothesis import given
from hypothesis import strategies as st

from xnatfs.model.entities import RemoteFile
from xnatfs.model.paths import FolderTree, folder_tree
from xnatfs.tree.catalog import Catalog, Folder

paths = st.text("ab/~%", min_size=1, max_size=5)


def row(path: str, size: int = 1) -> RemoteFile:
    return RemoteFile("7", path, size, "")


def shown(folder: FolderTree) -> dict[str, RemoteFile]:
    """Full file names → rows; no name twice."""
    found = dict(folder.files)
    for name, below in folder.folders.items():
        assert name not in folder.files
        assert below.files or below.folders
        found |= {f"{name}/{inner}": file for inner, file in shown(below).items()}
    return found


@given(st.lists(st.tuples(paths, st.integers(0, 2)), max_size=20))
def test_changes_one_by_one_show_what_a_new_listing_would(changes: list[tuple[str, int]]) -> None:
    tree = folder_tree([])
    rows: dict[str, RemoteFile] = {}
    for path, size in changes:
        if size:
            rows[path] = row(path, size)
            tree.put(rows[path])
        elif path in rows:
            tree.remove(rows.pop(path))
        found = shown(tree)
        assert sorted(file.path for file in found.values()) == sorted(rows)
        assert all(file is rows[file.path] for file in found.values())
        # A name that is free belongs to the file that is called so.
        plain = {path for path in rows if path in found or not all(path.split("/"))}
        for path in rows.keys() - plain:
            assert (
                "~" in path
                or "%" in path
                or any(
                    other == path or other.startswith(path + "/") for other in rows if other != path
                )
            )


def test_a_file_beside_a_folder_of_its_name() -> None:
    catalog = Catalog([row("x"), row("y")])
    assert catalog.entry("", "x") == row("x")
    catalog.change("x/z", row("x/z"))
    assert catalog.entry("", "x") == Folder("x")
    assert catalog.entry("", "x~file") == row("x")
    catalog.change("x/z", None)
    assert catalog.entries("") == {"x": row("x"), "y": row("y")}
    assert catalog.entries("x") is None


def test_the_order_is_that_of_the_listing() -> None:
    names = ["b", "a", "d", "c"]
    catalog = Catalog(map(row, names))
    catalog.change("d", row("d", 5))
    catalog.change("e", row("e"))
    assert [file.path for file in catalog.rows()] == [*names, "e"]
    assert list(catalog.entries("") or ()) == [*names, "e"]


def test_a_change_does_not_cost_what_the_resource_holds() -> None:
    """A rebuild for each of these changes would take an hour."""
    catalog = Catalog(row(f"f{number}") for number in range(50_000))
    for number in range(20_000):
        catalog.change(f"n{number}", row(f"n{number}"))
        assert catalog.entry("", f"n{number}") is not None
        catalog.change(f"n{number}", None)


def test_readers_of_a_changing_catalog() -> None:
    catalog = Catalog(row(f"f{number}") for number in range(200))
    stop = threading.Event()

    def change() -> None:
        while not stop.is_set():
            catalog.change("new", row("new"))
            catalog.change("f7/below", row("f7/below"))
            catalog.change("f7/below", None)
            catalog.change("new", None)

    writer = threading.Thread(target=change)
    writer.start()
    try:
        for _ in range(2000):
            entries = catalog.entries("")
            assert entries is not None
            assert {"f7", "f8"} <= entries.keys()
    finally:
        stop.set()
        writer.join()
