"""The job scripts of ``docs/hpc`` in a Slurm of one node, as its user; how jobs can end."""

from __future__ import annotations

import io
import shutil
import zipfile
from collections.abc import Callable, Iterator

import pytest

from tests.clusters.slurm import Cluster, Job
from tests.core.driver import Rest
from tests.mount.desk import HELD, SESSION, within
from xnatfs.demo.server import DemoServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

SCAN = f"/{SESSION}/scans/4"
SLICE = 256 * 256 * 2


@pytest.fixture
def rest(archive: DemoServer) -> Rest:
    archive.clear_log()
    return Rest(archive)


@pytest.fixture(autouse=True)
def nothing_is_left(cluster: Cluster) -> Iterator[None]:
    """After each job: no mount, dead or alive, no process, nothing unsent."""
    yield
    assert within(15, lambda: cluster.processes() == [])
    assert cluster.mounts() == []
    assert "nothing waits" in cluster.run("xnatfs", "uploads")


def well(job: Job) -> str:
    assert (job.state, job.status, job.signal) == ("COMPLETED", 0, 0), job.output
    return job.output


def nifti(rest: Rest, address: str) -> dict[str, bytes]:
    return rest.files(f"{address}/resources/NIFTI")


def converted(files: dict[str, bytes], slices: int) -> bool:
    """One volume of so many slices, and what belongs to it."""
    (image,) = [content for name, content in files.items() if name.endswith(".nii")]
    return len(files) == 2 and len(image) == 352 + SLICE * slices


def test_a_series_is_converted(cluster: Cluster, rest: Rest) -> None:
    job = cluster.submit("convert.sbatch", SCAN, cwd="hpc")
    assert "Convert 192 DICOM" in well(cluster.finished(job))
    assert converted(nifti(rest, f"{HELD}/scans/4"), 192)
    # Again: the results are this user's own, and may be replaced.
    first = nifti(rest, f"{HELD}/scans/4")
    well(cluster.finished(cluster.submit("convert.sbatch", SCAN, cwd="hpc")))
    assert nifti(rest, f"{HELD}/scans/4").keys() == first.keys()


def test_an_array_shares_one_store(cluster: Cluster, rest: Rest) -> None:
    """Four tasks at a time; what they downloaded is there for the next array."""
    scans = [f"/{SESSION}/scans/{number}" for number in (41, 42, 43, 44)]
    plant_series(rest, scans)
    cluster.run("xnatfs", "refresh", "/projects/PVT000")  # the jobs before know it without them
    found = cluster.run("xnatfs", "find", "PVT000", "--type", "Planted", "--missing", "NIFTI")
    assert sorted(found.split()) == scans
    cluster.write("hpc/scans.txt", found)
    jobs = cluster.submit("--array=1-4", "array.sbatch", "scans.txt", cwd="hpc")
    for task in range(1, 5):
        assert "Convert 8 DICOM" in well(cluster.finished(f"{jobs}_{task}"))
    for scan in scans:
        assert converted(nifti(rest, scan), 8)
    assert cluster.run("xnatfs", "find", "PVT000", "--type", "Planted", "--missing", "NIFTI") == ""
    assert sum(downloads(rest.server)) > 4 * 8 * SLICE
    rest.server.clear_log()
    jobs = cluster.submit("--array=1-4", "array.sbatch", "scans.txt", cwd="hpc")
    for task in range(1, 5):
        well(cluster.finished(f"{jobs}_{task}"))
    assert downloads(rest.server) == []


def downloads(server: DemoServer) -> list[int]:
    """Bytes of the replies that carried slices."""
    return [entry.bytes for entry in server.log if entry.bytes >= SLICE]


def plant_series(rest: Rest, scans: list[str]) -> None:
    """Series of eight slices each."""
    slices = rest.files(f"{HELD}/scans/4/resources/DICOM")
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name in sorted(slices)[92:100]:
            archive.writestr(name, slices[name])
    for scan in scans:
        rest.ask("PUT", f"/data{scan}?xsiType=xnat:mrScanData&type=Planted&quality=usable", b"")
        rest.ask("PUT", f"/data{scan}/resources/DICOM?format=DICOM&content=RAW", b"")
        rest.ask("PUT", f"/data{scan}/resources/DICOM/files/s.zip?extract=true&inbody=true",
                 packed.getvalue())  # fmt: skip


def test_a_chain_for_nodes_without_a_network(cluster: Cluster, rest: Rest) -> None:
    """Each part waits for the one before; nothing is asked of the server in the middle."""
    scan = f"/{SESSION}/scans/45"
    plant_series(rest, [scan])
    cluster.run("xnatfs", "refresh", "/projects/PVT000")
    fetch = cluster.submit("--hold", "stage-in.sbatch", scan, cwd="hpc")
    convert = cluster.submit("--hold", f"--dependency=afterok:{fetch}", "offline.sbatch", scan,
                             cwd="hpc")  # fmt: skip
    send = cluster.submit(f"--dependency=afterok:{convert}", "stage-out.sbatch", cwd="hpc")
    cluster.run("scontrol", "release", fetch)
    well(cluster.finished(fetch))
    rest.server.clear_log()
    # The second one is still held by hand, the third by what it depends on.
    assert cluster.run("squeue", "-h", "-o", "%i %r", "-S", "i").split("\n")[:2] == [
        f"{convert} JobHeldUser", f"{send} Dependency",
    ]  # fmt: skip
    cluster.run("scontrol", "hold", send)
    cluster.run("scontrol", "release", convert)
    assert "Convert 8 DICOM" in well(cluster.finished(convert))
    assert rest.server.log == []
    cluster.run("scontrol", "release", send)
    well(cluster.finished(send))
    assert converted(nifti(rest, scan), 8)


# -- ways to end

HOLDING = """\
echo one >"RESULTS/files/{name}-one"
echo two >"RESULTS/files/{name}-two"
exec 9>"RESULTS/files/{name}-open"
echo half >&9
touch {mark}
sleep 300
"""


def scancel(*words: str) -> Callable[[Cluster, str], None]:
    return lambda cluster, job: cluster.run("scancel", *words, job)


def nothing(cluster: Cluster, job: str) -> None:
    """The time limit does it."""


ENDS = {
    "scancel": scancel(),
    "scancel-full": scancel("--full"),
    "killed": scancel("--full", "--signal=KILL"),
    "time-limit": nothing,
}


@pytest.mark.parametrize("end", ENDS)
def test_whatever_ends_a_job_nothing_is_lost(cluster: Cluster, rest: Rest, end: str) -> None:
    """No stale mount, no process that stays (see above), and closed files are safe.

    Of two jobs at once: in one Slurm's signals reach ``run`` alone, in the other a shell above it.
    """
    cluster.run("xnatfs", "run", "--cd", f"/{SESSION}/resources", "--", "mkdir", "-p", "RESULTS")
    scripts = {f"{end}-exec": "exec xnatfs run", f"{end}-child": "xnatfs run"}
    jobs = {name: submit_one_that_holds(cluster, name, run) for name, run in scripts.items()}
    for job in jobs.values():
        ENDS[end](cluster, job)
    for job in jobs.values():
        assert cluster.finished(job, 200).state in ("CANCELLED", "TIMEOUT", "FAILED")
    assert within(15, lambda: cluster.processes() == [])
    cluster.run("sh", "-c", "xnatfs uploads send || [ $? -eq 75 ]")
    for name in jobs:
        nothing_is_lost(cluster, rest, name)


def submit_one_that_holds(cluster: Cluster, name: str, run: str) -> str:
    """A job that has written and closed, is still writing, and will not end by itself."""
    mark = cluster.scratch / name
    hold = cluster.write(f"{name}-hold.sh", HOLDING.format(name=name, mark=mark))
    cluster.write(f"{name}.sh", f"#!/bin/bash\n{run} --cd /{SESSION}/resources -- bash {hold}\n")
    job = cluster.submit("--time=1", f"{name}.sh")
    assert within(30, mark.exists)
    return job


def nothing_is_lost(cluster: Cluster, rest: Rest, name: str) -> None:
    """What a job had closed is on the server; what was open is there, or can be exported."""
    there = rest.files(f"{HELD}/resources/RESULTS")
    assert there[f"{name}-one"] == b"one\n"
    assert there[f"{name}-two"] == b"two\n"
    # What was still open is sent if its program was told to end, else kept for a person to judge.
    if there.get(f"{name}-open") != b"half\n":
        rescue = cluster.scratch / f"rescue-{name}"
        cluster.run("xnatfs", "uploads", "export", rescue)
        assert [path.read_bytes() for path in rescue.rglob(f"{name}-open")] == [b"half\n"]
        shutil.rmtree(rescue)
        (upload,) = {
            word
            for word in cluster.run("xnatfs", "uploads").split()
            if name in word and "/" not in word
        }
        cluster.run("xnatfs", "uploads", "drop", upload)
