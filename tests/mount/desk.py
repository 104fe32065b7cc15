"""A user at a machine: a home folder of one's own, a mount point, and the ``xnatfs`` command."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from xnatfs.demo.server import DemoServer
from xnatfs.fuse import mounts

BIN = Path(sys.executable).parent
XNATFS = str(BIN / "xnatfs")
DCM2NIIX = str(BIN / "dcm2niix")

SESSION = "projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"
HELD = "/experiments/XNAT_E00001"
# One file that reads well and fails well: 6 bytes, with a digest.
PLAIN = f"{SESSION}/resources/NAMES/files/plain.txt"

# "At once", on a machine that does other things too; what would be waited for takes 60 s.
AT_ONCE_S = 5.0


@dataclass
class Desk:
    """Where one user works.

    ``variables`` are those of the environment of every command; ``expected`` are texts of
    warnings that a test provokes: any other warning in the mounts' logs fails it.
    """

    folder: Path
    url: str
    user: str = "admin"
    variables: dict[str, str] = field(default_factory=dict)
    expected: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in ("home", "run", "xnat"):
            (self.folder / name).mkdir(parents=True, mode=0o700)
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("XNAT", "XDG_")) and name != "NETRC"
        }
        self.variables = (
            kept
            | {
                "HOME": str(self.folder / "home"),
                "XDG_CACHE_HOME": str(self.folder / "cache"),
                "XDG_STATE_HOME": str(self.folder / "state"),
                "XDG_CONFIG_HOME": str(self.folder / "config"),
                "XDG_RUNTIME_DIR": str(self.folder / "run"),
                "XNAT_USER": self.user,
                "XNAT_PASS": self.user,
                "LC_ALL": "C.UTF-8",
            }
            | self.variables
        )

    @property
    def point(self) -> Path:
        return self.folder / "xnat"

    @property
    def session(self) -> Path:
        return self.point / SESSION

    @property
    def state(self) -> Path:
        return self.folder / "state" / "xnatfs"

    def xnatfs(
        self, *words: str | Path, timeout: float = 90, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end."""
        return subprocess.run(
            [XNATFS, *map(str, words)],
            env=self.variables | variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def mount(self, *options: str, **variables: str) -> None:
        """Mount; it must work and say nothing."""
        done = self.xnatfs("mount", self.url, self.point, *options, **variables)
        assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

    def umount(self, *options: str) -> subprocess.CompletedProcess[str]:
        return self.xnatfs("umount", self.point, *options)

    @contextmanager
    def mounted(self, *options: str) -> Iterator[Path]:
        """A mount that ends well."""
        self.mount(*options)
        yield self.point
        done = self.umount()
        assert (done.returncode, done.stderr) == (0, "")

    def shell(self, script: str, *words: str | Path) -> subprocess.CompletedProcess[str]:
        """Run a shell script in the mounted session; ``$1`` and on are the words.

        The folder is entered by the script: a ``cwd`` of subprocess is entered while the test
        holds the interpreter, which the server in this process needs to answer.
        """
        return subprocess.run(
            ["bash", "-c", f"cd {self.session} || exit 99\n{script}", "sh", *map(str, words)],
            env=self.variables,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=90,
            check=False,
        )

    def run(
        self, *words: str | Path, stdin: str = "", **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """``xnatfs run``, in the session; the words are its options and the command."""
        return subprocess.run(
            [XNATFS, "run", "-s", self.url, "--cd", f"/{SESSION}", *map(str, words)],
            env=self.variables | variables,
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=90,
            check=False,
        )

    def works(self, script: str, *words: str | Path) -> str:
        """As ``shell``; it must succeed without a word of complaint. Returns its output."""
        done = self.shell(script, *words)
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def status(self) -> dict[str, object]:
        (row,) = json.loads(self.xnatfs("status", self.point, "--json").stdout)["mounts"]
        found: dict[str, object] = row
        return found

    def pid(self) -> int:
        """The process of the newest mount."""
        records = sorted((self.state / "mounts").glob("*.json"), key=os.path.getmtime)
        return int(json.loads(records[-1].read_text())["pid"])

    def log(self) -> str:
        return "".join(path.read_text() for path in self.state.glob("logs/*.log"))

    def close(self) -> None:
        """Nothing of it stays, whatever the test did; then the log is judged."""
        pids = [
            int(json.loads(path.read_text())["pid"])
            for path in self.state.glob("mounts/*.json")
            if not json.loads(path.read_text())["ended"]
        ]
        while mounts.mounted_at(self.point.resolve()) is not None:
            mounts.unmount(self.point.resolve(), lazy=True)
        for pid in pids:
            if _is_xnatfs(pid) and not gone(pid, 10):
                os.kill(pid, signal.SIGKILL)
                raise AssertionError(f"the mount's process {pid} stays")

    def unexpected(self) -> list[str]:
        """Warnings in the log that nobody expects."""
        return [
            line
            for line in self.log().splitlines()
            if (" WARNING " in line or " ERROR " in line)
            and not any(text in line for text in self.expected)
        ]


def _is_xnatfs(pid: int) -> bool:
    try:
        return b"xnatfs" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def gone(pid: int, seconds: float) -> bool:
    """Whether a process ends within so many seconds."""
    return within(seconds, lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def within(seconds: float, happens: Callable[[], bool]) -> bool:
    """Whether something happens within so many seconds."""
    until = time.monotonic() + seconds
    while not happens():
        if time.monotonic() > until:
            return False
        time.sleep(0.05)
    return True


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def asked(server: DemoServer, verb: str, part: str = "") -> list[str]:
    """Addresses of the requests of one verb whose address has this part."""
    return [entry.path for entry in server.log if entry.verb == verb and part in entry.path]


@contextmanager
def process(*words: str | Path, env: dict[str, str] | None = None) -> Iterator[subprocess.Popen]:
    """A process that is ended at the end, if it has not ended by then."""
    with subprocess.Popen(
        [*map(str, words)],
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                running.kill()
