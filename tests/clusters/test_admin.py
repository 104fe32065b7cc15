"""What ``docs/hpc/admin`` advises the administrators of a cluster, done on a cluster."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.clusters.conftest import OpenCluster, settle
from tests.clusters.slurm import CGROUPS_HERE, NO_CONTAINER, Cluster
from tests.mount.desk import SESSION, within
from xnatfs.demo.server import DemoServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

ADVICE = Path(__file__).resolve().parents[2] / "docs/hpc/admin"

jobs_end_whole = pytest.mark.skipif(
    not CGROUPS_HERE, reason="no cgroups of version 1: Slurm leaves processes of jobs behind"
)

# As somebody who has not read that jobs unmount what they mount.
CARELESS = f"""\
#!/bin/bash
mkdir -p "$HOME/with blank/xnat"
xnatfs mount "$HOME/with blank/xnat" || exit
ls "$HOME/with blank/xnat/{SESSION}/scans"
"""


def careless(cluster: Cluster) -> str:
    cluster.write("careless.sh", CARELESS)
    job = cluster.finished(cluster.submit("careless.sh"))
    assert job.state == "COMPLETED"
    assert job.output.split()[-5:] == ["1", "1-MR1", "4", "5_b", "6"]
    return job.output


@jobs_end_whole
def test_without_advice_a_careless_job_leaves_a_dead_mount(
    open_a_cluster: OpenCluster, archive: DemoServer
) -> None:
    """Else the tests below could not fail."""
    cluster = open_a_cluster()
    settle(cluster, archive)
    careless(cluster)
    assert within(15, lambda: cluster.processes() == [])
    assert len(cluster.mounts()) == 1
    assert "not connected" in cluster.run("ls", cluster.home / "with blank/xnat", status=2)
    assert "its process is gone; cleaned up" in careless(cluster)


@jobs_end_whole
def test_the_epilog_takes_dead_mounts_away_and_leaves_live_ones(
    open_a_cluster: OpenCluster, archive: DemoServer
) -> None:
    cluster = open_a_cluster(
        "Epilog={folder}/epilog.sh", {"epilog.sh": (ADVICE / "epilog.sh").read_text()}
    )
    settle(cluster, archive)
    cluster.run("mkdir", "xnat")
    cluster.write("other.sh", "#!/bin/bash\nxnatfs mount xnat && touch up && sleep 100")
    other = cluster.submit("other.sh")
    assert within(30, (cluster.home / "up").exists)
    careless(cluster)
    assert within(15, lambda: len(cluster.mounts()) == 1), cluster.mounts()
    assert "PVT000" in cluster.run("ls", "xnat/projects")
    cluster.run("scancel", other)
    cluster.finished(other)
    assert within(15, lambda: cluster.mounts() == [])
    assert cluster.run("sinfo", "-h", "-o", "%t").strip() == "idle"


@jobs_end_whole
def test_job_container_takes_every_mount_away(
    open_a_cluster: OpenCluster, archive: DemoServer
) -> None:
    text = (ADVICE / "job_container.conf").read_text()
    for attempt in range(10):
        cluster = open_a_cluster(
            "JobContainerType=job_container/tmpfs\nPrologFlags=Contain",
            {"job_container.conf": text.replace("/var/spool/slurm-jobs", "{folder}/jobs")},
        )
        settle(cluster, archive)
        # `run` works inside one, too.
        cluster.write("job.sh", f"{CARELESS}\nxnatfs run --cd /{SESSION}/scans -- ls\n")
        try:
            job = cluster.finished(cluster.submit("job.sh"))
            break
        except AssertionError:
            # Slurm 22.05 does not always wait for the namespace that it is about to name.
            if attempt == 9 or NO_CONTAINER not in cluster.log():
                raise
    assert job.output.split() == 2 * ["1", "1-MR1", "4", "5_b", "6"]
    assert within(15, lambda: cluster.processes() == [])
    assert cluster.mounts() == []


def test_settings_and_module_of_the_site(open_a_cluster: OpenCluster, archive: DemoServer) -> None:
    settings = (ADVICE / "xnatfs.toml").read_text()
    module = (ADVICE / "modulefile").read_text()
    cluster = open_a_cluster(
        "",
        {
            "etc/xnatfs.toml": settings.replace("https://xnat.example.edu", archive.url),
            "modules/xnatfs/1.0": module,
        },
    )
    settle(cluster, archive)
    (cluster.home / ".config/xnatfs/config.toml").unlink()
    place = cluster.folder / "modules/xnatfs/1.0"
    place.write_text(
        module.replace("/opt/xnatfs", str(cluster.venv)).replace("/scratch", str(cluster.scratch))
    )
    cluster.write(
        "job.sh",
        f"""#!/bin/bash
. /usr/share/modules/init/bash
module use {cluster.folder}/modules
module load xnatfs
module list 2>&1
exec xnatfs run --connections 64 --cd /{SESSION}/scans -- sh -c 'ls; echo $XNATFS_CACHE_DIR'
""",
    )
    job = cluster.finished(cluster.submit("job.sh", PATH="/usr/sbin:/usr/bin:/sbin:/bin"))
    assert (job.state, job.status) == ("COMPLETED", 0), job.output
    assert "xnatfs/1.0" in job.output
    assert "1-MR1" in job.output
    assert f"{cluster.scratch}/researcher/xnatfs" in job.output
    assert "connections" in job.output  # the warning that 64 became 4
    assert (cluster.scratch / "researcher/xnatfs").is_dir()
