"""The command as people call it: what it prints, what bad input gets, its exit codes."""

from __future__ import annotations

import http.server
import json
import os
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.mount.desk import SESSION, XNATFS, Desk, asked, process
from xnatfs.demo.server import DemoServer
from xnatfs.fuse import mounts


def one_line(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    """The command failed with this code, and one line that has these parts."""
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert done.stderr.startswith("xnatfs: ")
    for part in parts:
        assert part in done.stderr


def refused(server: DemoServer) -> int:
    return sum(entry.status == 401 for entry in server.log)


@pytest.fixture
def closed_port() -> Iterator[int]:
    with socket.socket() as holder:
        # Bound and not listening: nobody else gets it, and nobody answers.
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[str]:
    """A web server that is no XNAT."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_words: object) -> None:
            pass

        def __init__(self, *words: object) -> None:
            super().__init__(*words, directory=str(tmp_path))  # type: ignore[arg-type]

    (tmp_path / "index.html").write_text("<html><title>Some shop</title></html>")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Quiet) as serving:
        threading.Thread(target=serving.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{serving.server_port}"
        serving.shutdown()


def test_a_wrong_password_is_one_line_and_one_attempt(desk: Desk, server: DemoServer) -> None:
    done = desk.xnatfs("mount", server.url, desk.point, XNAT_PASS="guessed-wrong")
    one_line(done, 4, "127.0.0.1", "admin")
    assert "guessed-wrong" not in done.stderr
    assert refused(server) == 1
    assert mounts.mounted_at(desk.point) is None
    # And it is remembered: nobody asks again with the same password.
    again = desk.xnatfs("ls", "/projects", "-s", server.url, XNAT_PASS="guessed-wrong")
    one_line(again, 4)
    assert refused(server) == 1
    # The right one is not held back by it.
    assert desk.xnatfs("ls", "/projects", "-s", server.url).returncode == 0


def test_fifty_processes_with_a_wrong_password(desk: Desk, server: DemoServer) -> None:
    def one(number: int) -> subprocess.CompletedProcess[str]:
        point = desk.folder / f"point{number}"
        point.mkdir()
        return desk.xnatfs("mount", server.url, point, XNAT_PASS="wrong")

    with ThreadPoolExecutor(50) as pool:
        results = list(pool.map(one, range(50)))
    assert {done.returncode for done in results} == {4}
    assert all(done.stderr.count("\n") == 1 for done in results)
    assert refused(server) <= 2
    assert desk.xnatfs("ls", "/projects", "-s", server.url).returncode == 0


def test_nobody_answers(desk: Desk, closed_port: int) -> None:
    one_line(
        desk.xnatfs("mount", f"http://127.0.0.1:{closed_port}", desk.point, "--io-timeout", "5"),
        3, f"127.0.0.1:{closed_port}",
    )  # fmt: skip
    one_line(
        desk.xnatfs("mount", "https://no-such-host.invalid", desk.point, "--io-timeout", "5"),
        3, "no-such-host.invalid",
    )  # fmt: skip


def test_not_an_xnat_says_what_was_seen(desk: Desk, other_server: str) -> None:
    done = desk.xnatfs("mount", other_server, desk.point)
    one_line(done, 3, "XNAT", "404")


def test_something_that_is_no_web_server(desk: Desk) -> None:
    class Greeter(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            self.request.sendall(b"SSH-2.0-OpenSSH_9.2\r\n")

    with socketserver.TCPServer(("127.0.0.1", 0), Greeter) as greeting:
        serving = threading.Thread(target=greeting.serve_forever, args=(0.05,))
        serving.start()
        url = f"http://127.0.0.1:{greeting.server_address[1]}"
        done = desk.xnatfs("mount", url, desk.point, "--io-timeout", "5")
        greeting.shutdown()
        serving.join()
    one_line(done, 3)


def test_what_a_mount_point_can_lack(desk: Desk, server: DemoServer) -> None:
    missing = desk.folder / "missing"
    one_line(desk.xnatfs("mount", server.url, missing), 1, str(missing), "does not exist")
    file = desk.folder / "file"
    file.write_text("")
    one_line(desk.xnatfs("mount", server.url, file), 1, str(file), "not a folder")
    (desk.point / "inside").touch()
    one_line(desk.xnatfs("mount", server.url, desk.point), 1, "not empty", "inside")
    (desk.point / "inside").unlink()
    assert server.log == []
    with desk.mounted():
        one_line(desk.xnatfs("mount", server.url, desk.point), 1, "already mounted")
    one_line(desk.xnatfs("umount", desk.point), 1, "nothing is mounted")


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("mount", "--no-such-option", "http://127.0.0.1:1", "/mnt"), "--no-such-option"),
        (("mount", "--read-olny", "/mnt"), "did you mean read-only?"),
        (("login", "--pasword=secret"), "unrecognized argument --pasword"),
        (("mount", "http://127.0.0.1:1", "/mnt", "-o", "alow_overwrite"), "allow_overwrite"),
        (("mount", "http://127.0.0.1:1", "/mnt", "-o", "cache_size=lots"), "cache-size"),
        (("mount",), "MOUNTPOINT"),
        (("mount", "/mnt"), "no server"),
        (("mount", "http://admin:secret@127.0.0.1:1", "/mnt"), "in the address"),
        (("mont", "http://127.0.0.1:1"), "mount"),
        (("ls", "--format", "yaml"), "yaml"),
        (("uploads", "frobnicate"), "frobnicate"),
        (("umount",), "MOUNTPOINT"),
        (("demo", "--port", "1"), "--serve"),
    ],
)  # fmt: skip
def test_wrong_use_ends_with_2(desk: Desk, words: tuple[str, ...], part: str) -> None:
    done = desk.xnatfs(*words)
    one_line(done, 2, part)
    assert "secret" not in done.stderr


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("100%.nii", 'the server refuses addresses with "%"'),
        ("x%20y.nii", "'%' and two hex digits stand for a character here"),
        ("two\nlines.nii", "no control characters, and nothing but UTF-8, in a name"),
        ("latin\udcfc.nii", "no control characters, and nothing but UTF-8, in a name"),
    ],
)
def test_a_name_that_cannot_be_stored(desk: Desk, server: DemoServer, name: str, why: str) -> None:
    desk.expected.append(why)
    with desk.mounted() as point:
        desk.works("mkdir resources/BAD")
        server.clear_log()
        assert not (point / SESSION / "resources/BAD/files" / name).exists()
        with pytest.raises(OSError, match="Invalid argument"):
            (point / SESSION / "resources/BAD/files" / name).write_text("x")
        assert [entry for entry in server.log if entry.verb in ("PUT", "POST")] == []
        assert desk.works("ls resources/BAD/files") == ""
    (line,) = [line for line in desk.log().splitlines() if "WARNING" in line]
    assert why in line


def test_read_only(desk: Desk, server: DemoServer) -> None:
    for words in (("-o", "ro"), ("--read-only",)):
        with desk.mounted(*words):
            server.clear_log()
            for verb in ("mkdir resources/NEW", "touch resources/QC/files/new",
                         "echo x >> resources/QC/files/qc.csv", "rm resources/QC/files/qc.csv",
                         "mv resources/QC/files/qc.csv resources/QC/files/other"):  # fmt: skip
                done = desk.shell(verb)
                assert done.returncode == 1
                assert "Read-only file system" in done.stderr
            assert [entry.verb for entry in server.log if entry.verb not in ("GET", "HEAD")] == []
            assert desk.works("cat resources/NAMES/files/plain.txt") == "plain\n"


def test_a_reader_is_told_before_anything_is_sent(
    open_a_desk: OpenDesk, server: DemoServer
) -> None:
    desk = open_a_desk(server.url, "reader")
    with desk.mounted():
        assert desk.works("stat -c %a resources/QC/files").strip() == "555"
        # Root goes past the mode bits: it is the server's word that refuses.
        for verb in (
            "mkdir resources/NEW",
            "echo x > resources/QC/files/new",
            "echo x >> resources/QC/files/qc.csv",
            "rm resources/QC/files/qc.csv",
        ):
            done = desk.shell(verb)
            assert done.returncode == 1
            assert "Permission denied" in done.stderr, verb
        assert "new" not in desk.works("ls resources/QC/files").split()
        assert desk.works("cat resources/NAMES/files/plain.txt") == "plain\n"
    assert asked(server, "PUT", "/files") == []


def test_who_has_no_role_sees_no_session(open_a_desk: OpenDesk, server: DemoServer) -> None:
    desk = open_a_desk(server.url, "nobody")
    with desk.mounted() as point:
        assert "PVT000" not in os.listdir(point / "projects")
        assert not (point / SESSION).exists()


def test_ls(desk: Desk, server: DemoServer) -> None:
    def ls(*words: str) -> str:
        done = desk.xnatfs("ls", "-s", server.url, *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    assert set(ls("/projects").split()) == {"PVT000", "PUB000", "SHARED00"}
    assert "4" in ls(f"/{SESSION}/scans").split()
    long = ls("-l", f"/{SESSION}/scans")
    assert "Ax_3D_T1" in long
    for form, sign in (("json", "["), ("csv", "name,"), ("xml", "<"), ("html", "<")):
        assert sign in ls("--format", form, f"/{SESSION}/scans")
    rows = json.loads(ls("-l", "--format", "json", f"/{SESSION}/resources/QC/files"))
    assert [row["name"] for row in rows] == ["qc.csv"]
    assert f"/{SESSION}/resources/QC/files:" in ls("-R", f"/{SESSION}/resources/QC")
    done = desk.xnatfs("ls", "-s", server.url, "/projects/PVT00")
    one_line(done, 1, "did you mean PVT000?")


def test_names_in_any_locale(desk: Desk) -> None:
    words = ("ls", "-s", desk.url, f"/{SESSION}/resources/NAMES/files")
    done = desk.xnatfs(*words, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == desk.xnatfs(*words).stdout
    assert not done.stdout.isascii()


def test_status_and_doctor(desk: Desk, server: DemoServer) -> None:
    assert desk.xnatfs("status").stdout == "nothing is mounted\n"
    with desk.mounted():
        desk.works("mkdir resources/S && echo x > resources/S/files/x")
        text = desk.xnatfs("status").stdout
        assert f"{desk.point}: {server.url} as admin" in text
        assert "1 file sent" in text
        row = desk.status()
        assert (row["state"], row["mountpoint"]) == ("live", str(desk.point))
        done = desk.xnatfs("doctor", server.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert f"{server.url} as admin, 3 projects" in done.stdout
    done = desk.xnatfs("doctor", server.url, XNAT_PASS="wrong")
    assert done.returncode == 4
    assert "problem" in done.stdout


def test_mount_is_ready_when_it_returns(desk: Desk, server: DemoServer) -> None:
    done = desk.xnatfs("mount", "-v", server.url, desk.point)
    assert done.returncode == 0
    assert f"{server.url} is mounted at {desk.point} for admin" in done.stdout
    assert os.listdir(desk.point / "projects")
    there = mounts.mounted_at(desk.point)
    assert there is not None
    assert (there.fstype, there.source) == ("fuse.xnatfs", server.url)
    done = desk.umount()
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_form_of_mount_8(desk: Desk, server: DemoServer) -> None:
    done = desk.xnatfs(server.url, desk.point, "-o", "rw,_netdev,x-foo,path=/projects/PVT000")
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(os.listdir(desk.point)) == ["experiments", "resources", "subjects"]
    assert desk.umount().returncode == 0


def test_a_part_of_the_archive_by_its_accession(desk: Desk) -> None:
    with desk.mounted("--path", "XNAT_E00001/scans") as point:
        assert "4" in os.listdir(point)
    done = desk.xnatfs(
        "run", "-s", desk.url, "--path", "XNAT_E00001", "--cd", f"/{SESSION}/scans/4", "--", "pwd"
    )
    assert done.stdout.endswith("/mnt/scans/4\n")
    done = desk.xnatfs("mount", desk.url, desk.point, "--path", "/projects/PVT00")
    one_line(done, 1, "did you mean PVT000?")


def test_umount_says_what_arrived(desk: Desk) -> None:
    desk.mount()
    desk.works("mkdir resources/U && cd resources/U/files && echo one > 1 && echo two > 2")
    done = desk.umount()
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "2 files arrived (8 B)\n"


def test_umount_of_a_mount_in_use(desk: Desk) -> None:
    stay = 'cd "$1" && echo in && exec sleep 60'
    with desk.mounted() as point, process("sh", "-c", stay, "sh", point) as sleeper:
        assert sleeper.stdout is not None
        assert sleeper.stdout.readline() == "in\n"
        one_line(desk.umount(), 1, "in use", f"sleep (process {sleeper.pid})")
        sleeper.kill()
        sleeper.wait()


# Stands before ctypes.util: what a machine without libfuse looks like to Python.
_NO_LIBFUSE = """
import ctypes, ctypes.util
real = ctypes.util.find_library
ctypes.util.find_library = lambda name: None if name.startswith("fuse") else real(name)
"""


@pytest.fixture
def without_libfuse(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "sitecustomize.py").write_text(_NO_LIBFUSE)
    return {"PYTHONPATH": str(tmp_path)}


def test_without_libfuse_all_but_mount_works(
    desk: Desk, server: DemoServer, without_libfuse: dict[str, str]
) -> None:
    done = desk.xnatfs("mount", server.url, desk.point, **without_libfuse)
    one_line(done, 6, "libfuse", "install")
    assert server.log == []
    for words in (("--help",), ("mount", "--help"), ("--version",), ("status",), ("uploads",),
                  ("ls", "-s", server.url, f"/{SESSION}/scans")):  # fmt: skip
        done = desk.xnatfs(*words, **without_libfuse)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout
    done = desk.xnatfs("doctor", **without_libfuse)
    assert done.returncode == 6
    assert "libfuse is not installed" in done.stdout


def test_help_names_every_verb(desk: Desk) -> None:
    done = desk.xnatfs("--help")
    for verb in ("mount", "umount", "ls", "status", "uploads", "doctor", "demo"):
        assert f"\n  {verb} " in done.stdout
        told = desk.xnatfs(verb, "--help")
        assert told.returncode == 0
        assert told.stdout.startswith("usage: ")
    assert "fuse" not in sys.modules  # nothing of this needed it here


def in_a_namespace(
    script: str, *words: str | Path, env: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a script as root with mounts of its own, which nobody else sees."""
    return subprocess.run(
        ["unshare", "--mount", "--propagation", "private", "sh", "-eu", "-c", script, "sh",
         *map(str, words)],
        env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can take /dev/fuse away")


@needs_root
def test_without_dev_fuse(desk: Desk, server: DemoServer) -> None:
    # /dev/null in its place cannot be opened as FUSE's device; an empty /dev has none at all.
    done = in_a_namespace(
        'mkdir "$1/dev"; mount -t tmpfs none "$1/dev"; touch "$1/dev/null"\n'
        'mount --bind /dev/null "$1/dev/null"; mount --move "$1/dev" /dev\n'
        'shift; exec "$@"',
        desk.folder, XNATFS, "mount", server.url, desk.point, env=desk.variables,
    )  # fmt: skip
    one_line(done, 6, "/dev/fuse", "modprobe fuse", "--device /dev/fuse")
    assert server.log == []


@needs_root
def test_dev_fuse_that_may_not_be_opened_and_no_fusermount(desk: Desk, server: DemoServer) -> None:
    """For a user without privileges: first the device's mode, then the missing program."""
    script = (
        "mount -t tmpfs -o mode=755 none /mnt; mkdir -m 777 /mnt/point; touch /mnt/fuse\n"
        'mknod /mnt/node c 10 229; chmod "$1" /mnt/node; mount --bind /mnt/node /dev/fuse\n'
        "for place in /bin/fusermount /usr/bin/fusermount; do\n"
        '  [ "$2" = with ] || mount --bind /dev/null "$place"; done\n'
        "url=$3; shift 3; cd /mnt; export HOME=/mnt/point\n"
        # The clone may lie where only root may look: reading alone stays allowed.
        "exec setpriv --reuid 65534 --regid 65534 --clear-groups"
        " --inh-caps +dac_read_search --ambient-caps +dac_read_search"
        ' "$@" mount "$url" /mnt/point'
    )
    env = {name: value for name, value in desk.variables.items() if not name.startswith("XDG_")} | {
        "XDG_STATE_HOME": "/mnt/point/s",
        "XDG_CACHE_HOME": "/mnt/point/c",
    }
    done = in_a_namespace(script, "600", "with", server.url, XNATFS, env=env)
    one_line(done, 6, "/dev/fuse may not be opened", "chmod 666 /dev/fuse")
    done = in_a_namespace(script, "666", "without", server.url, XNATFS, env=env)
    one_line(done, 6, "fusermount")
    assert server.log == []
