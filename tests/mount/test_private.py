"""What others may see: no secret anywhere, nothing below our folders, and no way into a mount."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

import dcm2niix
import pytest

from tests.core.driver import Rest
from tests.mount.desk import HELD, Desk
from tests.mount.nobody import as_nobody
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer

PASSWORD = "Tr0ub4dor-and-3"


def _command_lines() -> str:
    """What ``ps`` shows of all processes."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it has ended
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return "\n".join(lines)


def test_no_secret_is_left_anywhere(desk: Desk, server: DemoServer) -> None:
    desk.expected.append("")
    server.site.accounts.add("ada", PASSWORD, admin=True)
    desk.variables |= {"XNAT_USER": "ada", "XNAT_PASS": PASSWORD}
    seen = []
    desk.mount("--log-level", "debug", "--io-timeout", "2")
    seen.append(_command_lines())
    assert str(desk.point) in seen[0]
    desk.works("mkdir resources/SECRET; echo x > resources/SECRET/files/x; ls -R . > /dev/null")
    server.expire_sessions()
    server.faults.add(Fault(kind="reset", path="/files/y", verb="PUT"))
    assert desk.shell("cp resources/SECRET/files/x resources/SECRET/files/y").returncode == 1
    for words in (("status", "--json"), ("uploads",), ("doctor", server.url),
                  ("umount", desk.point), ("ls", "-v", "-v", "-s", server.url)):  # fmt: skip
        done = desk.xnatfs(*words)
        seen += [done.stdout, done.stderr]
    # The shared session is the one secret that is kept: in a 0600 file, for our own processes.
    sessions = {session.id for session in server.site.sessions._live.values()}
    assert sessions
    for path in desk.folder.rglob("*"):
        if not path.is_file():
            continue
        content = path.read_bytes().decode(errors="replace")
        assert PASSWORD not in content, path
        if "sessions" not in path.parts:
            seen.append(content)
    everything = "\n".join(seen)
    assert len(desk.log()) > 1000
    for secret in (PASSWORD, "YWRhOlRyMHViNGRvci1hbmQtMw", *sessions):
        assert secret not in everything


def test_nobody_else_may_read_what_we_keep(desk: Desk) -> None:
    old = os.umask(0)
    try:
        desk.mount()
    finally:
        os.umask(old)
    desk.works("cat resources/NAMES/files/plain.txt; mkdir resources/M; echo > resources/M/files/x")
    # Open, so that something is in the spool.
    descriptor = os.open(desk.session / "resources/M/files/y", os.O_WRONLY | os.O_CREAT, 0o666)
    os.write(descriptor, b"y")
    tops = [desk.folder / "state/xnatfs", desk.folder / "cache/xnatfs", desk.folder / "run/xnatfs"]
    loose = [
        (path, oct(path.lstat().st_mode & 0o777))
        for top in tops
        for path in (top, *top.rglob("*"))
        if path.lstat().st_mode & 0o077
    ]
    assert all(top.is_dir() for top in tops)
    assert not loose, loose
    assert any(path.is_file() for path in (desk.state / "spool").rglob("*"))
    os.close(descriptor)
    assert desk.umount().returncode == 0


_MAIN_JOB = r"""
mkdir xnat run out
xnatfs mount xnat
grep -q "^$XNAT_HOST /mnt/home/xnat fuse.xnatfs .*user_id=65534" /proc/mounts
cd "xnat/$SESSION/scans/4/resources"
mkdir NIFTI
"$CONVERTER" -f %s_%p -o /mnt/home/out DICOM/files > /dev/null
cp /mnt/home/out/* NIFTI/files/
cd /mnt/home
md5sum out/*
touch ready; while [ ! -e go ]; do sleep 0.1; done
xnatfs umount xnat
ls -A xnat
"""

_MEANWHILE = r"""
eval "$AS_NOBODY" &
job=$!
while [ ! -e /mnt/home/ready ] && kill -0 $job 2> /dev/null; do sleep 0.1; done
[ -e /mnt/home/ready ] || exit 1
# The folder above is opened for this: what refuses is the mount itself.
chmod 755 /mnt/home
if setpriv --reuid 65533 --regid 65533 --clear-groups ls /mnt/home/xnat; then
    echo "others get in"
fi
touch /mnt/home/go
wait $job
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_the_main_job_of_an_ordinary_user(desk: Desk, server: DemoServer) -> None:
    # Root may look anywhere: what nobody converts with lies where nobody may look.
    converter = f"cp {dcm2niix.bin} /mnt/converter; chmod 755 /mnt/converter\n"
    done = as_nobody(desk, _MAIN_JOB, root=converter + _MEANWHILE, CONVERTER="/mnt/converter")
    assert done.returncode == 0, done.stderr
    assert "others get in" not in done.stdout
    assert "Permission denied" in done.stderr
    *sums, arrived = done.stdout.strip().splitlines()
    assert "2 files arrived" in arrived
    there = Rest(server).rows(f"/data{HELD}/scans/4/resources/NIFTI/files?format=json")
    assert {row["Name"]: row["digest"] for row in there} == {
        line.split("  ")[1].removeprefix("out/"): line.split()[0] for line in sums
    }
    assert len(there) == 2
