"""The adapter over the real kernel, with a small file system in memory behind it."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from xnatfs import errors
from xnatfs.fuse import control, mounts, unmounting
from xnatfs.fuse.errnos import TABLE

pytestmark = pytest.mark.usefixtures("fuse")

FAKE = Path(__file__).with_name("fake_mount.py")


@contextmanager
def fails_with(*numbers: int) -> Iterator[None]:
    with pytest.raises(OSError, match="Errno") as caught:
        yield
    assert caught.value.errno in numbers


@dataclass
class Mount:
    point: Path
    state: Path

    def start(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, FAKE, self.point, self.state, *words],
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    def record(self) -> control.Record:
        record = control.record_of(self.state, self.point)
        assert record is not None
        return record

    def log(self) -> str:
        return "".join(path.read_text() for path in (self.state / "logs").glob("*.log"))

    def umount(self, wait_s: float | None = None) -> unmounting.Farewell:
        return unmounting.unmount(
            self.point, self.state, wait_s=wait_s, progress=lambda _pending: None
        )


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Mount]:
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    mount = Mount(tmp_path / "mnt", tmp_path / "state")
    mount.point.mkdir()
    yield mount
    pids = [record.pid for record in control.records(mount.state) if not record.ended]
    while mounts.mounted_at(mount.point):
        mounts.unmount(mount.point, lazy=True)
    for pid in pids:
        assert gone(pid, 10), f"process {pid} stays"


@pytest.fixture
def mount(place: Mount) -> Mount:
    done = place.start()
    assert (done.returncode, done.stdout, done.stderr) == (0, "mounted as ada\n", "")
    return place


def gone(pid: int, seconds: float) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.05)
    return False


def test_is_mounted_when_the_command_returns(mount: Mount) -> None:
    there = mounts.mounted_at(mount.point)
    assert there is not None
    assert (there.fstype, there.source) == ("fuse.xnatfs", "http://fake.example")
    assert (mount.point / "hello").read_bytes() == b"hello"
    assert sorted(os.listdir(mount.point))[:2] == ["big", "counted"]


def test_whole_files_come_through(mount: Mount) -> None:
    (mount.point / "new").write_bytes(b"abc" * 100_000)
    assert (mount.point / "new").read_bytes() == b"abc" * 100_000
    assert len((mount.point / "big").read_bytes()) == 1 << 20


def test_types_and_inodes_in_a_listing(mount: Mount) -> None:
    with os.scandir(mount.point) as entries:
        found = {entry.name: entry for entry in entries}
    assert found["folder"].is_dir()
    assert found["link"].is_symlink()
    assert found["folder"].inode() == 5
    assert os.readlink(mount.point / "link") == "hello"


def test_a_listing_that_breaks_off_is_an_error(mount: Mount) -> None:
    with fails_with(errno.EIO):
        os.listdir(mount.point / "folder")


# Python itself asks again after EINTR without a signal, for ever.
@pytest.mark.parametrize(
    "kind",
    [kind for kind in TABLE if kind is not errors.Interrupted],
    ids=lambda kind: kind.__name__,
)
def test_every_error_reaches_the_program_as_its_errno(
    shared: Mount, kind: type[errors.XnatfsError]
) -> None:
    with fails_with(TABLE[kind].errno):
        os.open(shared.point / f"err-{kind.__name__}", os.O_RDONLY)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    folder = tmp_path_factory.mktemp("shared")
    mount = Mount(folder / "mnt", folder / "state")
    mount.point.mkdir()
    assert mount.start().returncode == 0
    yield mount
    mount.umount()


def test_what_nobody_expects_is_eio_and_one_line_in_the_log(mount: Mount) -> None:
    with fails_with(errno.EIO):
        os.open(mount.point / "crash", os.O_RDONLY)
    lines = [line for line in mount.log().splitlines() if "ERROR" in line]
    assert len(lines) == 1
    assert "open '/crash': unexpected ZeroDivisionError" in lines[0]


def test_an_error_of_close_reaches_the_program(mount: Mount) -> None:
    descriptor = os.open(mount.point / "unsent-1", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    with fails_with(errno.EDQUOT):
        os.close(descriptor)


def test_attributes_that_xnat_cannot_have_are_answered_from_memory(shared: Mount) -> None:
    for name in ("security.selinux", "system.posix_acl_access", "user.missing"):
        with fails_with(errno.ENODATA, errno.ENOTSUP):
            os.getxattr(shared.point / "hello", name)
    assert "AssertionError" not in shared.log()
    assert os.listxattr(shared.point / "hello") == ["user.xnat.reads"]


def test_no_file_is_a_terminal(shared: Mount) -> None:
    with open(shared.point / "hello") as file:
        assert not file.isatty()


def test_pages_are_kept_only_when_the_file_system_says_so(shared: Mount) -> None:
    def reads(name: str) -> int:
        return int(os.getxattr(shared.point / name, "user.xnat.reads"))

    for name in ("keep", "fresh"):
        for _ in range(3):
            assert len((shared.point / name).read_bytes()) == 65536
    assert reads("keep") == 1
    assert reads("fresh") == 3


def test_times_are_set_kept_and_left_alone(shared: Mount) -> None:
    file = shared.point / "counted"
    os.utime(file, (1_000_000, 2_000_000))
    assert file.stat().st_mtime == 2_000_000
    # touch -a: the time of the last change stays
    subprocess.run(["touch", "-a", file], check=True)
    assert file.stat().st_mtime == 2_000_000
    before = time.time()
    subprocess.run(["touch", "-m", file], check=True)
    assert before - 1 <= file.stat().st_mtime <= time.time() + 1
    subprocess.run(["touch", "-d", "2001-02-03 04:05:06 UTC", file], check=True)
    assert file.stat().st_mtime == 981173106


def test_the_caller_is_the_process_and_not_its_thread(shared: Mount) -> None:
    script = (
        "import sys, os, threading\n"
        "thread = threading.Thread(target=lambda: open(sys.argv[1], 'r+').close())\n"
        "thread.start(); thread.join(); print(os.getpid())"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, shared.point / "counted"],
        capture_output=True,
        text=True,
        check=True,
    )
    callers = os.getxattr(shared.point / "hello", "user.xnat.callers").decode().split()
    assert done.stdout.strip() in callers


def test_space_is_that_of_the_spool(shared: Mount) -> None:
    space = os.statvfs(shared.point)
    assert (space.f_bsize, space.f_blocks, space.f_bfree, space.f_bavail) == (4096, 1000, 500, 400)
    assert space.f_namemax == 255


WAITS = {
    "stat": "os.stat(path)",
    "open": "os.open(path, os.O_RDONLY)",
    "read": "os.read(os.open(path, os.O_RDONLY), 10)",
    "close": "os.close(os.open(path, os.O_RDWR))",
}


@contextmanager
def waiting_process(path: Path, action: str, prologue: str = "") -> Iterator[subprocess.Popen[str]]:
    script = f"import os, sys, signal\npath = sys.argv[1]\n{prologue}\nprint('go', flush=True)\n"
    with subprocess.Popen(
        [sys.executable, "-c", script + action, path],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "go\n"
        time.sleep(0.5)
        assert process.poll() is None, "it should wait"
        yield process


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("verb", list(WAITS))
def test_a_process_that_waits_can_be_ended(shared: Mount, verb: str, number: int) -> None:
    with waiting_process(shared.point / f"hang-{verb}", WAITS[verb]) as process:
        process.send_signal(number)
        # Not for the 20 s that the wait itself would take.
        assert process.wait(timeout=8) != 0


def test_other_signals_do_not_break_a_wait(shared: Mount) -> None:
    prologue = "signal.signal(signal.SIGUSR1, lambda *_: print('heard', flush=True))"
    action = "print(os.stat(path).st_size, flush=True)"
    with waiting_process(shared.point / "hang-stat", action, prologue) as process:
        process.send_signal(signal.SIGUSR1)
        time.sleep(1.0)
        assert process.poll() is None, "it should still wait"
        process.kill()
        process.wait(timeout=8)


def test_what_a_mount_point_can_lack(place: Mount) -> None:
    place.point.rmdir()
    done = place.start()
    assert (done.returncode, done.stderr) == (
        9,
        f"NotFound: {place.point}: the mount point does not exist; make it with mkdir -p\n",
    )
    place.point.write_text("a file")
    assert "NotAFolder" in place.start().stderr
    place.point.unlink()
    place.point.mkdir()
    (place.point / "inside").touch()
    done = place.start()
    assert "FolderNotEmpty" in done.stderr
    assert "'inside' is there" in done.stderr
    (place.point / "inside").unlink()


def test_a_second_mount_at_the_same_place_is_refused(mount: Mount) -> None:
    done = mount.start()
    assert done.returncode == 9
    assert "AlreadyExists" in done.stderr
    assert "http://fake.example is already mounted here" in done.stderr
    assert (mount.point / "hello").read_bytes() == b"hello"


def test_the_error_of_the_child_is_the_command_s(place: Mount) -> None:
    done = place.start("refused")
    assert (done.returncode, done.stdout) == (9, "")
    assert done.stderr == "LoginRefused: fake.example: user ada was refused\n"
    assert mounts.mounted_at(place.point) is None
    assert control.records(place.state) == []


def test_a_mount_that_died_leaves_no_empty_folder_and_the_next_one_cleans_up(
    mount: Mount,
) -> None:
    os.stat(mount.point)  # which the kernel goes on answering from memory
    os.kill(mount.record().pid, signal.SIGKILL)
    assert gone(mount.record().pid, 5)
    with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
        os.listdir(mount.point)
    done = mount.start()
    assert (done.returncode, done.stderr) == (
        0,
        f"{mount.point}: its process is gone; cleaned up\n",
    )
    assert (mount.point / "hello").read_bytes() == b"hello"
    assert len(control.records(mount.state)) == 1


def test_umount_of_a_dead_mount_cleans_up(mount: Mount) -> None:
    os.kill(mount.record().pid, signal.SIGKILL)
    assert gone(mount.record().pid, 5)
    assert mount.umount() == unmounting.Farewell()
    assert mounts.mounted_at(mount.point) is None
    assert control.records(mount.state) == []


def test_umount_waits_for_the_process_and_hands_over_its_last_word(mount: Mount) -> None:
    with fails_with(errno.EDQUOT):
        (mount.point / "unsent-1").write_bytes(b"x")
    with fails_with(errno.EIO):
        (mount.point / "unreadable").read_bytes()
    pid = mount.record().pid
    last = mount.umount()
    assert gone(pid, 0.5)
    assert (last.sent_files, last.sent_bytes) == (3, 3000)
    assert [row["path"] for row in last.pending] == ["/unsent-1"]
    # The kernel asks again by itself when a read-ahead failed.
    assert {row["path"] for row in last.read_failures} == {"/unreadable"}
    assert os.listdir(mount.point) == []
    assert control.records(mount.state) == []
    with pytest.raises(errors.NotFound):
        mount.umount()


def test_umount_says_who_is_in_the_way(mount: Mount) -> None:
    sleeper = subprocess.Popen(["sleep", "60"], cwd=mount.point)
    try:
        with pytest.raises(errors.InUse, match=rf"in use by sleep \(process {sleeper.pid}\)"):
            mount.umount()
        with open(mount.point / "new", "w") as file:
            file.write("x")
            with pytest.raises(errors.InUse):
                mount.umount()
        assert (mount.point / "hello").read_bytes() == b"hello"
    finally:
        sleeper.kill()
        sleeper.wait()
    last = mount.umount()
    assert (last.sent_files, last.pending) == (3, [])


def test_plain_umount_ends_the_process_and_what_is_left_is_told_later(mount: Mount) -> None:
    with fails_with(errno.EDQUOT):
        (mount.point / "unsent-1").write_bytes(b"x")
    pid = mount.record().pid
    subprocess.run(["umount", mount.point], check=True)
    assert gone(pid, 5)
    record = mount.record()
    assert record.ended
    assert [row["path"] for row in record.pending] == ["/unsent-1"]
    assert [row["path"] for row in mount.umount().pending] == ["/unsent-1"]
    assert control.records(mount.state) == []


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_unmounts(mount: Mount, number: int) -> None:
    pid = mount.record().pid
    os.kill(pid, number)
    assert gone(pid, 5)
    assert mounts.mounted_at(mount.point) is None
    assert control.records(mount.state) == []


def test_a_signal_unmounts_within_the_drain_time_though_somebody_holds_it(mount: Mount) -> None:
    pid = mount.record().pid
    holder = os.open(mount.point / "held", os.O_WRONLY | os.O_CREAT)
    with waiting_process(mount.point / "hang-stat", WAITS["stat"]) as hanging:
        os.kill(pid, signal.SIGTERM)
        assert gone(pid, 8)
        assert hanging.wait(timeout=5) != 0
    with fails_with(errno.ENOTCONN, errno.ECONNABORTED):
        os.close(holder)
    assert mounts.mounted_at(mount.point) is None


def test_hangup_refreshes(mount: Mount) -> None:
    os.kill(mount.record().pid, signal.SIGHUP)
    until = time.monotonic() + 5
    while not (mount.point / "refreshed").exists():
        assert time.monotonic() < until
        time.sleep(0.05)


@pytest.mark.parametrize("words", [["remembers"], ["remembers", "old-kernel"]])
def test_the_kernel_forgets_what_was_refreshed(place: Mount, words: list[str]) -> None:
    assert place.start(*words).returncode == 0
    assert (place.point / "stale").exists()
    request = {"verb": "refresh", "path": "/"}
    assert [*control.ask(place.record(), request)] == [{"done": True}]
    assert not (place.point / "stale").exists()


def test_commands_talk_to_the_mount(mount: Mount) -> None:
    record = mount.record()
    assert control.is_alive(record)
    assert next(control.ask(record, {"verb": "status"}))["status"]["user"] == "ada"
    assert [*control.ask(record, {"verb": "refresh", "path": "/"})] == [{"done": True}]
    assert (mount.point / "refreshed").exists()
    assert "error" in next(control.ask(record, {"verb": "nonsense"}))
    assert Path(record.socket).parent.stat().st_mode & 0o777 == 0o700


def test_foreground(place: Mount) -> None:
    process = subprocess.Popen([sys.executable, FAKE, place.point, place.state, "foreground"])
    until = time.monotonic() + 10
    while mounts.mounted_at(place.point) is None:
        assert time.monotonic() < until
        time.sleep(0.05)
    assert (place.point / "hello").read_bytes() == b"hello"
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=8) == 0
    assert mounts.mounted_at(place.point) is None


def test_the_daemon_lets_go_of_what_the_command_had_open(place: Mount) -> None:
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    done = subprocess.run(
        [sys.executable, FAKE, place.point, place.state], pass_fds=[writing], timeout=30, check=True
    )
    assert done.returncode == 0
    os.close(writing)
    with open(reading, "rb") as pipe:
        assert pipe.read() == b""  # would wait for the mount's end otherwise
