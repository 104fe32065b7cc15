"""The disk of the spool fills up, is cleaned away, and belongs to several machines."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import HELD, XNATFS, Desk, gone
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer

pytestmark = pytest.mark.usefixtures("fuse")

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may do this here")


@pytest.fixture
def tiny(tmp_path: Path) -> Iterator[Path]:
    """A spool on a disk of 4 MB."""
    place = tmp_path / "tiny"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], capture_output=True
    )
    if made.returncode:
        pytest.skip("may not mount a tmpfs here")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def uploads(desk: Desk, *words: str | Path) -> dict[str, str]:
    """State by name."""
    done = desk.xnatfs("uploads", "--json", *words)
    rows = json.loads(done.stdout)
    return {row["path"].rpartition("/")[2]: row["state"] for row in rows}


def fill(place: Path) -> None:
    """Use up what is left of the disk, to the last byte."""
    with suppress(OSError), place.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))


@pytest.mark.parametrize("options", [(), ("--write-back",)], ids=["through", "write-back"])
def test_a_small_disk_carries_more_than_it_holds(
    desk: Desk, server: DemoServer, tiny: Path, options: tuple[str, ...]
) -> None:
    """What has arrived makes room; what does not fit is ENOSPC, kept, and never there half."""
    desk.expected += ["big", "late"]
    held = f"{HELD}/resources/TINY"
    desk.mount("--spool-dir", str(tiny), *options)
    desk.works("mkdir resources/TINY")
    folder = desk.session / "resources/TINY/files"
    wanted = {f"f{number}": os.urandom(1_500_000) for number in range(6)}
    for name, content in wanted.items():
        (folder / name).write_bytes(content)
    # The disk is full to the last byte when a file is closed: it is sent all the same.
    with (folder / "late").open("wb") as out:
        out.write(b"whole")
        out.flush()
        fill(tiny / "filler")
    (tiny / "filler").unlink()
    (folder / "after").write_bytes(b"after")
    with pytest.raises(OSError, match="No space left") as caught:
        (folder / "big").write_bytes(bytes(6_000_000))
    assert caught.value.errno == errno.ENOSPC
    assert uploads(desk, "--spool-dir", tiny)["big"] in ("failed", "open")
    done = desk.umount()
    assert done.returncode == 75
    assert "1 file did not arrive" in done.stderr
    assert Rest(server).files(held) == wanted | {"late": b"whole", "after": b"after"}
    assert list(uploads(desk, "--spool-dir", tiny)) == ["big"]


def test_a_spool_that_somebody_cleans_away(desk: Desk, server: DemoServer) -> None:
    """What is open goes on; what waited there is lost, and named by umount."""
    desk.expected.append("")
    held = f"{HELD}/resources/GONE"
    desk.mount("--write-back")
    desk.works("mkdir resources/GONE")
    folder = desk.session / "resources/GONE/files"
    server.faults.add(Fault(kind="status", code=503, path="waits", verb="PUT"))
    (folder / "waits").write_bytes(b"waits")
    with (folder / "open").open("wb") as out:
        out.write(b"first ")
        out.flush()
        shutil.rmtree(desk.state / "spool")
        out.write(b"second")
        server.faults.clear()
    (folder / "new").write_bytes(b"new")
    done = desk.umount()
    assert done.returncode == 75
    assert "waits" in done.stderr
    assert Rest(server).files(held) == {"open": b"first second", "new": b"new"}
    assert uploads(desk) == {}


# In a mount namespace with another host name and another boot id, where no lock is to be had.
NODE = """
hostname $1 && mount --bind $2/boot_id /proc/sys/kernel/random/boot_id || exit 98
shift 2
exec "$@"
"""
NO_LOCKS = """
import errno, fcntl, os
def refused(*_):
    raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
fcntl.flock = fcntl.lockf = refused
"""


def on_node(desk: Desk, name: str, *words: str) -> subprocess.Popen[str]:
    """``xnatfs run`` on another machine that shares the home folder with ours."""
    place = desk.folder / name
    place.mkdir(exist_ok=True)
    (place / "boot_id").write_text(f"{name}-boot\n")
    (place / "sitecustomize.py").write_text(NO_LOCKS)
    run = [XNATFS, "run", "-s", desk.url, "--cd", "/" + str(desk.session.relative_to(desk.point))]
    return subprocess.Popen(
        ["unshare", "--mount", "--uts", "sh", "-c", NODE, "sh", name, place, *run, "--", *words],
        env=desk.variables | {"PYTHONPATH": str(place)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def power_off(desk: Desk, name: str) -> None:
    """Kill all processes of a machine at once."""
    mark = f"PYTHONPATH={desk.folder / name}".encode()
    pids = []
    for place in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if mark in place.read_bytes():
                pids.append(int(place.parent.name))
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            os.kill(pid, number)
    assert all(gone(pid, 10) for pid in pids)


@only_root
def test_two_machines_share_a_spool_folder_without_locks(
    open_a_desk: OpenDesk, server: DemoServer
) -> None:
    desk = open_a_desk(server.url, "member")
    desk.expected.append("")
    held = f"{HELD}/resources/NODES"
    with desk.mounted():
        desk.works("mkdir resources/NODES")
    script = 'for i in $(seq 20); do echo "$0 $i" > resources/NODES/files/$0-$i; done'
    # One is killed when it has written everything and sent nothing: it may not delete.
    first = on_node(desk, "node1", "sh", "-c", f"{script}; echo written; sleep 60", "node1")
    assert first.stdout is not None
    assert first.stdout.readline() == "written\n"
    second = on_node(desk, "node2", "sh", "-c", script, "node2")
    _, err = second.communicate(timeout=60)
    assert (second.returncode, err) == (0, "")
    names = [f"node2-{number}" for number in range(1, 21)]
    assert sorted(Rest(server).files(held)) == sorted(names)
    power_off(desk, "node1")
    first.communicate(timeout=20)
    # Nobody here knows whether that machine is at work on them.
    rows = json.loads(desk.xnatfs("uploads", "--json").stdout)
    assert len(rows) == 20
    assert all(row["held by"].startswith("node1") for row in rows)
    assert desk.xnatfs("uploads", "send").returncode == 75
    assert sorted(Rest(server).files(held)) == sorted(names)
    taken = [word for row in rows for word in ("--take", row["id"])]
    done = desk.xnatfs("uploads", "send", *taken)
    assert (done.returncode, done.stderr) == (0, "")
    wanted = {
        f"{node}-{number}": f"{node} {number}\n".encode()
        for node in ("node1", "node2")
        for number in range(1, 21)
    }
    assert Rest(server).files(held) == wanted
    assert desk.xnatfs("uploads").stdout == "nothing waits: everything has arrived\n"
