"""The archive through fsspec, as Python code and its libraries use it."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import subprocess
import sys
import textwrap
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import fsspec
import nibabel
import numpy as np
import pandas as pd
import pydicom
import pytest

from tests.mount.desk import PLAIN, SESSION, asked
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer
from xnatfs.fsspec import XnatFileSystem
from xnatfs.fsspec.connections import connections

DICOM = f"{SESSION}/scans/4/resources/DICOM/files"


@pytest.fixture
def fs(site: DemoServer) -> Iterator[XnatFileSystem]:
    site.clear_log()
    yield fsspec.filesystem("xnat", skip_instance_cache=True)
    site.faults.clear()


@pytest.fixture
def folder(fs: XnatFileSystem, request: pytest.FixtureRequest) -> str:
    """A resource of the test's own."""
    label = f"R{hashlib.md5(request.node.nodeid.encode()).hexdigest()[:8]}"
    fs.makedirs(f"{SESSION}/resources/{label}/files")
    return f"{SESSION}/resources/{label}/files"


def on_server(site: DemoServer, path: str) -> bytes:
    """The bytes as the server hands them out, without any of our code."""
    request = urllib.request.Request(f"{site.url}/data/{path}")
    request.add_header("Authorization", "Basic YWRtaW46YWRtaW4=")
    with urllib.request.urlopen(request) as reply:
        content: bytes = reply.read()
    return content


# -- names


def test_names_are_those_of_a_mount(fs: XnatFileSystem) -> None:
    names = {"projects/PUB000", "projects/PVT000", "projects/SHARED00"}
    assert set(fs.ls("xnat://projects", detail=False)) == names
    assert {entry["type"] for entry in fs.ls("/projects/")} == {"directory"}
    assert fs.info(PLAIN) == {
        "name": PLAIN, "size": 6, "type": "file", "md5": hashlib.md5(b"plain\n").hexdigest(),
    }  # fmt: skip
    assert fs.info("") == {"name": "", "size": 0, "type": "directory"}
    assert fs.isdir(SESSION)
    assert not fs.isfile(SESSION)
    assert not fs.exists(f"{SESSION}/nothing")
    assert not fs.exists(f"{PLAIN}/below")
    assert len(fs.glob(f"{SESSION}/scans/*/resources/DICOM/files/*.dcm")) == 8 + 3 + 1 + 1
    assert fs.modified(PLAIN).year == 2021


def test_ids_accessions_and_links_lead_there_too(fs: XnatFileSystem) -> None:
    for path in ("XNAT_E00001", "projects/PVT000/experiments/Haofei01_MR1"):
        other = PLAIN.replace(SESSION, path)
        assert fs.cat_file(other) == b"plain\n"
        assert fs.info(other)["name"] == other
        assert other in fs.ls(os.path.dirname(other), detail=False)


def test_a_walk_meets_each_session_once(fs: XnatFileSystem) -> None:
    found = fs.find("projects/PVT000")
    assert PLAIN in found
    assert not [path for path in found if path.startswith("projects/PVT000/experiments/")]
    assert "projects/PVT000/experiments/Haofei01_MR1" in fs.ls(
        "projects/PVT000/experiments", detail=False
    )
    below = fs.find("projects/PVT000/experiments/Haofei01_MR1")
    assert len(below) == len(fs.find(SESSION))


def test_few_requests(fs: XnatFileSystem, site: DemoServer) -> None:
    fs.invalidate_cache()
    site.clear_log()
    assert len(fs.find(f"{SESSION}/scans")) == 8 + 3 + 1 + 1 + 1
    assert len(asked(site, "GET", "format=json")) <= 6
    # Listings are not believed from one call to the next, but what stands above them is.
    site.clear_log()
    fs.find(f"{SESSION}/scans")
    assert len(site.log) == 3
    site.clear_log()
    assert fs.isfile(PLAIN)
    assert fs.info(PLAIN)["size"] == 6
    assert len(site.log) <= 1


def test_what_others_make_is_there_at_once(
    fs: XnatFileSystem, site: DemoServer, folder: str
) -> None:
    """Listings are known, and then another process adds to them."""
    assert fs.ls(folder) == []
    assert not fs.exists(f"{folder}/new.txt")
    elsewhere = XnatFileSystem(cache_max_age="9d", skip_instance_cache=True)
    elsewhere.pipe_file(f"{folder}/new.txt", b"new")
    assert fs.cat_file(f"{folder}/new.txt") == b"new"
    elsewhere.pipe_file(f"{folder}/sub/newer.txt", b"newer")
    assert fs.glob(f"{folder}/**/*.txt") == [f"{folder}/new.txt", f"{folder}/sub/newer.txt"]
    assert fs.ls(f"{folder}/sub", detail=False) == [f"{folder}/sub/newer.txt"]


# -- reading and writing


def test_reading(fs: XnatFileSystem, site: DemoServer) -> None:
    path = fs.ls(DICOM, detail=False)[0]
    whole = on_server(site, path)
    assert fs.cat_file(path) == whole
    assert fs.cat_file(path, 100, 200) == whole[100:200]
    with fs.open(path) as file:
        assert file.size == len(whole)
        assert file.seek(-10, io.SEEK_END) == len(whole) - 10
        assert file.read() == whole[-10:]
        assert file.read(10) == b""
        file.seek(128)
        assert file.read(4) == b"DICM"
        assert not file.writable()


@pytest.mark.parametrize("size", [0, 1, 3_000_000])
def test_what_is_closed_is_on_the_server(
    fs: XnatFileSystem, site: DemoServer, folder: str, size: int
) -> None:
    content = os.urandom(size)
    with fs.open(f"{folder}/new.bin", "wb") as file:
        file.write(content)
    assert on_server(site, f"{folder}/new.bin") == content
    assert fs.cat_file(f"{folder}/new.bin") == content
    assert len(asked(site, "PUT", "new.bin")) == 1


def test_modes(fs: XnatFileSystem, site: DemoServer, folder: str) -> None:
    path = f"{folder}/sub/notes.txt"
    with fs.open(path, "w", encoding="utf-8") as file:
        file.write("größer\n")
    with fs.open(path, "ab") as file:
        file.write(b"more\n")
    with fs.open(path, "r+b") as file:
        file.seek(-5, io.SEEK_END)
        file.write(b"MORE")
    with pytest.raises(FileExistsError):
        fs.open(path, "xb")
    with fs.open(f"{folder}/fresh", "xb") as file:
        file.write(b"x")
    assert on_server(site, path) == "größer\nMORE\n".encode()
    assert fs.read_text(path) == "größer\nMORE\n"
    with pytest.raises(ValueError, match="mode"):
        fs.open(path, "w+b")


def test_a_file_that_does_not_arrive_says_so_at_close(
    fs: XnatFileSystem, site: DemoServer, folder: str
) -> None:
    site.faults.add(Fault(kind="status", verb="PUT", path="lost.bin", code=507))
    file = fs.open(f"{folder}/lost.bin", "wb")
    file.write(b"data")
    with pytest.raises(OSError, match="out of room"):
        file.close()
    site.faults.clear()
    assert not [path for path in asked(site, "GET") if path.endswith("lost.bin")]
    # The data is not lost: it waits in the spool.
    state = Path(os.environ["XDG_STATE_HOME"]) / "xnatfs" / "spool"
    kept = [record for record in state.glob("*/*/record.json") if "lost.bin" in record.read_text()]
    assert [(record.parent / "bytes").read_bytes() for record in kept] == [b"data"]


def test_a_download_that_breaks_leaves_no_stump(site: DemoServer, tmp_path: Path) -> None:
    fs = XnatFileSystem(cache_dir=tmp_path / "cache")
    tmp_path /= "copies"
    tmp_path.mkdir()
    first, second = fs.ls(DICOM, detail=False)[-2:]
    (tmp_path / "there.dcm").write_bytes(b"what was there before")
    site.faults.add(Fault(kind="status", verb="GET", path=os.path.basename(first), code=500))
    with pytest.raises(OSError, match="500"):
        fs.get_file(first, str(tmp_path / "there.dcm"))
    assert [path.name for path in tmp_path.iterdir()] == ["there.dcm"]
    assert (tmp_path / "there.dcm").read_bytes() == b"what was there before"
    site.faults.clear()
    fs.get([first, second], [str(tmp_path / "there.dcm"), str(tmp_path / "new" / "2.dcm")])
    assert (tmp_path / "there.dcm").read_bytes() == on_server(site, first)
    assert (tmp_path / "new" / "2.dcm").read_bytes() == on_server(site, second)


def test_errors_are_those_of_python(fs: XnatFileSystem, folder: str) -> None:
    with pytest.raises(FileNotFoundError, match="did you mean plain"):
        fs.open(PLAIN.replace("plain", "plaid"))
    with pytest.raises(IsADirectoryError):
        fs.open(SESSION)
    with pytest.raises(NotADirectoryError):
        fs.ls(f"{PLAIN}/x")
    with pytest.raises(PermissionError, match="--allow-overwrite"):
        fs.pipe_file(PLAIN, b"overwritten")
    with pytest.raises(PermissionError, match="--allow-delete"):
        fs.rm(PLAIN)
    with pytest.raises(FileNotFoundError, match="NOSUCH"):  # no resource by mistyping its label
        fs.pipe_file(f"{SESSION}/resources/NOSUCH/files/a", b"")
    with pytest.raises(FileExistsError):
        fs.mkdir(folder)
    assert fs.cat_file(PLAIN) == b"plain\n"


def test_what_the_server_cannot_tell_is_no_answer(
    site: DemoServer, expected_warnings: list[str]
) -> None:
    fs = XnatFileSystem(io_timeout="1s", skip_instance_cache=True, connections=3)
    assert fs.exists(PLAIN)
    fs.invalidate_cache()
    site.faults.add(Fault(kind="status", path="/data/projects", code=500))
    with pytest.raises(OSError, match="500"):
        fs.exists(PLAIN)
    with pytest.raises(OSError, match="500"):
        fs.find("projects/PVT000")
    with pytest.raises(OSError, match="500"):
        fs.glob("projects/*")
    site.faults.clear()


def test_nobody_answers_and_wrong_options(
    monkeypatch: pytest.MonkeyPatch, site: DemoServer
) -> None:
    with pytest.raises(ConnectionError):
        XnatFileSystem("http://127.0.0.1:1", io_timeout=3).ls("")
    with pytest.raises(ValueError, match="did you mean cache_dir"):
        XnatFileSystem(cache_dri="/tmp")
    with pytest.raises(ValueError, match="xnatfs login"):
        XnatFileSystem(password="hunter2")
    monkeypatch.setenv("XNAT_PASS", "wrong")
    with pytest.raises(PermissionError, match="refused"):
        XnatFileSystem(skip_instance_cache=True).ls("")


# -- processes


def test_pickled_it_finds_its_own_login(site: DemoServer) -> None:
    fs = XnatFileSystem(site.url, cache_size="1G")
    assert fs.cat_file(PLAIN) == b"plain\n"
    packed = pickle.dumps(fs)
    assert pickle.loads(packed).cat_file(PLAIN) == b"plain\n"
    assert b"admin" not in packed
    assert "admin" not in fs.to_json()


def test_a_forked_child_works_and_leaves_the_parent_alone(
    fs: XnatFileSystem, site: DemoServer, folder: str
) -> None:
    held = fs.open(f"{folder}/parents.txt", "wb")
    held.write(b"the parent's")
    child = os.fork()
    if child == 0:
        code = 1
        try:
            fs.pipe_file(f"{folder}/childs.txt", b"the child's")
            if fs.cat_file(PLAIN) == b"plain\n":
                code = 0
            connections.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert on_server(site, f"{folder}/childs.txt") == b"the child's"
    held.close()
    assert on_server(site, f"{folder}/parents.txt") == b"the parent's"


def test_threads_share_one_login(site: DemoServer) -> None:
    from concurrent.futures import ThreadPoolExecutor

    site.clear_log()

    def one(_number: int) -> bytes:
        return fsspec.filesystem("xnat", io_timeout=33).cat_file(PLAIN)

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(one, range(32))) == {b"plain\n"}
    assert len(asked(site, "GET", "/data/auth")) <= 1


def test_the_command_line_reads_the_same_store(fs: XnatFileSystem, site: DemoServer) -> None:
    """What Python has read, a second process needs not fetch again."""
    path = fs.ls(DICOM, detail=False)[3]
    content = fs.cat_file(path)
    site.clear_log()
    script = "import fsspec, sys; sys.stdout.buffer.write(fsspec.open(sys.argv[1]).open().read())"
    done = subprocess.run(
        [sys.executable, "-c", script, f"xnat://{path}"],
        capture_output=True,
        check=True,
        timeout=60,
    )
    assert done.stdout == content
    assert [it for it in asked(site, "GET", "/files/") if "format=" not in it] == []


# -- libraries


def test_pydicom(fs: XnatFileSystem) -> None:
    numbers = set()
    for path in fs.glob(f"{DICOM}/*.dcm"):
        with fs.open(path) as file:
            image = pydicom.dcmread(file)
            assert image.pixel_array.shape == (256, 256)
            numbers.add(int(image.InstanceNumber))
    assert numbers == set(range(1, 9))


def test_nibabel(fs: XnatFileSystem, site: DemoServer, folder: str) -> None:
    voxels = np.arange(4 * 5 * 6, dtype=np.int16).reshape(4, 5, 6)
    with fs.open(f"{folder}/made.nii", "wb") as file:
        nibabel.Nifti1Image(voxels, np.eye(4)).to_stream(file)
    back = nibabel.Nifti1Image.from_bytes(on_server(site, f"{folder}/made.nii"))
    assert np.array_equal(np.asanyarray(back.dataobj), voxels)
    with fs.open(f"{folder}/made.nii") as file:
        again = nibabel.Nifti1Image.from_stream(file)
        assert np.array_equal(np.asanyarray(again.dataobj), voxels)


def test_pandas(site: DemoServer, folder: str) -> None:
    table = pd.read_csv(f"xnat://{SESSION}/resources/QC/files/qc.csv")
    assert table.to_dict("records") == [{"scan": 4, "snr": 31.5}]
    table["ok"] = table["snr"] > 20
    options = {"host": site.url}
    table.to_csv(f"xnat://{folder}/qc.csv", index=False, storage_options=options)
    assert on_server(site, f"{folder}/qc.csv") == b"scan,snr,ok\n4,31.5,True\n"


DASK = """
    import json, os, sys
    import dask, dask.bag
    from dask.distributed import Client, LocalCluster

    source, target = sys.argv[1:]

    @dask.delayed
    def brightness(file):
        import pydicom
        with file as opened:
            image = pydicom.dcmread(opened)
        return os.getpid(), int(image.InstanceNumber), int(image.pixel_array.sum())

    if __name__ == "__main__":
        import fsspec
        with LocalCluster(n_workers=2, threads_per_worker=2, dashboard_address=None) as cluster, \\
                Client(cluster) as client:
            client.wait_for_workers(2)
            found = dask.compute(*map(brightness, fsspec.open_files(source + "/*.dcm")))
            lines = dask.bag.from_sequence(sorted(found), npartitions=4).map(
                lambda row: f"{row[1]} {row[2]}")
            lines.to_textfiles(target + "/part-*.txt")
            back = dask.bag.read_text(target + "/part-*.txt").map(str.strip).compute()
            print(json.dumps({"pids": sorted({row[0] for row in found}), "lines": sorted(back)}))
"""


def test_dask_with_two_workers(
    fs: XnatFileSystem, site: DemoServer, folder: str, tmp_path: Path
) -> None:
    script = tmp_path / "job.py"
    script.write_text(textwrap.dedent(DASK))
    done = subprocess.run(
        [sys.executable, str(script), f"xnat://{DICOM}", f"xnat://{folder}"],
        stdout=subprocess.PIPE, text=True, timeout=110, check=True,
    )  # fmt: skip
    told = json.loads(done.stdout)
    wanted = []
    for path in fs.glob(f"{DICOM}/*.dcm"):
        image = pydicom.dcmread(io.BytesIO(on_server(site, path)))
        wanted.append(f"{int(image.InstanceNumber)} {int(image.pixel_array.sum())}")
    assert told["lines"] == sorted(wanted)
    assert len(told["pids"]) == 2
    fs.invalidate_cache()
    parts = fs.glob(f"{folder}/part-*.txt")
    assert len(parts) == 4
    assert sorted(b"\n".join(on_server(site, part) for part in parts).decode().split("\n")) == [
        *sorted(wanted)
    ]
