"""``xnatfs run``: a mount for one command, private, flushed, and gone whatever happens."""

from __future__ import annotations

import json
import os
import pty
import select
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import DCM2NIIX, HELD, PLAIN, SESSION, XNATFS, Desk, asked, process, within
from tests.mount.nobody import as_nobody
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer, ServerOptions

WITHOUT_NAMESPACES = str(Path(__file__).with_name("without_namespaces.py"))

only_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")


@pytest.fixture(scope="module")
def busy_server(
    small_archive: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[DemoServer]:
    """One server for what only adds resources of its own."""
    root = tmp_path_factory.mktemp("run") / "server"
    shutil.copytree(small_archive, root)
    running = DemoServer(ServerOptions(root=root, sample="small"))
    running.start()
    yield running
    running.stop()


@pytest.fixture
def desk(open_a_desk: OpenDesk, busy_server: DemoServer) -> Iterator[Desk]:
    desk = open_a_desk(busy_server.url, "member")
    yield desk
    busy_server.faults.clear()
    assert within(10, lambda: processes_of(desk) == {})
    assert "xnatfs" not in mounts_of_this_test(desk)


def processes_of(desk: Desk) -> dict[int, str]:
    """Everything that runs on behalf of a desk, told by its environment."""
    mark = f"HOME={desk.folder / 'home'}\0".encode()
    found = {}
    for path in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            if state not in "ZX" and mark in (path / "environ").read_bytes():
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ")
                found[int(path.name)] = words.decode(errors="replace").strip()
    return found


def mounts_of_this_test(desk: Desk) -> str:
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return "\n".join(line for line in lines if desk.url in line)


def plain(server: DemoServer) -> str:
    return Rest(server).files(f"{HELD}/resources/NAMES")["plain.txt"].decode()


# -- what the command gets


def test_the_command_sees_the_archive_and_nobody_else(desk: Desk, busy_server: DemoServer) -> None:
    desk.variables["SEEN"] = str(desk.folder / "seen")
    with process(
        XNATFS, "run", "-s", desk.url, "--", "sh", "-c",
        f'cat "$XNATFS_MOUNT/{PLAIN}"; grep -c "^{desk.url} .*fuse.xnatfs" /proc/mounts; pwd; '
        'touch "$SEEN"; while [ -e "$SEEN" ]; do sleep 0.1; done; exit 7',
        env=desk.variables,
    ) as running:  # fmt: skip
        assert within(20, (desk.folder / "seen").exists)
        assert mounts_of_this_test(desk) == ""
        assert os.listdir(desk.state / "mnt") == []
        (row,) = json.loads(desk.xnatfs("status", "--json").stdout)["mounts"]
        assert (row["state"], row["for_command"], row["server"]) == ("live", True, desk.url)
        (desk.folder / "seen").unlink()
        out, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (7, "")
    assert out == f"{plain(busy_server)}1\n{os.getcwd()}\n"
    assert not list((desk.state / "mounts").glob("*"))
    assert desk.xnatfs("status").stdout == "nothing is mounted\n"


def test_it_starts_in_the_archive_and_mounts_where_it_is_told(desk: Desk) -> None:
    done = desk.run("--at", desk.point, "--", "sh", "-c", 'pwd; echo "$XNATFS_MOUNT"; ls')
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[:2] == [str(desk.session), str(desk.point)]
    assert done.stdout.split()[2:] == sorted(["scans", "resources", "assessors", "reconstructions"])
    assert os.listdir(desk.point) == []
    address = f"{desk.url}/data/experiments/XNAT_E00001/scans"
    done = desk.xnatfs("run", "--cd", address, "--", "sh", "-c", "echo ${PWD#$XNATFS_MOUNT}")
    assert (done.returncode, done.stdout) == (0, f"/{SESSION}/scans\n")
    done = desk.xnatfs(
        "run", "-s", desk.url, "--path", f"/{SESSION}", "--cd", f"/{SESSION}/scans", "ls"
    )
    assert (done.returncode, {"4", "6"} <= set(done.stdout.split())) == (0, True)


def test_what_was_written_is_there_when_it_returns(desk: Desk, busy_server: DemoServer) -> None:
    done = desk.run(
        "--", "sh", "-c",
        "mkdir resources/RUN; echo one > resources/RUN/files/one; exec 5> resources/RUN/files/two; "
        "echo two >&5; (sleep 1; echo three > resources/RUN/files/three) &",
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert Rest(busy_server).files(f"{HELD}/resources/RUN") == {
        "one": b"one\n",
        "two": b"two\n",
        "three": b"three\n",
    }


def test_a_tree_of_objects_is_made_by_mkdir_p(desk: Desk, busy_server: DemoServer) -> None:
    place = "projects/PVT000/subjects/RUN1/experiments/RUN1_MR/scans/1/resources/NIFTI/files/sub"
    script = f'mkdir -p "$XNATFS_MOUNT/{place}" && echo x > "$XNATFS_MOUNT/{place}/x"'
    done = desk.run("--", "sh", "-c", script)
    assert (done.returncode, "Operation not permitted" in done.stderr) == (1, True)
    desk.expected.append("needs --allow-create")
    done = desk.run("--allow-create", "--", "sh", "-c", script)
    assert (done.returncode, done.stderr) == (0, "")
    session = "/data/projects/PVT000/subjects/RUN1/experiments/RUN1_MR"
    address = f"{session}/scans/1/resources/NIFTI/files/sub/x"
    assert Rest(busy_server).ask("GET", address) == b"x\n"


def test_streams_and_descriptors_reach_the_command(desk: Desk) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"third\n")
    os.close(writing)
    done = subprocess.run(
        [XNATFS, "run", "-s", desk.url, "--", "bash", "-c", f"cat; cat <&{reading}; echo bad >&2"],
        env=desk.variables, input=b"first\n", capture_output=True, timeout=60, check=False,
        pass_fds=[reading],
    )  # fmt: skip
    os.close(reading)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"first\nthird\n", b"bad\n")


def test_it_needs_no_standard_input(desk: Desk) -> None:
    """As cron jobs and daemons may start it; the command gets it as it was."""
    script = '[ -e /proc/self/fd/0 ] || echo closed; ls "$XNATFS_MOUNT"'
    words = [XNATFS, "run", "-s", desk.url, "--", "bash", "-c", script]
    done = subprocess.run(
        ["bash", "-c", '"$@" <&-', "bash", *words],
        env=desk.variables, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "closed\nexperiments\nprojects\n", "")


def test_a_closed_pipe_ends_the_command_as_always(desk: Desk) -> None:
    done = desk.run("--", "sh", "-c", "yes | head -n 1; yes > /dev/full")
    assert (done.returncode, done.stdout) == (1, "y\n")
    assert "No space left on device" in done.stderr


def test_one_command_can_run_another(desk: Desk, busy_server: DemoServer) -> None:
    inner = [XNATFS, "run", "-s", desk.url, "--", "sh", "-c", f'cat "$XNATFS_MOUNT/{PLAIN}"']
    done = desk.run("--", *inner)
    assert (done.returncode, done.stdout, done.stderr) == (0, plain(busy_server), "")


def test_many_at_one_place_with_one_store(desk: Desk, busy_server: DemoServer) -> None:
    assert desk.run("--", "cat", "resources/NAMES/files/plain.txt").returncode == 0
    busy_server.clear_log()
    words = [XNATFS, "run", "-s", desk.url, "--at", desk.point, "--", "sh", "-c"]
    script = f'[ "$XNATFS_MOUNT" = "{desk.point}" ] && cat "{desk.point}/{PLAIN}"; sleep 0.5'
    tasks = [
        subprocess.Popen([*words, script], env=desk.variables, stdout=subprocess.PIPE, text=True)
        for _ in range(4)
    ]
    answers = [task.communicate(timeout=60)[0] for task in tasks]
    assert [task.returncode for task in tasks] == [0] * 4
    assert answers == [plain(busy_server)] * 4
    assert asked(busy_server, "GET", "plain.txt") == []


# -- how it ends


@pytest.mark.parametrize(
    ("words", "status", "complaint"),
    [
        (["sh", "-c", "exit 7"], 7, ""),
        (["sh", "-c", "kill -KILL $$"], -signal.SIGKILL, ""),
        (["sh", "-c", "kill -TERM $$"], -signal.SIGTERM, ""),
        (["no-such-command"], 127, "xnatfs: no-such-command: No such file or directory\n"),
        (["/etc/passwd"], 126, "xnatfs: /etc/passwd: Permission denied\n"),
        ([], 125, "xnatfs: run needs a command: xnatfs run [options] -- COMMAND\n"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else None,
)
def test_its_status_is_that_of_the_command(
    desk: Desk, words: list[str], status: int, complaint: str
) -> None:
    done = desk.run("--", *words)
    assert (done.returncode, done.stdout, done.stderr) == (status, "", complaint)


def test_what_fails_before_the_command_is_125_and_one_line(desk: Desk) -> None:
    for words, variables, complaint in (
        (["--no-such-option", "--", "true"], {}, "unrecognized argument --no-such-option"),
        (["--", "true"], {"XNAT_PASS": "wrong"}, "login of 'member' (from XNAT_USER) refused"),
        (["-s", "http://127.0.0.1:9", "--", "true"], {}, "no connection"),
        (["--cd", "/projects/PVT00", "--", "true"], {}, "did you mean PVT000?"),
        (["--cd", "http://127.0.0.1:9/data/projects/PVT000", "true"], {}, "the address is of"),
        (["--at", desk.folder / "none", "--", "true"], {}, "make it with mkdir -p"),
        (["--path", "/projects/PVT000", "--cd", "/projects", "--", "true"], {}, "only /projects"),
    ):
        done = desk.run(*words, **variables)
        assert (done.returncode, done.stdout) == (125, ""), words
        assert done.stderr.startswith("xnatfs: ")
        assert done.stderr.count("\n") == 1
        assert complaint in done.stderr


def test_a_read_that_failed_is_74_although_dcm2niix_hides_it(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path
) -> None:
    desk = open_a_desk(server.url, "member")
    slices = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    bad = sorted(slices)[3]
    desk.expected.append(bad)
    (lost,) = (tmp_path / "server").rglob(bad)
    lost.unlink()
    folder = "scans/4/resources/DICOM/files"
    done = desk.run("--", DCM2NIIX, "-f", "out", "-o", tmp_path, folder)
    assert done.returncode == 74, (done.stdout, done.stderr)
    assert f"(256x256x{len(slices) - 1}x1)" in done.stdout
    assert done.stderr.startswith("xnatfs: 1 file could not be read:\n")
    assert bad in done.stderr
    # The command's own failure comes first.
    done = desk.run("--", "cat", f"{folder}/{bad}")
    assert done.returncode == 1
    assert "1 file could not be read:" in done.stderr
    lost.write_bytes(slices[bad])
    done = desk.run("--", DCM2NIIX, "-f", "whole", "-o", tmp_path, folder)
    assert (done.returncode, f"(256x256x{len(slices)}x1)" in done.stdout) == (0, True)


def test_data_that_did_not_arrive_is_75_although_the_shell_hides_it(
    desk: Desk, busy_server: DemoServer
) -> None:
    desk.expected += ["kept.txt"]
    busy_server.faults.add(Fault(kind="status", path="kept.txt", verb="PUT", code=403))
    script = "mkdir resources/NOT; echo precious > resources/NOT/files/kept.txt; exit $1"
    done = desk.run("--io-timeout", "3", "--", "sh", "-c", script, "sh", "0")
    assert done.returncode == 75
    assert "1 file did not arrive; the data is kept, see `xnatfs uploads`:" in done.stderr
    assert "kept.txt" in done.stderr
    busy_server.faults.clear()
    done = desk.xnatfs("uploads", "send", "-s", desk.url)
    assert (done.returncode, done.stdout) == (0, "1 file arrived\n")
    assert Rest(busy_server).files(f"{HELD}/resources/NOT") == {"kept.txt": b"precious\n"}


def test_what_the_command_leaves_running_is_waited_for_and_then_named(desk: Desk) -> None:
    done = desk.run("--drain", "1", "--", "sh", "-c", "sleep 300 > /dev/null 2>&1 & echo $!")
    assert done.returncode == 0
    pid = int(done.stdout)
    assert done.stderr == f"xnatfs: sleep (process {pid}) still runs; it has no mount any more\n"
    os.kill(pid, signal.SIGKILL)


# -- signals


@contextmanager
def waiting(desk: Desk, script: str, *options: str) -> Iterator[subprocess.Popen[str]]:
    """``run`` with a shell script that has said that it is ready."""
    words = [
        # The tests themselves may run under nohup, whose ignoring nobody could trap.
        "env", "--default-signal=HUP",
        XNATFS, "run", "-s", desk.url, "--cd", f"/{SESSION}", *options, "--", "sh", "-c",
    ]  # fmt: skip
    with process(*words, f"{script}\nwhile :; do sleep 0.1; done", env=desk.variables) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        yield running


@pytest.mark.parametrize("name", ["HUP", "INT", "TERM", "USR1", "USR2"])
def test_signals_reach_the_command(desk: Desk, name: str) -> None:
    with waiting(desk, f"trap 'echo got; exit 3' {name}; echo ready") as running:
        running.send_signal(getattr(signal, f"SIG{name}"))
        out, err = running.communicate(timeout=30)
    assert (running.returncode, out, err) == (3, "got\n", "")


def test_one_that_is_ignored_stays_ignored(desk: Desk) -> None:
    with process(
        "nohup", XNATFS, "run", "-s", desk.url, "--", "sh", "-c",
        "trap 'exit 3' TERM; echo ready; while :; do sleep 0.1; done",
        env=desk.variables,
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        running.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.5)
        running.send_signal(signal.SIGTERM)
        assert running.wait(20) == 3


def test_a_signal_before_the_command_runs_ends_it(desk: Desk, busy_server: DemoServer) -> None:
    busy_server.faults.add(Fault(kind="stall", path="/data/", seconds=60))
    with process(XNATFS, "run", "-s", desk.url, "--", "true", env=desk.variables) as running:
        assert within(20, lambda: len(busy_server.log) > 0 or len(processes_of(desk)) > 2)
        running.send_signal(signal.SIGTERM)
        assert running.wait(5) == -signal.SIGTERM


def test_after_sigterm_it_sends_for_as_long_as_drain_says(
    desk: Desk, busy_server: DemoServer
) -> None:
    """A scheduler's end: what was not sent in time is kept, and named."""
    desk.expected += ["late.txt", "not everything was sent"]
    busy_server.faults.add(Fault(kind="stall", path="late.txt", verb="PUT", seconds=60))
    script = (
        "mkdir resources/TERM; exec 5> resources/TERM/files/late.txt; echo data >&5; echo ready"
    )
    with waiting(desk, script, "--drain", "1") as running:
        running.terminate()
        _, err = running.communicate(timeout=20)
    assert running.returncode == -signal.SIGTERM
    assert "1 file did not arrive" in err
    busy_server.faults.clear()
    assert desk.xnatfs("uploads", "send", "-s", desk.url).returncode == 0
    assert Rest(busy_server).files(f"{HELD}/resources/TERM") == {"late.txt": b"data\n"}


def test_on_a_terminal_it_is_a_job_like_any_other(desk: Desk, tmp_path: Path) -> None:
    """Ctrl-Z stops it, ``fg`` goes on, Ctrl-C ends it; the command sees the terminal."""
    inner = 'trap "echo goes-\\$((2))-on" CONT; [ -t 0 ] && [ -t 1 ] && echo is-$((1))-terminal; '
    inner += "while :; do sleep 0.1; done"
    child, terminal = pty.fork()
    if child == 0:
        os.execvpe("bash", ["bash", "--norc", "--noediting", "-i"], desk.variables)
    seen = b""

    def types(text: str) -> None:
        os.write(terminal, text.encode())

    def reads(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            assert select.select([terminal], [], [], 20)[0], seen
            seen += os.read(terminal, 4096)

    try:
        types(f"'{XNATFS}' run -s {desk.url} -- sh -c '{inner}'\n")
        reads(b"is-1-terminal")
        types("\x1a")
        reads(b"Stopped")
        types("fg\n")
        reads(b"goes-2-on")
        types("\x03")
        # What was typed before a Ctrl-C is forgotten with it.
        assert within(20, lambda: "xnatfs run" not in " ".join(processes_of(desk).values()))
        types("echo ended-$?\n")
        reads(b"ended-130")
    finally:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(terminal)


# -- killed


KILLED = (
    "mkdir resources/KILLED_$1; cd resources/KILLED_$1/files; echo done > closed; "
    "exec 5> open; echo half >&5; (trap '' TERM HUP INT; setsid sleep 300 &) ; echo ready"
)


@pytest.mark.parametrize("who", ["run", "mount", "both"])
@pytest.mark.parametrize("fallback", [False, pytest.param(True, marks=only_root)])
def test_after_sigkill_nothing_is_left_and_nothing_is_lost(
    desk: Desk, busy_server: DemoServer, who: str, fallback: bool, tmp_path: Path
) -> None:
    desk.expected += ["not on the server: ", "not everything was sent"]
    label = f"{who}_{fallback}"
    (tmp_path / "temporary").mkdir()
    before = [sys.executable, WITHOUT_NAMESPACES] if fallback else []
    with process(
        *before, XNATFS, "run", "-s", desk.url, "--cd", f"/{SESSION}", "--", "sh", "-c",
        f"{KILLED}; while :; do sleep 0.1; done", "sh", label,
        env=desk.variables | {"TMPDIR": str(tmp_path / "temporary")},
    ) as running:  # fmt: skip
        assert running.stdout is not None
        assert running.stdout.readline() == "ready\n"
        assert bool(mounts_of_this_test(desk)) == fallback
        family = {pid: words for pid, words in processes_of(desk).items() if "xnatfs run" in words}
        (server,) = set(family) - {running.pid}
        for pid in {"run": [running.pid], "mount": [server], "both": [running.pid, server]}[who]:
            os.kill(pid, signal.SIGKILL)
        assert within(10, lambda: not set(processes_of(desk)) - orphans(desk, who))
        running.wait(10)
    for pid in orphans(desk, who):
        os.kill(pid, signal.SIGKILL)
    # When both are killed at once, nobody is left to clean up what is no namespace's.
    assert bool(mounts_of_this_test(desk)) == (fallback and who == "both")
    if who == "mount":
        assert running.returncode == 125
    # The next one sends what was closed; what was open has been closed by the end of the command,
    # or it is kept.
    done = desk.run("--", "true")
    assert (done.returncode, done.stderr) == (0, "")
    assert mounts_of_this_test(desk) == ""
    assert os.listdir(tmp_path / "temporary") == []
    assert os.listdir(desk.state / "mounts") == []
    there = Rest(busy_server).files(f"{HELD}/resources/KILLED_{label}")
    assert there.pop("closed") == b"done\n"
    kept = [path.read_bytes() for path in (desk.state / "spool").rglob("bytes")]
    assert [*kept, *there.values()] == [b"half\n"]


def test_a_scheduler_ends_it_in_the_middle_of_an_upload(
    desk: Desk, busy_server: DemoServer
) -> None:
    """SIGTERM to all processes, and SIGKILL before the data has left."""
    desk.expected += ["not on the server: ", "not everything was sent"]
    # What an owner writes is sent at once.
    desk.variables |= {"XNAT_USER": "admin", "XNAT_PASS": "admin"}
    content = os.urandom(500_000)
    source = desk.folder / "content"
    source.write_bytes(content)
    busy_server.faults.add(Fault(kind="reset_after", path="f.bin", verb="PUT", bytes=100_000))
    script = (
        f"mkdir resources/SLURM; cp {source} resources/SLURM/files/f.bin; "
        "(trap '' TERM; exec sleep 300) & trap '' TERM; echo ready"
    )
    with waiting(desk, script) as running:
        assert within(20, lambda: asked(busy_server, "PUT", "f.bin"))
        for pid in processes_of(desk):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            running.wait(0.2)
        for pid in sorted(processes_of(desk)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert within(10, lambda: not processes_of(desk))
    busy_server.faults.clear()
    assert desk.run("--", "true").returncode == 0
    assert Rest(busy_server).files(f"{HELD}/resources/SLURM") == {"f.bin": content}


def orphans(desk: Desk, who: str) -> set[int]:
    """What escapes when both that know of it are killed at once: a process in its own session."""
    if who != "both":
        return set()
    return {pid for pid, words in processes_of(desk).items() if words == "sleep 300"}


# -- where there are no namespaces, and as an ordinary user


@only_root
def test_without_namespaces_it_mounts_at_a_temporary_place(
    desk: Desk, busy_server: DemoServer, tmp_path: Path
) -> None:
    (tmp_path / "temporary").mkdir()
    done = subprocess.run(
        [sys.executable, WITHOUT_NAMESPACES, XNATFS, "run", "-s", desk.url, "--", "sh", "-c",
         f'cat "$XNATFS_MOUNT/{PLAIN}"; echo "$XNATFS_MOUNT"; exit 7'],
        env=desk.variables | {"TMPDIR": str(tmp_path / "temporary")},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (7, "")
    content, place = done.stdout.rsplit("\n", 2)[:2]
    assert content + "\n" == plain(busy_server)
    assert Path(place).parent == tmp_path / "temporary"
    assert os.listdir(tmp_path / "temporary") == []
    assert mounts_of_this_test(desk) == ""


AS_NOBODY = r"""
xnatfs run --cd "/$SESSION" -- sh -c 'id -u; cat resources/NAMES/files/plain.txt
mkdir resources/NOBODY_$1; echo hello > resources/NOBODY_$1/files/x; echo "$XNATFS_MOUNT"
[ "$(stat -c %u resources)" = 65534 ]; exit 7' sh "$KIND" || echo "status $?"
! grep "^$XNAT_HOST " /proc/mounts
ls -A /tmp | grep xnatfs-run- || echo clean
"""


# One may be a link to the other.
NO_FUSERMOUNT = r"""
for it in $(which -a fusermount fusermount3 | xargs -n 1 readlink -f | sort -u); do
    mount --bind /dev/null "$it"
done
"""
NO_NAMESPACES = '"$PYTHON" "$CLONE/tests/mount/without_namespaces.py" sh -c "$AS_NOBODY"'


@only_root
@pytest.mark.parametrize("kind", ["PRIVATE", "FUSERMOUNT"])
def test_an_ordinary_user(desk: Desk, busy_server: DemoServer, kind: str) -> None:
    """In a user namespace, without fusermount; and with it where there are none."""
    without = NO_FUSERMOUNT + 'eval "$AS_NOBODY"'
    root = without if kind == "PRIVATE" else NO_NAMESPACES
    done = as_nobody(desk, AS_NOBODY, root=root, KIND=kind)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "65534"
    assert plain(busy_server).splitlines() == lines[1:-3]
    assert lines[-3].startswith("/mnt/home/" if kind == "PRIVATE" else "/tmp/xnatfs-run-")
    assert lines[-2:] == ["status 7", "clean"]
    assert Rest(busy_server).files(f"{HELD}/resources/NOBODY_{kind}") == {"x": b"hello\n"}


@only_root
def test_where_neither_works_it_says_why(desk: Desk) -> None:
    root = NO_FUSERMOUNT + NO_NAMESPACES
    done = as_nobody(desk, 'xnatfs run -- true || echo "status $?"', root=root)
    assert (done.returncode, done.stdout) == (0, "status 125\n")
    assert done.stderr.count("\n") == 1
    assert "may not mount" in done.stderr or "fusermount is not installed" in done.stderr
    assert "no mount namespace of its own is allowed here" in done.stderr
