"""A Slurm of one node, with one ordinary user on it, in namespaces of its own.

Daemons, jobs and mounts live in a mount and a pid namespace: they end with it, whatever a test
did, and what a job leaves behind is what is seen there. The node's /dev/fuse has udev's mode.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

USER = "researcher"
UID = 4242

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={node}(127.0.0.1)
SlurmctldPort={ports[0]}
SlurmdPort={ports[1]}
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
CredType=cred/munge
SlurmUser=root
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd.log
ProctrackType=proctrack/{proctrack}
TaskPlugin=task/{task}
SchedulerParameters=sched_interval=1,batch_sched_delay=1
SelectType=select/cons_tres
SelectTypeParameters=CR_Core_Memory
ReturnToService=2
KillWait=5
MpiDefault=none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SlurmdParameters=config_overrides
NodeName={node} NodeAddr=127.0.0.1 CPUs=50 RealMemory=60000 State=UNKNOWN
PartitionName=debug Nodes={node} Default=YES MaxTime=INFINITE State=UP DefMemPerCPU=1000
{more}
"""

# With them a job's end is the end of all its processes, as on clusters. Slurm's support for
# version 2 would need systemd.
CGROUPS_HERE = Path("/sys/fs/cgroup/freezer").is_dir()

CGROUPS = """\
CgroupPlugin=cgroup/v1
CgroupAutomount=no
CgroupMountpoint=/sys/fs/cgroup
ConstrainRAMSpace=yes
"""

# $1: the folder. No job container could replace a /dev/shm with mounts below it. The last line
# makes the shell what an init is: it waits for whatever ends.
NODE = """
cd "$1"
mount --make-rprivate /
[ -e /sys/devices ] || mount -t sysfs sysfs /sys
mount -t overlay overlay -o "lowerdir=/etc,upperdir=$1/etc,workdir=$1/work" /etc
mknod -m 666 fuse c 10 229
mount --bind fuse /dev/fuse
mount -t tmpfs shm /dev/shm
munged --force --key-file="$1/munge.key" --socket="$1/munge.socket" --pid-file="$1/munge.pid" \
    --seed-file="$1/munge.seed" --log-file="$1/munge.log" --num-threads=2
export SLURM_CONF="$1/slurm.conf"
slurmctld
slurmd
echo up
while :; do sleep 1 & wait; done
"""


@dataclass(frozen=True)
class Job:
    """What became of a job: Slurm's word for it, and the status or the signal that ended it."""

    state: str
    status: int
    signal: int
    output: str


class Cluster:
    """The node, up until ``close``.

    Args:
        folder: where it keeps everything; gone with it.
        venv: what its user has in PATH.
        more: further lines of slurm.conf; ``{folder}``, here and in files, is the folder.
        files: further files, by their path below ``folder``; those in ``etc`` show in /etc.
    """

    def __init__(
        self, folder: Path, venv: Path, more: str = "", files: Mapping[str, str] | None = None
    ) -> None:
        folder.chmod(0o755)
        self.folder = folder
        self.venv = venv
        self.home = folder / "home"
        self.scratch = folder / "scratch"
        for place in (self.home, self.scratch):
            place.mkdir()
            os.chown(place, UID, UID)
        for name in ("etc", "work", "state", "spool"):
            (folder / name).mkdir()
        for name, text in (files or {}).items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_text(text.replace("{folder}", str(folder)))
            (folder / name).chmod(0o755)
        self._write_files(more)
        self._daemons = subprocess.Popen(
            ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc",
             "sh", "-euc", NODE, "node", folder],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self._daemons.stdout is not None
        if self._daemons.stdout.readline() != "up\n":
            raise AssertionError(f"the daemons did not start\n{self.log()}")
        children = Path(f"/proc/{self._daemons.pid}/task/{self._daemons.pid}/children")
        self.init = int(children.read_text())
        self._wait_for(lambda: self.run("sinfo", "-h", "-o", "%t").strip() == "idle", 30)

    def _write_files(self, more: str) -> None:
        passwd = Path("/etc/passwd").read_text()
        group = Path("/etc/group").read_text()
        (self.folder / "etc/passwd").write_text(
            f"{passwd}{USER}:x:{UID}:{UID}::{self.home}:/bin/bash\n"
        )
        (self.folder / "etc/group").write_text(f"{group}{USER}:x:{UID}:\n")
        (self.folder / "munge.key").write_bytes(os.urandom(128))
        (self.folder / "munge.key").chmod(0o600)
        with socket.socket() as one, socket.socket() as two:
            one.bind(("127.0.0.1", 0))
            two.bind(("127.0.0.1", 0))
            ports = one.getsockname()[1], two.getsockname()[1]
        node = socket.gethostname().partition(".")[0]
        (self.folder / "slurm.conf").write_text(
            CONFIGURATION.format(
                node=node, ports=ports, folder=self.folder,
                more=more.replace("{folder}", str(self.folder)),
                proctrack="cgroup" if CGROUPS_HERE else "linuxproc",
                task="cgroup" if CGROUPS_HERE else "none",
            )
        )  # fmt: skip
        (self.folder / "cgroup.conf").write_text(CGROUPS)

    def run(
        self, *command: str | Path, status: int = 0, cwd: str = "", group: Path | None = None,
        **variables: str,
    ) -> str:  # fmt: skip
        """A command of the user on the node, in a folder of their home; both streams.

        ``group`` is the cgroup that it runs in.
        """
        settings = self.variables() | variables
        joined = ["sh", "-c", f'echo $$ >{group}/cgroup.procs; exec "$@"', "sh"] if group else []
        done = subprocess.run(
            [*joined, *self.enter(cwd), "env", "-i", *(f"{k}={v}" for k, v in settings.items()),
             *map(str, command)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, timeout=200, check=False,
        )  # fmt: skip
        assert done.returncode == status, f"{command}: {done.returncode}\n{done.stdout}"
        return done.stdout

    def enter(self, cwd: str = "") -> list[str]:
        """The words that make a command one of the user on the node."""
        return [
            "nsenter", "--target", str(self.init), "--mount", "--pid", "--root",
            "setpriv", "--reuid", str(UID), "--regid", str(UID), "--clear-groups",
            "env", "--chdir", str(self.home / cwd),
        ]  # fmt: skip

    def write(self, name: str, text: str) -> Path:
        """A file in the user's home, readable by nobody else."""
        place = self.home / name
        self.run("mkdir", "-p", place.parent)
        place.touch(mode=0o600)
        place.write_text(text)
        os.chown(place, UID, UID)
        return place

    def variables(self) -> dict[str, str]:
        return {
            "HOME": str(self.home),
            "USER": USER,
            "PATH": f"{self.venv}/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            "LC_ALL": "C.UTF-8",
            "SLURM_CONF": f"{self.folder}/slurm.conf",
        }

    def submit(self, *words: str | Path, cwd: str = "", **variables: str) -> str:
        """``sbatch``; the job's number."""
        return self.run("sbatch", "--parsable", *words, cwd=cwd, **variables).strip()

    def finished(self, job: str, seconds: float = 90) -> Job:
        """Wait until a job has ended, and everything of it."""

        def has_ended() -> bool:
            assert NO_CONTAINER not in self.log(), self.log()
            return self._fields(job)["JobState"] not in RUNNING

        self._wait_for(has_ended, seconds)
        fields = self._fields(job)
        status, _, number = fields["ExitCode"].partition(":")
        output = Path(fields["StdOut"])
        return Job(
            fields["JobState"], int(status), int(number),
            output.read_text() if output.exists() else "",
        )  # fmt: skip

    def _fields(self, job: str) -> dict[str, str]:
        return dict(re.findall(r"(\w+)=(\S*)", self.run("scontrol", "show", "job", "-o", job)))

    def _wait_for(self, happens: Callable[[], bool], seconds: float) -> None:
        until = time.monotonic() + seconds
        while not happens():
            assert time.monotonic() < until, self.log()
            time.sleep(0.2)

    def log(self) -> str:
        return "".join(
            f"== {name}\n{(self.folder / name).read_text()[-4000:]}\n"
            for name in ("munge.log", "slurmctld.log", "slurmd.log")
            if (self.folder / name).exists()
        )

    def mounts(self) -> list[str]:
        """What of the user's is mounted on the node, alive or stale."""
        lines = Path(f"/proc/{self.init}/mounts").read_text().splitlines()
        return [
            line for line in lines
            if line.split()[2] == "fuse.xnatfs" and f"user_id={UID}" in line
        ]  # fmt: skip

    def processes(self) -> list[str]:
        """Command lines of the user's processes on the node."""
        return [
            " ".join(line.split()) for line in self.run_as_root(
                "ps", "-o", "stat=,args=", "-u", str(UID), status=None
            ).splitlines() if line.split()[0][0] not in "ZX"
        ]  # fmt: skip

    def run_as_root(self, *command: str, status: int | None = 0) -> str:
        done = subprocess.run(
            ["nsenter", "--target", str(self.init), "--mount", "--pid", "--root", *command],
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert status in (None, done.returncode), done.stderr
        return done.stdout

    def close(self) -> None:
        os.kill(self.init, signal.SIGKILL)
        self._daemons.wait(20)
        assert self._daemons.stdout is not None
        self._daemons.stdout.close()
        for group in Path("/sys/fs/cgroup").glob("*/slurm_*"):
            for place in sorted(group.rglob("*/"), reverse=True):
                with suppress(OSError):  # another Slurm's
                    place.rmdir()
            with suppress(OSError):
                group.rmdir()
        shutil.rmtree(self.folder)


# Slurm could not give a job the container that it was to have; the job waits for a person then.
NO_CONTAINER = "container_g_stepd_create"

RUNNING = {"PENDING", "CONFIGURING", "RUNNING", "COMPLETING", "SUSPENDED"}
