"""What holds with any XNAT: tree, reads, writes, mkdir, rights, names, deletes, dcm2niix.

Everything is done through a real mount, and looked at by plain HTTP.
"""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import nibabel
import pytest

from tests.acceptance.conftest import NOTES, SLICES, Ground
from tests.acceptance.places import BIN, Machine, md5

# No URL can carry some of these (R§4.2); the mount has its ways.
NAMES = {
    "plain.txt": b"plain\n",
    "with space.txt": b"with space\n",
    "plus+plus.txt": b"plus\n",
    "hash#tag.txt": b"hash\n",
    "amp&amp.txt": b"ampersand\n",
    "größe.nii": b"umlauts\n",
    'quote\'s "double".txt': b"quotes\n",
    "n" * 196 + ".txt": b"200 characters\n",
    "a/b/c.txt": b"nested\n",
    "a/b2.txt": b"a sibling of a folder\n",
    "equals=at@comma,colon:tilde.txt": b"sub-delims\n",
    "brackets(1)[2]{3}.txt": b"brackets\n",
    "-dash": b"like an option\n",
}


def refused(work: Callable[[], object]) -> int:
    """The errno that something fails with."""
    with pytest.raises(OSError) as failure:
        work()
    assert failure.value.errno is not None
    return failure.value.errno


def listed(ground: Ground, resource: str) -> dict[str, dict[str, str]]:
    rows = ground.owner.rows(f"{ground.session}/resources/{resource}/files")
    return {row["URI"].partition("/files/")[2]: row for row in rows}


def test_tree(mounted: Path, ground: Ground) -> None:
    subjects = mounted.parents[2]
    assert subjects.name == "subjects"
    assert os.listdir(subjects) == ["SUBJ1"]
    assert ground.project in os.listdir(subjects.parents[1])
    assert os.listdir(mounted.parent) == ["SUBJ1_MR"]
    assert os.listdir(mounted / "scans") == ["4"]
    assert os.listdir(mounted / "scans/4/resources") == ["DICOM"]
    assert "NOTES" in os.listdir(mounted / "resources")
    there = {
        it.name: it.stat().st_size for it in (mounted / "scans/4/resources/DICOM/files").iterdir()
    }
    assert there == {name: len(content) for name, content in SLICES.items()}
    assert not (mounted / "scans/5").exists()
    accession = ground.owner.rows(f"/projects/{ground.project}/experiments")[0]["ID"]
    link = subjects.parents[2] / "experiments" / accession
    assert link.resolve() == mounted.resolve()


def test_reads(mounted: Path, tmp_path: Path) -> None:
    folder = mounted / "scans/4/resources/DICOM/files"
    for name, content in SLICES.items():
        assert (folder / name).read_bytes() == content
    name, content = next(iter(SLICES.items()))
    with open(folder / name, "rb", buffering=0) as file:
        for at in (len(content) - 10, 1000, 0):
            file.seek(at)
            assert file.read(100) == content[at : at + 100]
    subprocess.run(["cp", "-r", folder, tmp_path / "out"], check=True)
    assert {it.name: it.read_bytes() for it in (tmp_path / "out").iterdir()} == SLICES


def test_mkdir(mounted: Path, ground: Ground) -> None:
    (mounted / "resources/MADE").mkdir()
    labels = [row["label"] for row in ground.owner.rows(f"{ground.session}/resources")]
    assert labels.count("MADE") == 1
    assert refused(lambda: (mounted / "resources/MADE").mkdir()) == errno.EEXIST
    assert refused(lambda: (mounted / "resources/MADE/beside").mkdir()) == errno.EPERM
    assert os.listdir(mounted / "resources/MADE/files") == []


def test_writes(mounted: Path, ground: Ground) -> None:
    (mounted / "resources/WRITTEN").mkdir()
    folder = mounted / "resources/WRITTEN/files"
    large = os.urandom(3_000_000)
    contents = {"small.txt": b"small\n", "large.bin": large, "sub/dir/deep.bin": large[:70_000]}
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
        row = listed(ground, "WRITTEN")[name]  # close has returned, so it is there
        assert int(row["Size"]) == len(content)
        assert row["digest"] in ("", md5(content))
    assert ground.owner.files(f"{ground.session}/resources/WRITTEN") == contents
    (folder / "small.txt").write_bytes(b"written again\n")
    with open(folder / "large.bin", "r+b") as file:
        file.seek(1_000_000)
        file.write(b"changed")
    contents |= {
        "small.txt": b"written again\n",
        "large.bin": large[:1_000_000] + b"changed" + large[1_000_007:],
    }
    assert ground.owner.files(f"{ground.session}/resources/WRITTEN") == contents


def test_what_others_made_is_safe(mounted: Path, ground: Ground) -> None:
    """Without --allow-overwrite and --allow-delete."""
    note = mounted / "resources/NOTES/files/first.txt"
    assert refused(lambda: note.write_bytes(b"x")) == errno.EPERM
    assert refused(note.unlink) == errno.EPERM
    assert refused(lambda: note.rename(note.with_name("second.txt"))) == errno.EPERM
    assert ground.owner.files(f"{ground.session}/resources/NOTES") == NOTES


def test_names(mounted: Path, ground: Ground, options: tuple[str, ...], tmp_path: Path) -> None:
    """What goes in by one mount is there for another, under its name and with its bytes."""
    (mounted / "resources/NAMED").mkdir()
    folder = mounted / "resources/NAMED/files"
    for name, content in NAMES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    assert set(listed(ground, "NAMED")) == set(NAMES)
    with Machine(tmp_path, ground.owner, options).mounted() as point:
        there = point / ground.session.lstrip("/") / "resources/NAMED/files"
        files = [it for it in there.rglob("*") if it.is_file()]
        assert {str(it.relative_to(there)): it.read_bytes() for it in files} == NAMES


def test_deletes(mounted: Path, ground: Ground) -> None:
    """One's own files go, and only those: never one whose name starts alike (R§5.2)."""
    (mounted / "resources/DELETED").mkdir()
    folder = mounted / "resources/DELETED/files"
    contents = {name: name.encode() for name in ("a.nii", "a.nii.gz", "a.nii2", "d/a.nii", "d/b")}
    for name, content in contents.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(content)
    (folder / "a.nii").unlink()
    del contents["a.nii"]
    assert ground.owner.files(f"{ground.session}/resources/DELETED") == contents
    (folder / "a.nii2").rename(folder / "a.nii3")
    contents["a.nii3"] = contents.pop("a.nii2")
    assert ground.owner.files(f"{ground.session}/resources/DELETED") == contents
    shutil.rmtree(folder / "d")
    assert set(listed(ground, "DELETED")) == {"a.nii.gz", "a.nii3"}


def test_rights(ground: Ground, options: tuple[str, ...], tmp_path: Path) -> None:
    """Who has no role sees nothing; who may only read is told so when writing."""
    if ground.reader is None:
        pytest.skip("no second account: --xnat-reader NAME")
    machine = Machine(tmp_path / "reader", ground.reader, options)
    with machine.mounted() as point:
        assert not (point / ground.session.lstrip("/")).exists()
    ground.owner.ask("PUT", f"/projects/{ground.project}/users/Collaborators/{ground.reader.user}")
    with Machine(tmp_path / "again", ground.reader, options).mounted() as point:
        session = point / ground.session.lstrip("/")
        for name, content in SLICES.items():
            assert (session / "scans/4/resources/DICOM/files" / name).read_bytes() == content
        note = session / "resources/NOTES/files/mine.txt"
        assert refused(lambda: note.write_bytes(b"x")) == errno.EACCES
        assert refused(lambda: (session / "resources/MINE").mkdir()) == errno.EACCES
    assert ground.owner.files(f"{ground.session}/resources/NOTES") == NOTES
    assert "MINE" not in [it["label"] for it in ground.owner.rows(f"{ground.session}/resources")]


def test_dcm2niix(mounted: Path, ground: Ground, tmp_path: Path) -> None:
    """The job that all this is for."""
    resources = mounted / "scans/4/resources"
    (resources / "NIFTI").mkdir()
    done = subprocess.run(
        [BIN / "dcm2niix", "-o", tmp_path, resources / "DICOM/files"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    made = sorted(tmp_path.iterdir())
    (volume,) = [it for it in made if it.name.endswith((".nii", ".nii.gz"))]
    assert nibabel.load(volume).shape == (64, 64, 8)
    subprocess.run(["cp", *made, resources / "NIFTI/files/"], check=True)
    wanted = {it.name: it.read_bytes() for it in made}
    assert ground.owner.files(f"{ground.session}/scans/4/resources/NIFTI") == wanted
