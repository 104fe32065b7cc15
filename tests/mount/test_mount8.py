"""mount(8), /etc/fstab and systemd: others' ways to start a mount."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from tests.mount.desk import BIN, SESSION, XNATFS, Desk, process, within
from xnatfs.demo.server import DemoServer
from xnatfs.fuse import mounts

TOP = Path(__file__).resolve().parents[2]
UNIT = TOP / "docs" / "systemd" / "xnatfs@.service"

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="mount(8) asks for root")

# mount(8) looks for helpers in /sbin only, and mount.fuse for programs in its own list of folders:
# there they stand for the length of a test.
HELPER = (
    'mkdir -p "$HOME/sbin"; ln -sf "$BIN/mount.xnatfs" "$BIN/xnatfs" "$HOME/sbin/"\n'
    'mount -t overlay none -o "lowerdir=$HOME/sbin:/usr/sbin" /usr/sbin\n'
)


@pytest.fixture
def root(desk: Desk) -> Desk:
    """Root with a file that holds the login, and with nothing in the environment."""
    netrc = desk.folder / "login"
    netrc.write_text(f"machine {desk.url.partition('://')[2]} login admin password admin\n")
    netrc.chmod(0o600)
    del desk.variables["XNAT_USER"], desk.variables["XNAT_PASS"]
    desk.variables |= {
        "BIN": str(BIN), "URL": desk.url, "AT": str(desk.point), "NETRC_FILE": str(netrc),
        "SESSION": SESSION, "PATH": f"{BIN}:/usr/sbin:/usr/bin:/sbin:/bin",
    }  # fmt: skip
    return desk


def script(desk: Desk, text: str) -> subprocess.CompletedProcess[str]:
    """Run a script as root with mounts of its own, which nobody else sees."""
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", HELPER + text],
        env=desk.variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip


def works(desk: Desk, text: str) -> str:
    done = script(desk, text)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


@pytest.mark.parametrize("kind", ["xnatfs", "fuse.xnatfs"])
def test_mount_8(root: Desk, kind: str) -> None:
    said = works(
        root,
        f'mount -t {kind} "$URL" "$AT" -o ro,_netdev,noauto,nofail,user,x-systemd.automount,'
        "x-systemd.idle-timeout=600,x-gvfs-hide,netrc=$NETRC_FILE,scan_names=id-type\n"
        'findmnt -n -o FSTYPE,SOURCE "$AT"; ls "$AT/$SESSION/scans"\n'
        'cat "$AT/$SESSION/resources/NAMES/files/plain.txt"\n'
        'mkdir "$AT/$SESSION/resources/NEW" 2>&1 || true\n'
        'umount "$AT"; ls "$AT"',
    ).splitlines()
    assert said[0].split() == ["fuse.xnatfs", root.url]
    assert "4-Ax_3D_T1" in said
    assert "plain" in said
    assert "Read-only file system" in said[-1]


def test_fstab(root: Desk) -> None:
    here, there = root.folder / "here", root.folder / "there"
    for folder in (here, there):
        folder.mkdir()
    common = f"_netdev,nofail,x-systemd.automount,netrc={root.variables['NETRC_FILE']}"
    (root.folder / "fstab").write_text(
        f"{root.url} {here} xnatfs {common} 0 0\n"
        f"{root.url} {there} fuse.xnatfs noauto,user,{common},path=/projects/PVT000 0 0\n"
    )
    said = works(
        root,
        f"cd {root.folder}; mount -a -T fstab; ls here; mount -T fstab {there}; ls there\n"
        "findmnt -n -t fuse.xnatfs -o TARGET --list | grep ^$PWD; umount -a -t fuse.xnatfs\n"
        "ls here there",
    ).split()
    assert said[:2] == ["experiments", "projects"]
    assert said[2:5] == ["experiments", "resources", "subjects"]
    assert sorted(said[5:7]) == [str(here), str(there)]
    assert said[7:] == ["here:", "there:"]


def test_what_mount_8_is_told(root: Desk, server: DemoServer) -> None:
    def fails(words: str, code: int, *parts: str) -> None:
        done = script(root, f'mount -t xnatfs "$URL" "$AT" {words}')
        assert (done.returncode, done.stdout) == (code, "")
        assert done.stderr.startswith("xnatfs: ")
        assert done.stderr.count("\n") == 1
        assert all(part in done.stderr for part in parts)

    fails("-o alow_delete", 1, "did you mean allow_delete?")
    fails("-o ro,remount", 1, "unmount and mount")
    fails("-o netrc=/nowhere/login", 1, "/nowhere/login: there is no such file")
    loose = Path(root.variables["NETRC_FILE"])
    loose.chmod(0o644)
    fails("-o netrc=$NETRC_FILE", 1, "others may read it (mode 0644)", "chmod 600")
    loose.chmod(0o600)
    assert server.log == []
    loose.write_text(loose.read_text().replace("password admin", "password guessed"))
    fails("-o netrc=$NETRC_FILE", 32, "'admin'", str(loose), "refused")
    assert "guessed" not in script(root, 'mount -t xnatfs "$URL" "$AT" -o netrc=$NETRC_FILE').stderr
    # -f only pretends; -s does not mind what it does not know.
    assert works(root, 'mount -f -t xnatfs "$URL" "$AT"; findmnt "$AT" || echo none') == "none\n"
    loose.write_text(loose.read_text().replace("password guessed", "password admin"))
    words = 'mount -s -t xnatfs "$URL" "$AT" -o nosuchoption=7,netrc=$NETRC_FILE; ls "$AT"'
    assert works(root, f'{words}; umount "$AT"').split() == ["experiments", "projects"]


@pytest.mark.parametrize("abstract", [False, True])
def test_a_service_manager_is_told(desk: Desk, *, abstract: bool) -> None:
    """It is told that the mount is ready when it is, and that it ends before it has."""
    name = f"\0xnatfs-test-{os.getpid()}" if abstract else str(desk.folder / "notify")
    desk.variables["NOTIFY_SOCKET"] = name.replace("\0", "@")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(name)
        listening.settimeout(60)
        words = (XNATFS, "mount", "-f", desk.url, str(desk.point))
        with process(*words, env=desk.variables) as serving:
            assert listening.recv(4096).decode().split("\n") == [
                "READY=1", f"STATUS={desk.url} as admin",
            ]  # fmt: skip
            assert mounts.mounted_at(desk.point) is not None
            assert os.listdir(desk.point / "projects")
            serving.terminate()
            assert listening.recv(4096).decode().startswith("STOPPING=1\n")
            assert serving.wait(60) == 0
    assert within(5, lambda: mounts.mounted_at(desk.point) is None)


def test_a_service_manager_that_is_gone_does_not_matter(desk: Desk) -> None:
    desk.variables["NOTIFY_SOCKET"] = str(desk.folder / "nobody-listens")
    with desk.mounted():
        assert desk.works("ls scans")


def test_the_unit_is_one(desk: Desk) -> None:
    program = shutil.which("systemd-analyze")
    if program is None:
        pytest.skip("no systemd here")
    home = desk.folder / "home"
    installed = home / ".venvs" / "xnatfs" / "bin"
    installed.mkdir(parents=True)
    (installed / "xnatfs").symlink_to(XNATFS)
    shutil.copy(UNIT, home / "xnatfs@lab.service")
    done = subprocess.run(
        [program, "--user", "verify", "--man=no", home / "xnatfs@lab.service"],
        env=desk.variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    # Its commands are ours.
    for line in UNIT.read_text().splitlines():
        if line.startswith(("ExecStart=", "ExecStop=")):
            words = line.partition("/xnatfs ")[2].replace("%i", "lab").replace("%h", str(home))
            verb = words.split()[0]
            assert desk.xnatfs(verb, "--help").returncode == 0
            done = desk.xnatfs(*words.split())
            assert "unrecognized" not in done.stderr


def test_doctor_warns_of_updatedb(root: Desk) -> None:
    etc = root.folder / "etc"
    etc.mkdir()
    overlay = f"mount -t overlay none -o lowerdir={etc}:/etc /etc; xnatfs doctor; true"
    for line, warned in (
        ('PRUNEFS="NFS nfs4 fuse.sshfs fuse.xnatfs"', False),
        ('PRUNEFS = "NFS nfs4 fuse.sshfs"', True),
        ('PRUNEPATHS="/tmp"', True),
    ):
        (etc / "updatedb.conf").write_text(f'PRUNE_BIND_MOUNTS="yes"\n{line}\n')
        said = works(root, overlay)
        assert ("warning indexers        updatedb walks mounts" in said) == warned
        assert ("add fuse.xnatfs to PRUNEFS in /etc/updatedb.conf" in said) == warned
