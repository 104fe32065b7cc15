"""What people work with, over the real mount: it works, or it is refused with what stays named.

Each program has a resource of its own, and nothing but its result is on the server afterwards:
for an owner and for a member, who may not delete; with write-back and without.
"""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import DCM2NIIX, HELD
from xnatfs.demo.server import DemoServer

TYPED = str(Path(__file__).with_name("at_a_terminal.py"))

TREE = {"a": b"a\n", "sub/b.nii.gz": bytes(range(256)) * 12, "empty": b"", "with space": b"s\n"}
CHANGED = TREE | {"a": b"changed\n"}
NEW = {"f": b"new\n"}


@dataclass(frozen=True)
class Program:
    script: str
    # What the server holds afterwards.
    result: dict[str, bytes]
    # Where it takes the right to delete: what a member without write-back is left with …
    remains: dict[str, bytes] | None = None
    # … and what the mount's log says why, before "the server does not let you delete".
    named: str = ""
    # A file that stays on this machine, and is named at the end.
    stays: str = ""


PROGRAMS = {
    "rsync": Program('rsync -a "$IN/" .; rsync -ac "$CHANGED/" .', CHANGED),
    "rsync_inplace": Program('rsync -a --inplace "$IN/" .; rsync -ac --inplace "$CHANGED/" .',
                             CHANGED),
    "vi_new": Program('typed "itext^[|:wq^M" vi -N -u NONE -i NONE f', {"f": b"text\n"}),
    "vi": Program('echo old > f; typed ":%s/old/new/^M|:wq^M" vi -N -u NONE -i NONE f', NEW),
    "vi_rename": Program('echo old > f; typed ":%s/old/new/^M|:wq^M" '
                         'vi -N -u NONE -i NONE -c "set backupcopy=no" f', NEW),
    "nano": Program('echo w > f; typed "ne|^O|^M|^X" nano -I f', {"f": b"new\n"}),
    "nano_backup": Program('echo w > f; typed "ne|^O|^M|^X" nano -I -B f', NEW, stays="f~"),
    "sed": Program("echo old > f; sed -i s/old/new/ f", NEW),
    "sed_backup": Program("echo old > f; sed -i.bak s/old/new/ f", NEW | {"f.bak": b"old\n"},
                          {"f": b"old\n"}, "/f"),
    "tar": Program('tar -C "$IN" -cf - . | tar xf -', TREE),
    "cp": Program('cp -a "$IN/." .; cp -a "$CHANGED/." .', CHANGED),
    "mv_in": Program('cp -r "$IN" "$TMP/x"; mv "$TMP/x"/* .', TREE),
    "mv_within": Program("echo text > f; mkdir d; mv f d/g", {"d/g": b"text\n"},
                         {"f": b"text\n"}, "/f"),
    "mv_over": Program("echo old > f; echo new > g; mv g f", NEW,
                       {"f": b"old\n", "g": b"new\n"}, "/g"),
    "python_named": Program(
        "python -c \"import os, tempfile\nfor text in ('old', 'new'):\n"
        "    out = tempfile.NamedTemporaryFile('w', dir='.', delete=False)\n"
        "    print(text, file=out); out.close(); os.replace(out.name, 'f')\"", NEW),
    "python_part": Program(
        "python -c \"import os\nfor text in ('old', 'new'):\n"
        "    with open('f.part', 'w') as out: print(text, file=out)\n"
        "    os.replace('f.part', 'f')\"", NEW, {"f.part": b"old\n"}, "/f.part"),
    "rm_r": Program("mkdir d; echo x > d/y; echo keep > d2; rm -r d", {"d2": b"keep\n"},
                    {"d/y": b"x\n", "d2": b"keep\n"}, "/d/y"),
}  # fmt: skip

NIBABEL = """
import sys, nibabel, numpy
for number in (1, 2):
    image = nibabel.Nifti1Image(numpy.full((4, 4, 4), number, numpy.int16), numpy.eye(4))
    for name in ("x.nii", "x.nii.gz"):
        nibabel.save(image, name)
        assert (numpy.asarray(nibabel.load(name).dataobj) == number).all()
"""

SHELL = """
set -e
typed() {{ "$PYTHON" "$TYPED" "$@"; }}
python() {{ "$PYTHON" "$@"; }}
TMP=$(mktemp -d); trap 'rm -rf "$TMP"' EXIT
mkdir resources/{label} && cd resources/{label}/files
{script}
"""


def plant(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("user", ["admin", "member"])
@pytest.mark.parametrize("mode", ["through", "back"])
def test_programs(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path, user: str, mode: str
) -> None:
    desk = open_a_desk(server.url, user)
    desk.expected += ["f~", "does not let you delete"]
    desk.variables |= {
        "IN": str(plant(tmp_path / "in", TREE)),
        "CHANGED": str(plant(tmp_path / "changed", CHANGED)),
        "PYTHON": sys.executable,
        "TYPED": TYPED,
    }

    def run(item: tuple[str, Program]) -> subprocess.CompletedProcess[str]:
        return desk.shell(SHELL.format(label=item[0], script=item[1].script))

    desk.mount(*(["--write-back"] if mode == "back" else []))
    with ThreadPoolExecutor(4) as pool:
        saving = pool.submit(
            desk.shell, SHELL.format(label="nibabel", script=f"python -c '{NIBABEL}'")
        )
        answers = dict(zip(PROGRAMS, pool.map(run, PROGRAMS.items()), strict=True))
    done = desk.umount()
    # What is left of a program on this machine is named, and nothing else.
    stays = [f"{name}/files/{it.stays}" for name, it in PROGRAMS.items() if it.stays]
    assert done.returncode == (75 if stays else 0)
    assert (
        sorted(line.rpartition("/resources/")[2] for line in done.stderr.splitlines()[1:]) == stays
    )
    rest, log = Rest(server), desk.log()
    for name, program in PROGRAMS.items():
        refused = program.remains is not None and (user, mode) == ("member", "through")
        wanted = program.remains if refused else program.result
        there = rest.files(f"{HELD}/resources/{name}")
        assert there == wanted, (name, answers[name])
        assert (answers[name].returncode != 0) == refused, (name, answers[name])
        if refused:
            assert f"resources/{name}/files{program.named}: the server does not let you" in log
        else:
            assert answers[name].stderr == "", name
    assert (saving.result().returncode, saving.result().stderr) == (0, "")
    assert set(rest.files(f"{HELD}/resources/nibabel")) == {"x.nii", "x.nii.gz"}


def test_dcm2niix_packs_into_the_archive_by_run(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path
) -> None:
    desk = open_a_desk(server.url, "member")
    rest = Rest(server)
    source = plant(tmp_path / "dicom", rest.files(f"{HELD}/scans/4/resources/DICOM"))
    (tmp_path / "out").mkdir()
    words = [DCM2NIIX, "-z", "y", "-f", "%s_%p", "-o"]
    subprocess.run([*words, tmp_path / "out", source], check=True, capture_output=True)
    script = 'cd scans/4/resources; mkdir NIFTI; "$@" NIFTI/files DICOM/files'
    done = desk.run("--", "sh", "-c", script, "sh", *words)
    assert (done.returncode, done.stderr) == (0, "")
    assert rest.files(f"{HELD}/scans/4/resources/NIFTI") == {
        path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()
    }
