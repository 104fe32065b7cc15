"""``docs/hpc/README.md``, done by somebody on a login node who has a clone and nothing else."""

from __future__ import annotations

import shutil

import pytest

from tests.clusters.conftest import TOP, OpenCluster
from tests.clusters.slurm import UID
from tests.core.driver import Rest
from tests.docs.documents import PIP, Session
from tests.mount.desk import HELD, within
from xnatfs.demo.server import DemoServer

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]


def test_a_stranger_gets_from_nothing_to_a_converted_series(
    open_a_cluster: OpenCluster, archive: DemoServer
) -> None:
    cluster = open_a_cluster()
    clone = cluster.home / "xnatfs"
    left = shutil.ignore_patterns(".git", ".venv", ".*_cache", "*.egg-info", "build")
    shutil.copytree(TOP, clone, ignore=left)
    for place in (clone, *clone.rglob("*")):
        shutil.chown(place, UID, UID)
    # What `xnatfs login` asks for on a terminal it finds here.
    address = archive.url.removeprefix("http://")
    cluster.write(".netrc", f"machine {address} login member password member\n")
    stranger = Session(
        cluster.home,
        cluster.variables() | PIP | {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        {"https://xnat.example.edu": archive.url, "/scratch": str(cluster.scratch)},
        cluster.enter(),
        timeout=300,
    )
    assert stranger.follow(TOP / "docs/hpc/README.md", {"slurm"}) == ""
    assert "nothing waits" in cluster.run("xnatfs", "uploads")
    assert within(15, lambda: cluster.processes() == [])
    assert cluster.mounts() == []
    for scan in ("1", "4", "6"):
        assert len(Rest(archive).files(f"{HELD}/scans/{scan}/resources/NIFTI")) >= 2
