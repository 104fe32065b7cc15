"""The PBS scripts of ``docs/hpc``: their bodies, under PBS's variables and in 1 GB of memory.

There is no PBS for Debian: a shell plays ``qsub``, the kernel's memory cgroup its limit.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clusters.slurm import Cluster
from tests.clusters.test_jobs import SCAN, converted, nifti, plant_series
from tests.core.driver import Rest
from tests.mount.desk import HELD, SESSION
from xnatfs.demo.server import DemoServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

GROUPS = Path("/sys/fs/cgroup/memory")


class Pbs:
    """Jobs of one memory limit, one after the other."""

    def __init__(self, cluster: Cluster, group: Path) -> None:
        self.cluster = cluster
        self.group = group
        (group / "memory.limit_in_bytes").write_text(str(1 << 30))

    def qsub(self, script: str, folder: str = "hpc", **variables: str) -> str:
        """Run a job to its end, which must be good; its output."""
        place = self.cluster.home / folder
        settings = {
            "PBS_O_WORKDIR": str(place), "PBS_JOBID": "4711.server", "PBS_JOBNAME": "convert",
            "PBS_ENVIRONMENT": "PBS_BATCH", "TMPDIR": str(self.cluster.scratch), "NCPUS": "1",
        }  # fmt: skip
        # PBS copies the script and starts it in the home folder.
        said = self.cluster.run("bash", "-c", (place / script).read_text(),
                                group=self.group, **settings | variables)  # fmt: skip
        # Killed for its memory is what must not happen; that it was near is no failure.
        assert "oom_kill 0" in (self.group / "memory.oom_control").read_text()
        return said


@pytest.fixture
def pbs(cluster: Cluster) -> Iterator[Pbs]:
    if not GROUPS.is_dir():
        pytest.skip("no memory cgroup of version 1 here")
    group = GROUPS / f"xnatfs-{os.getpid()}"
    group.mkdir()
    yield Pbs(cluster, group)
    assert cluster.processes() == []
    group.rmdir()


def test_a_series_is_converted(pbs: Pbs, archive: DemoServer) -> None:
    assert "Convert 192 DICOM" in pbs.qsub("convert.pbs", scan=SCAN)
    assert converted(nifti(Rest(archive), f"{HELD}/scans/4"), 192)
    limit = (pbs.group / "memory.limit_in_bytes").read_text()
    assert int(limit) == 1 << 30


def test_an_array(pbs: Pbs, archive: DemoServer) -> None:
    rest = Rest(archive)
    scans = [f"/{SESSION}/scans/{number}" for number in (51, 52)]
    plant_series(rest, scans)
    pbs.cluster.write("hpc/scans.txt", "".join(f"{scan}\n" for scan in scans))
    pbs.cluster.run("xnatfs", "refresh", "/projects/PVT000")
    for index in ("1", "2"):
        pbs.qsub("array.pbs", PBS_ARRAY_INDEX=index, PBS_JOBID="4712[].server", list="scans.txt")
    for scan in scans:
        assert converted(nifti(rest, scan), 8)


def test_a_chain_for_nodes_without_a_network(pbs: Pbs, archive: DemoServer) -> None:
    rest = Rest(archive)
    scan = f"/{SESSION}/scans/53"
    plant_series(rest, [scan])
    pbs.cluster.run("xnatfs", "refresh", "/projects/PVT000")
    pbs.qsub("stage-in.pbs", scan=scan)
    archive.clear_log()
    assert "Convert 8 DICOM" in pbs.qsub("offline.pbs", scan=scan)
    assert archive.log == []
    pbs.qsub("stage-out.pbs")
    assert converted(nifti(rest, scan), 8)


def test_more_data_than_memory(pbs: Pbs, archive: DemoServer) -> None:
    """1.5 GB from the archive and back: what is held grows with neither."""
    rest = Rest(archive)
    rest.ask("PUT", f"/data{HELD}/resources/LARGE", b"")
    large = pbs.cluster.scratch / "large"
    run = f"exec xnatfs run --cd /{SESSION}/resources/LARGE/files --"
    pbs.cluster.write(
        "hpc/out.pbs", f"head -c 1536M /dev/urandom >{large}\n{run} cp {large} large.bin\n"
    )
    pbs.cluster.write("hpc/in.pbs", f"{run} cmp {large} large.bin\n")
    pbs.qsub("out.pbs")
    archive.clear_log()
    pbs.qsub("in.pbs", XNATFS_CACHE_DIR=str(pbs.cluster.scratch / "empty-cache"))
    assert sum(entry.bytes for entry in archive.log) > 1536 << 20
