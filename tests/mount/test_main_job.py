"""The main job over a real mount: what programs do, and what the server holds afterwards.

Results are looked at by REST, not through the mount that is under test.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import BIN, DCM2NIIX, HELD, Desk, asked, md5, within
from xnatfs.demo.server import DemoServer, ServerOptions

AWKWARD = {
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
    "empty.txt": b"",
    "equals=at@comma,colon:tilde.txt": b"sub-delims\n",
    "brackets(1)[2]{3}.txt": b"brackets\n",
    "-dash": b"like an option\n",
    "random.bin": bytes(range(256)) * 5000,
}


@pytest.fixture(scope="module")
def busy_server(small_archive: Path, tmp_path_factory: pytest.TempPathFactory):
    """One server for this module; every test works in a resource of its own."""
    root = tmp_path_factory.mktemp("main-job") / "server"
    shutil.copytree(small_archive, root)
    running = DemoServer(ServerOptions(root=root, sample="small"))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def member(
    fuse: None, busy_server: DemoServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Desk]:
    """The desk of a member of the project: creates and edits, may not delete."""
    desk = Desk(tmp_path_factory.mktemp("member"), busy_server.url, "member")
    try:
        desk.mount()
        yield desk
        done = desk.umount()
        assert (done.returncode, done.stderr) == (0, "")
        assert desk.unexpected() == []
    finally:
        desk.close()


@pytest.fixture
def rest(busy_server: DemoServer) -> Rest:
    busy_server.clear_log()
    return Rest(busy_server)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def holds(rest: Rest, label: str, wanted: dict[str, bytes]) -> None:
    """The resource holds exactly that; an empty file arrives with its release, a moment later."""
    within(10, lambda: rest.files(f"{HELD}/{label}") == wanted)
    assert rest.files(f"{HELD}/{label}") == wanted


def plant(folder: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def test_every_sample_file_is_copied_out_byte_for_byte(
    member: Desk, rest: Rest, tmp_path: Path
) -> None:
    there = rest.files(f"{HELD}/resources/NAMES")
    assert len(there) > 18
    for name, content in there.items():
        # A file beside a folder of its name cannot keep it.
        shown = "x~file" if name == "x" else name
        assert member.works('cp -- "resources/NAMES/files/$1" "$2"', shown, tmp_path / "copy") == ""
        assert (tmp_path / "copy").read_bytes() == content, name


def test_cp_r_out_of_every_level(member: Desk, rest: Rest, tmp_path: Path) -> None:
    member.works('cp -r scans assessors reconstructions "$1"', tmp_path)
    member.works('cp -r ../../resources "$1/subject"; cp -r ../../../../resources "$1"', tmp_path)
    assert tree(tmp_path / "scans/4/resources/DICOM/files") == rest.files(
        f"{HELD}/scans/4/resources/DICOM"
    )
    assert len(tree(tmp_path / "scans/4/resources/DICOM/files")) == 8
    assert set(tree(tmp_path)) >= {
        "assessors/Haofei01_QC1/resources/RESULT/files/result.txt",
        "assessors/Haofei01_QC1/resources/PLAIN/files/plain.txt",
        "reconstructions/R1/resources/MPR/files/mpr.txt",
        "subject/CONSENT/files/consent.pdf",
        "resources/PROTOCOL/files/protocol.txt",
    }


def test_cp_r_in(member: Desk, rest: Rest, tmp_path: Path) -> None:
    source = plant(tmp_path / "in", AWKWARD)
    member.works('mkdir resources/CP && cp -r "$1/." resources/CP/files', source)
    holds(rest, "resources/CP", AWKWARD)
    member.works('cp -r resources/CP/files "$1"', tmp_path / "back")
    assert tree(tmp_path / "back") == AWKWARD


def test_cp_p_keeps_the_times(member: Desk, rest: Rest, tmp_path: Path) -> None:
    source = plant(tmp_path / "in", {"old.txt": b"old\n", "sub/older.txt": b"older\n"})
    os.utime(source / "old.txt", (1e9, 1e9))
    os.utime(source / "sub", (9e8, 9e8))
    member.works('mkdir resources/CP_P && cp -a "$1/." resources/CP_P/files', source)
    assert (member.session / "resources/CP_P/files/old.txt").stat().st_mtime == 1e9
    holds(rest, "resources/CP_P", {"old.txt": b"old\n", "sub/older.txt": b"older\n"})


def test_tar_x(member: Desk, rest: Rest, tmp_path: Path) -> None:
    source = plant(tmp_path / "in", AWKWARD)
    subprocess.run(["tar", "-C", source, "-cf", tmp_path / "in.tar", "."], check=True)
    member.works('mkdir resources/TAR && tar -C resources/TAR/files -xf "$1"', tmp_path / "in.tar")
    holds(rest, "resources/TAR", AWKWARD)
    out = member.works("tar -C resources/TAR/files -cf - . | tar -tf - | wc -l")
    assert int(out) == len(AWKWARD) + 3  # and the folders ./ ./a/ ./a/b/


def test_shell_redirections_are_one_upload_each(
    member: Desk, busy_server: DemoServer, rest: Rest
) -> None:
    member.works("mkdir resources/SHELL")
    busy_server.clear_log()
    member.works("seq 1 1000 > resources/SHELL/files/one")
    member.works("{ echo a; /bin/echo b; cat /etc/hostname; echo c; } > resources/SHELL/files/two")
    member.works("(sleep 0.2; /bin/echo a; sleep 0.2; /bin/echo b) > resources/SHELL/files/three")
    member.works(": > resources/SHELL/files/empty")
    host = Path("/etc/hostname").read_bytes()
    wanted = {
        "one": "".join(f"{number}\n" for number in range(1, 1001)).encode(),
        "two": b"a\nb\n" + host + b"c\n",
        "three": b"a\nb\n",
        "empty": b"",
    }
    holds(rest, "resources/SHELL", wanted)
    for name in wanted:
        assert len(asked(busy_server, "PUT", f"/files/{name}")) == 1, name


def test_own_files_are_appended_to_changed_and_truncated(member: Desk, rest: Rest) -> None:
    member.works(
        "mkdir resources/OWN && cd resources/OWN/files\n"
        "echo one > f && echo two >> f && echo three >> f\n"
        "echo 0123456789 > g && printf XY | dd of=g bs=1 seek=4 conv=notrunc status=none\n"
        "echo long text > h && echo short > h\n"
        "echo 0123456789 > t && truncate -s 4 t"
    )
    holds(
        rest,
        "resources/OWN",
        {
            "f": b"one\ntwo\nthree\n",
            "g": b"0123XY6789\n",
            "h": b"short\n",
            "t": b"0123",
        },
    )


def test_rsync_in(member: Desk, busy_server: DemoServer, rest: Rest, tmp_path: Path) -> None:
    source = plant(tmp_path / "in", AWKWARD)
    member.works('mkdir resources/RSYNC && rsync -a --inplace "$1/" resources/RSYNC/files', source)
    holds(rest, "resources/RSYNC", AWKWARD)
    busy_server.clear_log()
    member.works('rsync -a --inplace "$1/" resources/RSYNC/files', source)
    assert asked(busy_server, "PUT", "/files") == []


def test_rsync_by_temporary_names(
    member: Desk, busy_server: DemoServer, rest: Rest, tmp_path: Path
) -> None:
    source = plant(tmp_path / "in", AWKWARD)
    member.works('mkdir resources/RSYNC2 && rsync -a "$1/" resources/RSYNC2/files', source)
    holds(rest, "resources/RSYNC2", AWKWARD)
    # Those that no address can carry go to the folder itself, as an archive.
    changes = asked(busy_server, "PUT", "/files") + asked(busy_server, "POST", "/files")
    assert len(changes) == len(AWKWARD)


def test_mkdir(member: Desk, busy_server: DemoServer, rest: Rest) -> None:
    member.works("mkdir resources/MADE scans/4/resources/MADE ../../resources/MADE")
    labels = {row["label"] for row in rest.rows(f"/data{HELD}/resources?format=json")}
    assert "MADE" in labels
    labels = {row["label"] for row in rest.rows(f"/data{HELD}/scans/4/resources?format=json")}
    assert "MADE" in labels
    for words, complaint in (
        ("resources/MADE", "File exists"),
        ("resources/MADE/beside", "Operation not permitted"),
        ("scans/99", "Operation not permitted"),
        ("'resources/a b'", "Invalid argument"),
    ):
        done = member.shell(f"mkdir {words}")
        assert done.returncode == 1
        assert complaint in done.stderr
    member.expected.append("cannot address a resource with")
    member.works("mkdir -p resources/MADE/files/deep/er && echo x > resources/MADE/files/deep/er/f")
    holds(rest, "resources/MADE", {"deep/er/f": b"x\n"})


def test_dcm2niix_reads_the_mount_as_it_reads_a_local_copy(
    member: Desk, rest: Rest, tmp_path: Path
) -> None:
    local = plant(tmp_path / "dicom", rest.files(f"{HELD}/scans/4/resources/DICOM"))
    results = []
    for name, source in (("mounted", "scans/4/resources/DICOM/files"), ("local", str(local))):
        (tmp_path / name).mkdir()
        member.works('"$1" -b y -z n -f %s_%p -o "$2" "$3"', DCM2NIIX, tmp_path / name, source)
        results.append(tree(tmp_path / name))
    assert results[0] == results[1]
    assert {name.rpartition(".")[2] for name in results[0]} == {"nii", "json"}


def test_results_go_back_by_cp(member: Desk, rest: Rest, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    member.works(
        'cd scans/4/resources && mkdir NIFTI && "$1" -f %s_%p -o "$2" DICOM/files '
        '&& cp "$2"/* NIFTI/files/',
        DCM2NIIX, tmp_path / "out",
    )  # fmt: skip
    there = rest.rows(f"/data{HELD}/scans/4/resources/NIFTI/files?format=json")
    assert {row["Name"]: row["digest"] for row in there} == {
        path.name: md5(path) for path in (tmp_path / "out").iterdir()
    }
    assert rest.files(f"{HELD}/scans/4/resources/NIFTI") == tree(tmp_path / "out")


@pytest.mark.parametrize("packed", ["n", "y"])
def test_dcm2niix_writes_straight_into_the_mount(
    member: Desk, rest: Rest, tmp_path: Path, packed: str
) -> None:
    (tmp_path / "out").mkdir()
    member.works(
        'cd scans/4/resources && mkdir "$3" && for there in "$2" "$3/files"; do\n'
        '"$1" -z "$4" -f %s_%p -o "$there" DICOM/files || exit; done',
        DCM2NIIX, tmp_path / "out", f"DIRECT_{packed}", packed,
    )  # fmt: skip
    held = rest.files(f"{HELD}/scans/4/resources/DIRECT_{packed}")
    wanted = tree(tmp_path / "out")
    assert set(held) == set(wanted)
    assert held == wanted


def test_python_writes_and_reads(member: Desk, rest: Rest, tmp_path: Path) -> None:
    """Seeks back to fill in a header, as writers of images do; reads what it wrote meanwhile."""
    member.works("mkdir resources/PY")
    path = member.session / "resources/PY/files/image.bin"
    body = os.urandom(3 << 20)
    done = subprocess.run(
        [
            BIN / "python", "-c",
            "import sys, hashlib\n"
            "body = sys.stdin.buffer.read()\n"
            "with open(sys.argv[1], 'w+b') as out:\n"
            "    out.write(bytes(352)); out.write(body); out.flush()\n"
            "    out.seek(0); out.write(b'HEADER')\n"
            "    out.seek(352); assert out.read() == body\n",
            path,
        ],
        input=body, check=True, timeout=60, capture_output=True,
    )  # fmt: skip
    assert done.stderr == b""
    held = rest.files(f"{HELD}/resources/PY")["image.bin"]
    assert hashlib.md5(held).digest() == hashlib.md5(b"HEADER" + bytes(346) + body).digest()


def test_a_member_may_not_delete_and_files_of_others_are_protected(member: Desk) -> None:
    done = member.shell("rm resources/QC/files/qc.csv")
    assert (done.returncode, "Permission denied" in done.stderr) == (1, True)
    done = member.shell("echo x >> resources/QC/files/qc.csv")
    assert (done.returncode, "Operation not permitted" in done.stderr) == (1, True)
    for verb in ("ln resources/QC/files/qc.csv resources/QC/files/hard",
                 "ln -s qc.csv resources/QC/files/soft"):  # fmt: skip
        done = member.shell(verb)
        assert done.returncode == 1
        assert "not supported" in done.stderr or "not permitted" in done.stderr
