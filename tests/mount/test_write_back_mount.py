"""Write-back over the real kernel: programs, umount, signals, kill -9 and the next mount."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import HELD, Desk, asked, gone, within
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer

pytestmark = pytest.mark.usefixtures("fuse")


@pytest.fixture
def rest(server: DemoServer) -> Rest:
    return Rest(server)


@pytest.fixture(params=["admin", "member"])
def anybody(request: pytest.FixtureRequest, open_a_desk, server: DemoServer) -> Desk:
    """An owner, and a member, who may not delete."""
    return open_a_desk(server.url, request.param)


@pytest.fixture
def member(open_a_desk, server: DemoServer) -> Desk:
    return open_a_desk(server.url, "member")


def uploads(desk: Desk, *words: str) -> list[dict[str, str]]:
    done = desk.xnatfs("uploads", "list", "--format", "json", *words)
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, str]] = json.loads(done.stdout)
    return rows


def plant(folder: Path, count: int) -> dict[str, bytes]:
    files = {f"sub{number % 3}/f{number}": os.urandom(2000 + number) for number in range(count)}
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return files


def test_a_tree_is_copied_in_and_arrives(
    anybody: Desk, server: DemoServer, rest: Rest, tmp_path: Path
) -> None:
    files = plant(tmp_path / "tree", 60)
    anybody.mount("--write-back")
    anybody.works("mkdir resources/TREE && cp -r $1/. resources/TREE/files/", tmp_path / "tree")
    anybody.works("diff -r $1 resources/TREE/files", tmp_path / "tree")
    done = anybody.umount()
    assert (done.returncode, done.stderr) == (0, "")
    assert "60 files arrived" in done.stdout
    assert rest.files(f"{HELD}/resources/TREE") == files
    # Not one request for each file.
    sent = [*asked(server, "PUT", "TREE/files"), *asked(server, "POST", "/files")]
    assert len(sent) < 30
    assert uploads(anybody) == []


PROGRAMS = """
import os, tempfile
for number in range(5):
    handle, name = tempfile.mkstemp(dir=".")
    os.write(handle, b"by mkstemp")
    os.close(handle)
    os.replace(name, f"mkstemp{number}")
    with open(f"x{number}.part", "wb") as out:
        out.write(b"by part")
    os.rename(f"x{number}.part", f"x{number}")
"""


def test_programs_leave_no_litter(anybody: Desk, rest: Rest, tmp_path: Path) -> None:
    (tmp_path / "programs.py").write_text(PROGRAMS)
    plant(tmp_path / "tree", 6)
    anybody.mount("--write-back")
    anybody.works(
        """
        mkdir resources/W && cd resources/W/files
        python3 $2/programs.py
        rsync -a $1/ .
        echo one > edited && sed -i s/one/two/ edited
        tar -C $1 -cf - sub1 | tar xf - --one-top-level=tarred
        echo gone > gone && rm gone
        { echo a; echo b; } > both
        """,
        tmp_path / "tree",
        tmp_path,
    )
    done = anybody.umount()
    assert (done.returncode, done.stderr) == (0, "")
    there = rest.files(f"{HELD}/resources/W")
    tree = {
        str(path.relative_to(tmp_path / "tree")): path.read_bytes()
        for path in (tmp_path / "tree").rglob("*")
        if path.is_file()
    }
    wanted = tree | {f"tarred/{name}": data for name, data in tree.items() if "sub1/" in name}
    wanted |= {f"mkstemp{number}": b"by mkstemp" for number in range(5)}
    wanted |= {f"x{number}": b"by part" for number in range(5)}
    wanted |= {"edited": b"two\n", "both": b"a\nb\n"}
    assert there == wanted


@pytest.mark.parametrize("how", ["umount", "SIGTERM"])
def test_the_end_of_a_mount_drains_it(member: Desk, rest: Rest, how: str) -> None:
    member.mount("--write-back")
    member.works("mkdir resources/E && echo data > resources/E/files/a")
    assert rest.files(f"{HELD}/resources/E") == {}
    pid = member.pid()
    if how == "umount":
        subprocess.run(["umount", member.point], check=True)
    else:
        os.kill(pid, signal.SIGTERM)
    assert gone(pid, 15)
    assert rest.files(f"{HELD}/resources/E") == {"a": b"data\n"}


def test_umount_says_what_did_not_arrive(member: Desk, server: DemoServer, rest: Rest) -> None:
    member.expected.append("not everything was sent")
    member.expected.append("not on the server")
    server.faults.add(Fault(kind="status", code=503, path="/files/a", verb="PUT"))
    member.mount("--write-back")
    member.works("mkdir resources/E && echo data > resources/E/files/a")
    done = member.umount("--wait", "1")
    assert done.returncode == 75
    assert "1 file did not arrive" in done.stderr
    assert "503" in done.stderr
    (row,) = uploads(member)
    assert (row["state"], row["held by"]) == ("sealed", "")
    server.faults.clear()
    done = member.xnatfs("uploads", "send")
    assert (done.returncode, done.stderr) == (0, "")
    assert rest.files(f"{HELD}/resources/E") == {"a": b"data\n"}
    assert uploads(member) == []


def test_after_kill_9_the_next_mount_sends_what_was_closed(
    member: Desk, server: DemoServer, rest: Rest, tmp_path: Path
) -> None:
    files = plant(tmp_path / "tree", 20)
    member.mount("--write-back")
    member.works("mkdir resources/K && cp -r $1/. resources/K/files/", tmp_path / "tree")
    pid = member.pid()
    with open(member.session / "resources/K/files/open", "wb") as writer:
        writer.write(b"synced, not closed")
        writer.flush()
        os.fsync(writer.fileno())
        os.kill(pid, signal.SIGKILL)
        assert gone(pid, 10)
        with pytest.raises(OSError, match=r"not connected|connection abort"):
            os.fsync(writer.fileno())
        member.xnatfs("umount", member.point)
        with contextlib.suppress(OSError):
            writer.close()
    assert rest.files(f"{HELD}/resources/K") == {}
    assert {row["state"] for row in uploads(member)} == {"sealed", "open"}
    member.mount()
    # There at once, and soon at the server.
    member.works("diff -r $1 resources/K/files", tmp_path / "tree")
    assert within(20, lambda: rest.files(f"{HELD}/resources/K") == files)
    done = member.umount()
    assert (done.returncode, done.stderr) == (0, "")
    (row,) = uploads(member)
    assert (row["state"], row["size"]) == ("open", "18")
    assert member.xnatfs("uploads", "send").returncode == 75
    done = member.xnatfs("uploads", "export", tmp_path / "saved")
    assert done.returncode == 0
    (saved,) = [path for path in (tmp_path / "saved").rglob("*") if path.is_file()]
    assert saved.read_bytes() == b"synced, not closed"


def test_a_close_costs_no_round_trip(member: Desk, server: DemoServer) -> None:
    member.mount("--write-back")
    member.works("mkdir resources/R && echo > resources/R/files/first")
    server.faults.add(Fault(kind="delay", seconds=1.0, path="/resources/"))
    began = time.monotonic()
    member.works("for i in 1 2 3 4 5; do echo $i > resources/R/files/f$i; done")
    server.faults.clear()
    # Five requests would take five seconds; a listing may have been due.
    assert time.monotonic() - began < 4.0
    assert member.umount().returncode == 0


def test_uploads_wait_sends_without_an_end(member: Desk, server: DemoServer, rest: Rest) -> None:
    member.mount("--write-back")
    member.works("mkdir resources/E && for i in 1 2 3 4; do echo $i > resources/E/files/$i; done")
    assert rest.files(f"{HELD}/resources/E") == {}
    done = member.xnatfs("uploads", "send", "--dry-run")
    assert (done.returncode, done.stdout) == (0, "")  # they are a living mount's
    with open(member.session / "resources/E/files/open", "w") as writer:
        writer.write("not complete")
        writer.flush()
        done = member.xnatfs("uploads", "wait")
        assert (done.returncode, done.stdout, done.stderr) == (0, "everything has arrived\n", "")
        assert sorted(rest.files(f"{HELD}/resources/E")) == ["1", "2", "3", "4"]
    server.faults.add(Fault(kind="status", code=503, path="/files/open", verb="PUT"))
    while "503" not in (done := member.xnatfs("uploads", "wait", "--wait", "1")).stderr:
        assert (done.returncode, done.stdout) == (75, "")  # not tried yet
    assert done.returncode == 75
    member.expected.append("not everything was sent")
    assert json.loads(member.xnatfs("uploads", "--json").stdout)[0]["state"] == "sealed"
    server.faults.clear()
    assert member.umount().returncode == 0
    assert rest.files(f"{HELD}/resources/E")["open"] == b"not complete"


def test_two_spools_of_different_machines(member: Desk, rest: Rest) -> None:
    """A record of another machine is left alone, unless somebody who knows says otherwise."""
    member.mount("--write-back")
    member.works("mkdir resources/E && echo x > resources/E/files/x")
    os.kill(member.pid(), signal.SIGKILL)
    assert gone(member.pid(), 10)
    member.xnatfs("umount", member.point)
    (owner,) = (member.state / "spool").glob("*/owner")
    cells = json.loads(owner.read_text())
    owner.write_text(json.dumps(cells | {"host": "elsewhere", "machine": "m", "boot": "b"}))
    member.mount()
    assert member.umount().returncode == 0
    assert rest.files(f"{HELD}/resources/E") == {}
    (row,) = uploads(member)
    assert row["held by"].startswith("elsewhere")
    assert member.xnatfs("uploads", "send").returncode == 75
    done = member.xnatfs("uploads", "send", "--take", row["id"])
    assert (done.returncode, done.stderr) == (0, "")
    assert rest.files(f"{HELD}/resources/E") == {"x": b"x\n"}
