"""A job array on one store: the server is asked for listings once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.mount.desk import SESSION, Desk
from xnatfs.demo.server import DemoServer

MANY = [pytest.param(6), pytest.param(50, marks=pytest.mark.long)]


@pytest.mark.parametrize("tasks", MANY)
def test_tasks_of_an_array_ask_for_listings_once(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path, tasks: int
) -> None:
    options = ("--cache-dir", str(tmp_path / "shared"), "--metadata-ttl", "20m")
    alone = open_a_desk(server.url)

    def listings() -> int:
        return sum("format=json" in entry.path for entry in server.log)

    def work(desk: Desk) -> str:
        with desk.mounted(*options):
            desk.works("ls -lR scans/4 resources > /dev/null")
            return desk.works("cat resources/QC/files/qc.csv")

    server.clear_log()
    with alone.mounted("--cache-dir", str(tmp_path / "alone")):
        alone.works("ls -lR scans/4 resources > /dev/null; cat resources/QC/files/qc.csv")
    of_one = listings()
    server.clear_log()
    desks = [open_a_desk(server.url) for _ in range(tasks)]
    with ThreadPoolExecutor(min(tasks, 8)) as pool:
        assert len(set(pool.map(work, desks))) == 1
    assert of_one <= listings() <= 1.05 * of_one
    assert (desks[0].point / SESSION).exists() is False
