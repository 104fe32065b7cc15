"""A Slurm node with the program installed, and an archive on the loopback."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.clusters.slurm import Cluster
from xnatfs.demo.order import Order
from xnatfs.demo.server import DemoServer, ServerOptions

TOP = Path(__file__).resolve().parents[2]

# A session for each of fifty tasks.
TASKS = Order(sessions=50, scans=1, files=20)

OpenCluster = Callable[..., Cluster]


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A temporary folder that users other than root may enter, unlike those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="xnatfs-cluster.", dir="/var/tmp"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def a_python_for_all() -> str:
    """The system's, if it will do: ours may lie where only root may look."""
    good = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys, ensurepip; sys.exit(sys.version_info < (3, 11))"],
        capture_output=True, check=False,
    )  # fmt: skip
    return sys.executable if good.returncode else "/usr/bin/python3"


@pytest.fixture(scope="session")
def venv() -> Iterator[Path]:
    """The program as users install it, with dcm2niix."""
    with open_to_all() as folder:
        subprocess.run([a_python_for_all(), "-m", "venv", folder], check=True)
        subprocess.run(
            [folder / "bin/pip", "install", "-q", "--disable-pip-version-check", f"{TOP}[demo]"],
            check=True, timeout=300, capture_output=True,
        )  # fmt: skip
        yield folder


@pytest.fixture(scope="module")
def open_a_cluster(fuse: None, venv: Path) -> Iterator[OpenCluster]:
    """Starts Slurm nodes: ``open_a_cluster("Epilog={folder}/epilog.sh", {"epilog.sh": …})``."""
    subprocess.run([TOP / "script/bootstrap-slurm"], check=True, timeout=600)
    made: list[Cluster] = []

    def make(more: str = "", files: Mapping[str, str] | None = None) -> Cluster:
        folder = Path(tempfile.mkdtemp(prefix="xnatfs-slurm.", dir="/var/tmp"))
        made.append(Cluster(folder, venv, more, files))
        return made[-1]

    yield make
    for cluster in made:
        cluster.close()


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """The look-alike with the whole sample, 192 slices, and a session for each of 50 tasks."""
    root = tmp_path_factory.mktemp("archive") / "full"
    running = DemoServer(ServerOptions(root=root, sample="full", order=TASKS))
    running.start()
    yield running
    running.stop()


@pytest.fixture(scope="module")
def cluster(open_a_cluster: OpenCluster, archive: DemoServer) -> Cluster:
    """A node whose user has a login for the archive, the job scripts, and a scratch folder."""
    made = open_a_cluster()
    settle(made, archive)
    return made


def settle(cluster: Cluster, archive: DemoServer) -> None:
    """What a user of the cluster does once."""
    address = archive.url.removeprefix("http://")
    cluster.write(".netrc", f"machine {address} login member password member\n")
    cluster.write(
        ".config/xnatfs/config.toml",
        f'server = "{archive.url}"\ncache_dir = "{cluster.scratch}/xnatfs"\n',
    )
    for script in (TOP / "docs/hpc").iterdir():
        if script.is_file():
            cluster.write(f"hpc/{script.name}", script.read_text())
