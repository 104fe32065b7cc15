"""Several mounts on one store: what one has brought, or is bringing, the others do not fetch."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import HELD, SESSION
from xnatfs.demo.faults import Fault
from xnatfs.demo.order import PROJECT, Order
from xnatfs.demo.server import DemoServer, ServerOptions

DICOM = "scans/4/resources/DICOM/files"


def test_four_mounts_read_one_series_cold_at_once(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path
) -> None:
    whole = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")

    def sent() -> int:
        """Bytes of files since the log was cleared."""
        total = sum(entry.bytes for entry in server.log if "/files" in entry.path)
        return total - sum(entry.bytes for entry in server.log if "format=json" in entry.path)

    alone = open_a_desk(server.url)
    server.clear_log()
    with alone.mounted():
        alone.works(f"cat {DICOM}/* > /dev/null")
    by_one = sent()
    joined = hashlib.md5(b"".join(whole[name] for name in sorted(whole))).hexdigest()
    desks = [open_a_desk(server.url) for _ in range(4)]
    for desk in desks:
        desk.mount("--cache-dir", str(tmp_path / "shared"))
    server.clear_log()
    with ThreadPoolExecutor(4) as pool:
        sums = set(pool.map(lambda desk: desk.works(f"cd {DICOM} && cat * | md5sum"), desks))
    assert sums == {f"{joined}  -\n"}
    assert sent() <= 1.05 * by_one
    for desk in desks:
        assert desk.umount().returncode == 0


def test_two_mounts_read_one_large_file_cold_at_once(open_a_desk: OpenDesk, tmp_path: Path) -> None:
    size = 40 << 20
    order = Order(sessions=1, scans=1, files=1, file_size=size)
    server = DemoServer(ServerOptions(root=tmp_path / "server", sample="small", order=order))
    server.start()
    try:
        path = f"projects/{PROJECT}/subjects/S00001/experiments/S00001_MR"
        path += "/scans/1/resources/DICOM/files/IM000001.dcm"
        desks = [open_a_desk(server.url) for _ in range(2)]
        for desk in desks:
            desk.mount("--cache-dir", str(tmp_path / "shared"))
        server.clear_log()

        def read(number: int) -> str:
            return hashlib.md5((desks[number].point / path).read_bytes()).hexdigest()

        with ThreadPoolExecutor(2) as pool:
            sums = set(pool.map(read, range(2)))
        assert len(sums) == 1
        sent = sum(entry.bytes for entry in server.log)
        assert size <= sent <= 1.05 * size + (1 << 20)
        for desk in desks:
            assert desk.umount().returncode == 0
    finally:
        server.stop()


def test_a_mount_where_nothing_was_read_finds_the_store(
    open_a_desk: OpenDesk, server: DemoServer, tmp_path: Path
) -> None:
    first, second = (open_a_desk(server.url) for _ in range(2))
    options = ("--cache-dir", str(tmp_path / "shared"))
    with first.mounted(*options):
        content = (first.point / SESSION / "resources/QC/files/qc.csv").read_bytes()
    with second.mounted(*options):
        server.clear_log()
        assert (second.point / SESSION / "resources/QC/files/qc.csv").read_bytes() == content
        assert [entry for entry in server.log if entry.path.endswith("qc.csv")] == []


def test_who_waits_for_anothers_stream_waits_as_long_as_it_lasts(
    open_a_desk: OpenDesk, tmp_path: Path
) -> None:
    """Not only for its first megabytes: what it brings is not fetched alone meanwhile."""
    order = Order(sessions=1, scans=1, files=24, file_size=1 << 20)
    server = DemoServer(ServerOptions(root=tmp_path / "ordered", sample="small", order=order))
    server.start()
    try:
        desks = [open_a_desk(server.url) for _ in range(2)]
        for desk in desks:
            desk.mount("--cache-dir", str(tmp_path / "shared"))
        server.faults.add(Fault(kind="slow", path="format=tar", rate=8 << 20))
        server.clear_log()
        folder = f"projects/{PROJECT}/subjects/S00001/experiments/S00001_MR"
        folder += "/scans/1/resources/DICOM/files"
        with ThreadPoolExecutor(2) as pool:
            read = [pool.submit(desk.works, f"cd {desk.point}/{folder} && cat * | wc -c")
                    for desk in desks]  # fmt: skip
        assert [int(each.result()) for each in read] == [24 << 20] * 2
        alone = [entry.path for entry in server.log if "/files/" in entry.path]
        # The first file, before a second one made it a series; perhaps one in each mount.
        assert len(alone) <= 3, alone
        for desk in desks:
            assert desk.umount().returncode == 0
    finally:
        server.stop()
