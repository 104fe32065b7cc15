"""What the server sees of fifty tasks that start at once: the figures of docs/hpc/README.md."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from tests.clusters.slurm import Cluster
from xnatfs.demo.server import DemoServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(600)]

TASK = """\
#!/bin/bash
set -eu
session=S$(printf %05d "$SLURM_ARRAY_TASK_ID")
exec xnatfs run --cd "/projects/ORDER000/subjects/$session/experiments/${session}_MR/scans" -- \
    sh -euc '
        cd 1/resources
        cat DICOM/files/* | wc -c
        mkdir COUNT
        ls DICOM/files | wc -l >COUNT/files/count.txt'
"""


def test_what_the_server_sees_of_fifty_tasks(cluster: Cluster, archive: DemoServer) -> None:
    cluster.write("task.sh", TASK)
    archive.clear_log()
    jobs = cluster.submit("--array=1-50", "--mem=500M", "task.sh")
    done = [cluster.finished(f"{jobs}_{number}", 400) for number in range(1, 51)]
    assert [job.state for job in done] == ["COMPLETED"] * 50, done
    assert {job.output.strip() for job in done} == {str(20 * 128 * 1024)}
    kinds = Counter(f"{entry.verb} {kind(entry.path)} {entry.status}" for entry in archive.log)
    print(*sorted(f"{count:5} {name}" for name, count in kinds.items()), sep="\n")
    # Of which a task's own business: its 20 files, its listings, one folder and one file made.
    assert len(archive.log) <= 50 * 14
    # What all ask for is asked once or a few times: who is asked, by how many, is not known.
    for path in ("projects", "projects/ORDER000/subjects", "projects/ORDER000/experiments"):
        assert kinds[f"GET /data/{path} 200"] <= 10
    # No login was refused, and all fifty share a few server sessions.
    assert not any(entry.status == 401 for entry in archive.log)
    sessions = archive.site.sessions._live.values()
    assert sum(session.user == "member" for session in sessions) <= 5


def kind(path: str) -> str:
    """An address without what is particular to it."""
    return re.sub(r"(?<=/)(S\d{5}(_MR)?|XNAT_[ES]\d+|\d+)(?=/|$)", "N", path.partition("?")[0])
