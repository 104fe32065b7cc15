"""Data on order: the same everywhere, made when it is looked at, kept when it is changed."""

import hashlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.demo.conftest import Client
from xnatfs.demo import phantom
from xnatfs.demo.order import Order

ORDER = Order(sessions=30, scans=2, files=5, file_size=2000)
SCAN = "/data/projects/ORDER000/subjects/S00007/experiments/S00007_MR/scans/2"
FILES = f"{SCAN}/resources/DICOM/files"


@pytest.fixture
def ordered(start, tmp_path):
    def begin(name="ordered", order=ORDER, **more):
        return start(root=tmp_path / name, sample="none", order=order, **more)

    return begin


def listing(client, files=FILES):
    return {it["Name"]: it for it in client.get(f"{files}?format=json").rows()}


def test_what_is_listed_is_what_is_there(ordered):
    """Counts, sizes and digests of every level are those of the bytes."""
    server, client = ordered()
    assert len(client.get("/data/projects/ORDER000/experiments?format=json").rows()) == 30
    assert [it["ID"] for it in client.get(SCAN.rpartition("/")[0]).rows()] == ["1", "2"]
    row = client.get(f"{SCAN}/resources?format=json").rows()[0]
    assert (row["label"], row["file_count"], row["file_size"]) == ("DICOM", "5", "10000")
    rows = listing(client)
    assert len(rows) == 5
    assert not list(server.site.archive.root.rglob("IM*"))  # nothing was read yet
    for name, row in rows.items():
        body = client.get(f"{FILES}/{name}").body
        assert len(body) == 2000 == int(row["Size"])
        assert hashlib.md5(body).hexdigest() == row["digest"]
    everything = client.get("/data/experiments/XNAT_E1000007/files?all=true&format=json").rows()
    assert len({it["digest"] for it in everything}) == 10
    assert client.get(f"{SCAN}/files?format=zip").body.startswith(b"PK")
    dir_rows = client.get("/data/experiments/XNAT_E1000007/DIR?recursive=true").rows()
    assert len([it for it in dir_rows if it["Name"].endswith(".dcm")]) == 10


def test_two_servers_are_alike(ordered):
    found = []
    for name, seed in (("one", 1), ("two", 1), ("three", 2)):
        _server, client = ordered(name, Order(sessions=30, scans=2, files=5, seed=seed))
        found.append((client.get("/data/experiments/XNAT_E1000003/files?all=true").body,
                      client.get(f"{FILES}/IM000002.dcm").body))  # fmt: skip
    assert found[0] == found[1]
    assert found[0] != found[2]


def test_small_files(ordered):
    _server, client = ordered(order=Order(sessions=1, scans=1, files=2, file_size=5))
    place = "/data/experiments/XNAT_E1000001/scans/1/resources/DICOM/files"
    for name, row in listing(client, place).items():
        body = client.get(f"{place}/{name}").body
        assert (len(body), hashlib.md5(body).hexdigest()) == (5, row["digest"])


def test_changes_are_kept(ordered):
    """Writes and deletes go to disk and outlive the server, which knows its order by itself."""
    server, client = ordered()
    before = listing(client)
    assert client.send(f"{FILES}/IM000001.dcm", b"new").body == b'{"duplicates":["IM000001.dcm"]}'
    assert client.send(f"{FILES}/IM000001.dcm?overwrite=true", b"new").body == b""
    assert client.delete(f"{FILES}/IM000002.dcm").status == 200
    assert client.send(f"{SCAN}/resources/NIFTI/files/v.nii", b"volume").status == 200
    session = SCAN.partition("/scans")[0]
    assert client.delete(f"{session}/scans/1").status == 200
    other = session.replace("S00007", "S00008")
    assert client.put(f"{other}?label=RENAMED").status == 200
    assert client.delete(session.replace("S00007", "S00009")).status == 200
    server.stop()
    _server, client = ordered(order=None)
    after = listing(client)
    assert client.get(f"{FILES}/IM000001.dcm").body == b"new"
    assert set(before) - set(after) == {"IM000002.dcm"}
    assert all(after[it] == before[it] for it in ("IM000003.dcm", "IM000005.dcm"))
    assert client.get(f"{SCAN}/resources/NIFTI/files/v.nii").body == b"volume"
    assert [it["ID"] for it in client.get(f"{session}/scans").rows()] == ["2"]
    renamed = other.replace("S00008_MR", "RENAMED")
    assert len(listing(client, f"{renamed}/scans/1/resources/DICOM/files")) == 5
    labels = [it["label"] for it in client.get("/data/projects/ORDER000/experiments").rows()]
    assert len(labels) == 29
    assert "RENAMED" in labels
    assert "S00009_MR" not in labels


def test_another_order_is_refused(ordered):
    server, _client = ordered()
    server.stop()
    with pytest.raises(FileExistsError, match="another order"):
        ordered(order=Order(sessions=31))


@contextmanager
def served(*words):
    """`xnatfs demo --serve` in a process of its own; yields the lines that it says."""
    command = [sys.executable, "-m", "xnatfs", "demo", "--serve", *map(str, words)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=Path.cwd(),
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        try:
            lines = [process.stdout.readline().strip()]
            if lines[0]:
                lines += [process.stdout.readline().strip() for _ in range(2)]
            yield lines
        finally:
            process.send_signal(signal.SIGTERM)
            _rest, said = process.communicate(timeout=20)
        assert process.returncode == 0
        assert "Traceback" not in said


def test_ten_thousand_sessions_start_in_seconds(tmp_path):
    began = time.monotonic()
    words = ("--sample", "none", "--sessions", 10_000, "--scans", 12, "--files", 200)
    with served(*words, "--file-size", "128K", "--root", tmp_path / "r") as lines:
        assert time.monotonic() - began < 10
        client = Client(lines[0])
        rows = client.get("/data/projects/ORDER000/experiments?format=json").rows()
        assert len({it["label"] for it in rows}) == 10_000
        last = "/data/projects/ORDER000/subjects/S10000/experiments/S10000_MR/scans/12"
        assert len(client.get(f"{last}/files?format=json").rows()) == 200
        assert len(client.get(f"{last}/resources/DICOM/files/IM000200.dcm").body) == 131072


def test_link_faults_and_costs_on_the_command_line(tmp_path):
    """The link is what is printed; the rules and the log are those of the files."""
    rules = tmp_path / "rules.json"
    rules.write_text(json.dumps([{"kind": "status", "code": 502, "path": "/data/auth"}]))
    words = ["--sample", "small", "--faults", rules, "--request-log", tmp_path / "log"]
    words += ["--rtt-ms", "20", "--mbps", "100", "--entry-cost", "1", "--context-path", "/xnat"]
    with served(*words) as lines:
        client = Client(lines[0])
        assert lines[0].endswith("/xnat")
        began = time.monotonic()
        assert client.get("/data/auth").status == 502
        assert time.monotonic() - began >= 0.06  # connection set-up and the request
        assert json.loads((tmp_path / "log").read_text())["status"] == 502
    for bad in ('[{"kind": "nonsense"}]', "no JSON", '["text"]'):
        rules.write_text(bad)
        command = [sys.executable, "-m", "xnatfs", "demo", "--serve", "--faults", str(rules)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode != 0
        assert "--faults" in done.stderr
        assert "Traceback" not in done.stderr


def test_case_on_the_command_line(tmp_path):
    """A folder of DICOM is loaded before the address is printed, and only once."""
    folder = tmp_path / "case" / "scans" / "5_T1 MPRAGE" / "DICOM"
    folder.mkdir(parents=True)
    files = dict(phantom.series(3, number=5, description="T1", side=32))
    for name, content in files.items():
        (folder / name).write_bytes(content)
    for _ in range(2):
        words = ("--sample", "none", "--case", tmp_path / "case", "--root", tmp_path / "r")
        with served(*words) as lines:
            client = Client(lines[0])
            place = "/data/projects/PVT001/subjects/Case001/experiments/Case001_MR1/scans/5"
            rows = listing(client, f"{place}/resources/DICOM/files")
            assert {it: row["digest"] for it, row in rows.items()} == {
                name: hashlib.md5(content).hexdigest() for name, content in files.items()
            }
            item = client.get(f"{place}?format=json").json()["items"][0]["data_fields"]
            assert item["type"] == "T1 MPRAGE"


def test_bad_arguments():
    for words in (["--port", "1"], ["--serve", "--files", "2"], ["--serve", "--rtt-ms", "-1"],
                  ["--serve", "--case", "/nonexistent"]):  # fmt: skip
        command = [sys.executable, "-m", "xnatfs", "demo", *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 2, words
        assert words[-2] in done.stderr


def test_control_addresses_answer_through_the_link():
    """It also ends quietly while somebody is connected."""
    with ExitStack() as beyond, served("--sample", "none", "--rtt-ms", "1") as lines:
        parts = urlsplit(lines[0])
        idle = socket.create_connection((parts.hostname, parts.port), timeout=10)
        beyond.enter_context(idle)
        idle.sendall(b"GET /demo/log HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(1 << 16).endswith(b"[]")
