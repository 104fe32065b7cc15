"""Without --allow-overwrite and --allow-delete nothing that was there before can change.

And what may be removed goes alone: its neighbours stay, however alike their names are.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import HELD, PLAIN, SESSION, Desk, md5
from xnatfs.demo.server import DemoServer

# What people, cron jobs and programs that mean well do to files, one command a line. $f is a file
# that somebody else made, $d its folder.
ON_A_FILE = """
rm -f "$f"
unlink "$f"
: > "$f"
: >| "$f"
echo x >> "$f"
echo x | tee "$f"
truncate -s 0 "$f"
truncate -s +5 "$f"
fallocate -p -o 0 -l 4096 "$f"
dd if=/dev/zero of="$f" bs=1 count=3 conv=notrunc
dd if=/dev/zero of="$f" bs=1 count=3
shred -n 1 -u "$f"
cp "$MINE/new" "$f"
cp -f "$MINE/new" "$f"
cp --remove-destination "$MINE/new" "$f"
cp -b "$MINE/new" "$f"
install "$MINE/new" "$f"
mv -f "$f" "$f.moved"
mv -f "$f" "$d/.moved.swp"
mv -f "$f" "$MINE/taken"
cp "$MINE/new" "$d/mine.new"; mv -f "$d/mine.new" "$f"; rm -f "$d/mine.new"
ln -sf "$MINE/new" "$f"
ln -f "$MINE/new" "$f"
sed -i 's/./X/g' "$f"
sed -i.bak 's/./X/g' "$f"
rsync -ac "$MINE/new" "$f"
rsync -ac --inplace "$MINE/new" "$f"
rsync -a --remove-source-files "$f" "$MINE/taken"
exec 3<> "$f"; echo x >&3
chmod 000 "$f"
touch "$f"
gzip -c "$f" > "$MINE/x.gz"; gunzip -fc "$MINE/x.gz" > "$f"
tar -C "$MINE" -cf "$MINE/t.tar" --transform="s,new,${f##*/}," new
tar -C "$d" --overwrite -xf "$MINE/t.tar"
tar -C "$d" --unlink-first -xf "$MINE/t.tar"
tar -C "$d" --recursive-unlink -xf "$MINE/t.tar"
vi -N -es -u NONE -i NONE -c '%s/./X/g' -c 'wq!' "$f"
python -c 'import os, sys; os.truncate(sys.argv[1], 1)' "$f"
python -c 'import os, sys; os.remove(sys.argv[1])' "$f"
python -c 'import shutil, sys; shutil.move(sys.argv[1], sys.argv[2])' "$f" "$MINE/taken"
python -c 'import sys; open(sys.argv[1], "r+b").write(b"x")' "$f"
python -c 'import sys; open(sys.argv[1], "a").write("x")' "$f"
python -c 'import mmap, sys; f = open(sys.argv[1], "r+b"); mmap.mmap(f.fileno(), 0)[0] = 1' "$f"
python "$MINE/replace.py" "$f"
"""

REPLACE = """
import os, sys, tempfile
for name in (None, sys.argv[1] + "~", os.path.join(os.path.dirname(sys.argv[1]), ".x.ABC123")):
    try:
        if name:
            out = os.fdopen(os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w")
        else:
            out = tempfile.NamedTemporaryFile("w", dir=os.path.dirname(sys.argv[1]), delete=False)
        with out:
            out.write("replaced")
        try:
            os.replace(name or out.name, sys.argv[1])
        finally:
            os.remove(name or out.name)
    except OSError as error:
        print(error)
"""

ON_EVERYTHING = """
chmod -R 000 .
rsync -a --delete "$MINE/nothing/" .
find . -type f -delete
find . -type f -exec sh -c ': > "$1"' sh {} ";"
find . -depth -type d -exec rmdir {} ";"
mv projects/PVT000 projects/GONE
mv "$SESSION" "$SESSION.old"
mv "$SESSION/scans/4" "$SESSION/scans/5"
mv "$SESSION/resources/NAMES/files/a" "$SESSION/resources/NAMES/files/c"
mv "$SESSION/resources/QC" "$MINE/QC"
rmdir "$SESSION/resources/EMPTY"
rm -rf "$SESSION/resources/NAMES/files/a"
rm -rf experiments/*
rm -rf "$SESSION"
rm -rf projects/* experiments
"""


def state_of(archive: Path) -> dict[str, str]:
    """Every file of the archive on the server's disk, but for what the server keeps of them."""
    return {
        str(path.relative_to(archive)): md5(path)
        for path in sorted(archive.rglob("*"))
        if path.is_file() and not path.name.endswith("_catalog.xml")
    }


def entries_of(archive: Path) -> set[tuple[str, str]]:
    """The catalogs' own words on each of them."""
    return {
        (str(path.relative_to(archive)), entry)
        for path in archive.rglob("*_catalog.xml")
        for entry in re.findall(r"<cat:entry[^>]*>", path.read_text())
    }


SCRIPT = """
MINE=$1; shift; cd "$POINT" || exit 99
python() {{ "$PYTHON" "$@"; }}
for f in "$@"; do
d=$(dirname "$f")
{file}
done
{everything}
ls -R > /dev/null
"""

TARGETS = {
    "through": [PLAIN, f"{SESSION}/assessors/Haofei01_QC1/resources/RESULT/files/result.txt"],
    "back": [f"{SESSION}/resources/NAMES/files/größe.nii",
             "projects/PVT000/resources/PROTOCOL/files/protocol.txt"],
}  # fmt: skip


def each(lines: str) -> str:
    """The lines as commands that do not stop the next one."""
    return "\n".join(f"({line})" for line in lines.strip().splitlines())


@pytest.mark.parametrize("mode", ["through", "back"])
def test_nothing_that_was_there_before_changes(
    desk: Desk, server: DemoServer, tmp_path: Path, mode: str
) -> None:
    """As an owner, whom the server lets do anything."""
    archive = tmp_path / "server" / "archive"
    files, entries = state_of(archive), entries_of(archive)
    assert min(len(files), len(entries)) > 40
    mine = tmp_path / "mine"
    (mine / "nothing").mkdir(parents=True)
    (mine / "new").write_text("new\n")
    (mine / "replace.py").write_text(REPLACE)
    desk.variables |= {"POINT": str(desk.point), "SESSION": SESSION, "PYTHON": sys.executable}
    desk.expected.append("")
    desk.mount(*(["--write-back"] if mode == "back" else []))
    script = SCRIPT.format(file=each(ON_A_FILE), everything=each(ON_EVERYTHING))
    done = desk.shell(script, mine, *TARGETS[mode])
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("Operation not permitted") > 150
    desk.umount()
    # Nothing is changed, nothing is gone, and nothing is left beside.
    assert state_of(archive) == files
    assert entries_of(archive) == entries


# Neighbours by prefix, by pattern and by folder; in the order in which they are removed.
NEIGHBOURS = [
    "a nii", "a.nii", "a", "a.nii.gz", "a+", "größe", "a.nii.json", "a.niix", "a b",
    "größe.nii", "sub.nii", "sub2/a.nii", "sub2/a.nii.gz", "sub 2/x", "subx", "a+b",
]  # fmt: skip


@pytest.mark.parametrize("mode", ["through", "back"])
def test_exactly_what_is_removed_goes(desk: Desk, server: DemoServer, mode: str) -> None:
    rest = Rest(server)
    there = {name: f"this is {name}\n".encode() for name in [*NEIGHBOURS, "sub/a.nii", "sub/c/d"]}
    with desk.mounted():
        (desk.session / "resources/EXACT").mkdir()
        for name, content in there.items():
            path = desk.session / "resources/EXACT/files" / name
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_bytes(content)
    assert rest.files(f"{HELD}/resources/EXACT") == there
    # A later mount, which knows of them only what the server and the receipts say.
    with desk.mounted(*(["--write-back"] if mode == "back" else [])):
        desk.works("rm -r resources/EXACT/files/sub")
        there = {name: content for name, content in there.items() if not name.startswith("sub/")}
        assert rest.files(f"{HELD}/resources/EXACT") == there
        for name in NEIGHBOURS:
            desk.works('rm -- "resources/EXACT/files/$1"', name)
            del there[name]
            assert rest.files(f"{HELD}/resources/EXACT") == there, name
    assert there == {}


def test_what_cannot_be_removed_exactly_is_refused(desk: Desk, server: DemoServer) -> None:
    """No request can tell a.nii from aXnii as long as a.nii.gz is there, too (R§5.2)."""
    rest = Rest(server)
    desk.expected.append("names are alike")
    with desk.mounted():
        desk.works("mkdir resources/ALIKE; cd resources/ALIKE/files; touch a.nii aXnii a.nii.gz")
    with desk.mounted():
        done = desk.shell("rm resources/ALIKE/files/a.nii")
        assert done.returncode == 1
        assert "Invalid argument" in done.stderr
        assert set(rest.files(f"{HELD}/resources/ALIKE")) == {"a.nii", "aXnii", "a.nii.gz"}
        desk.works("cd resources/ALIKE/files; rm a.nii.gz a.nii")
        assert set(rest.files(f"{HELD}/resources/ALIKE")) == {"aXnii"}
