"""Receipts: what this user made, remembered by any number of processes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from xnatfs.upload.receipts import Receipts

A, B = "aa" * 16, "bb" * 16


def receipts(folder: Path, account: str = "ada") -> Receipts:
    return Receipts(folder, "https://xnat.example.edu/x", account)


def sheet(folder: Path) -> Path:
    (path,) = (folder / "receipts").glob("*/7")
    return path


def test_exactly_the_version_that_was_stored(tmp_path: Path) -> None:
    mine = receipts(tmp_path)
    assert not mine.holds("7", "a.nii", A, 3)
    mine.add("7", "a.nii", A, 3)
    assert mine.holds("7", "a.nii", A, 3)
    assert not mine.holds("7", "a.nii", A, 4)
    assert not mine.holds("7", "a.nii", B, 3)
    assert not mine.holds("8", "a.nii", A, 3)
    assert not mine.holds("7", "b.nii", A, 3)
    assert not receipts(tmp_path, "eve").holds("7", "a.nii", A, 3)
    mine.add("7", "a.nii", B, 5)
    mine.remove("7", "a.nii")
    assert not mine.holds("7", "a.nii", A, 3)
    assert not mine.holds("7", "a.nii", B, 5)
    mine.add("7", "a.nii", B, 5)
    assert receipts(tmp_path).holds("7", "a.nii", B, 5)


def test_without_a_digest_the_time_decides(tmp_path: Path) -> None:
    mine = receipts(tmp_path)
    when = "Mon, 01 Jan 2024 00:00:00 GMT"
    mine.add("7", "a", "", 3, when)
    mine.add("7", "b", "", 3)
    assert mine.holds("7", "a", "", 3, when)
    assert not mine.holds("7", "a", "", 3, when.replace("01", "02"))
    assert not mine.holds("7", "a", "", 3)
    assert not mine.holds("7", "b", "", 3)


def test_odd_names(tmp_path: Path) -> None:
    names = ["a b", "a%20b", "größe\udcff", "x\ny", "- a", "+ " + A, "a/b/c#?*", "\u2028", "'"]
    mine = receipts(tmp_path)
    for number, name in enumerate(names):
        mine.add("7", name, A, number)
    for number, name in enumerate(names):
        assert receipts(tmp_path).holds("7", name, A, number)
        assert not mine.holds("7", name, A, number + 1)


def test_a_line_that_was_cut_is_no_receipt_and_harms_none(tmp_path: Path) -> None:
    mine = receipts(tmp_path)
    mine.add("7", "a", A, 1)
    with sheet(tmp_path).open("a") as file:
        file.write(f"\n+ {B}-9 b")  # no end of line: the process died
    assert not mine.holds("7", "b", B, 9)
    mine.add("7", "c", B, 2)
    for reader in (mine, receipts(tmp_path)):
        assert reader.holds("7", "a", A, 1)
        assert reader.holds("7", "c", B, 2)
    assert sheet(tmp_path).stat().st_mode & 0o777 == 0o600


def test_another_process_is_seen_at_once(tmp_path: Path) -> None:
    mine = receipts(tmp_path)
    assert not mine.holds("7", "f5", A, 5)
    code = (
        "import sys\nfrom pathlib import Path\nfrom xnatfs.upload.receipts import Receipts\n"
        "r = Receipts(Path(sys.argv[1]), 'https://xnat.example.edu/x', 'ada')\n"
        "for n in range(200): r.add('7', f'f{n}', sys.argv[2], n)"
    )
    children = [
        subprocess.Popen([sys.executable, "-c", code, str(tmp_path), digest]) for digest in (A, B)
    ]
    assert [child.wait() for child in children] == [0, 0]
    assert all(mine.holds("7", f"f{n}", digest, n) for n in range(200) for digest in (A, B))
