"""The sample series is one that dcm2niix takes for a volume; the server starts and stops."""

import io
import os
import signal
import subprocess
import sys
import tarfile
import time
import urllib.request
from pathlib import Path

import dcm2niix
import nibabel
import pytest


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    """A server with the full sample, and how long it took to start."""
    from xnatfs.demo.server import DemoServer, ServerOptions

    began = time.monotonic()
    server = DemoServer(ServerOptions(root=tmp_path_factory.mktemp("full")))
    server.start()
    yield server, time.monotonic() - began
    server.stop()


def test_full_series_is_one_volume(full, tmp_path):
    from tests.demo.conftest import Client

    server, took = full
    assert took < 8
    client = Client(server.url)
    path = "/data/experiments/XNAT_E00001/scans/4/resources/DICOM/files"
    rows = client.get(f"{path}?format=json").rows()
    assert len(rows) == 192
    assert all(120_000 < int(it["Size"]) < 140_000 for it in rows)
    with tarfile.open(fileobj=io.BytesIO(client.get(f"{path}?format=tar").body)) as packed:
        for member in packed:
            target = tmp_path / member.name.rsplit("/", 1)[1]
            target.write_bytes(packed.extractfile(member).read())
    out = tmp_path / "out"
    out.mkdir()
    subprocess.run([dcm2niix.bin, "-o", out, tmp_path], check=True, capture_output=True)
    volumes = list(out.glob("*.nii*"))
    assert len(volumes) == 1
    assert nibabel.load(volumes[0]).shape == (256, 256, 192)


def test_serve_in_a_process_of_its_own(tmp_path):
    code = (
        "from pathlib import Path; from xnatfs.demo.serve import *; import sys;"
        f"options = ServerOptions(root=Path({str(tmp_path / 'r')!r}), sample='small');"
        "sys.exit(serve(options, []))"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=Path.cwd(),
        env=os.environ | {"PYTHONUNBUFFERED": "1"},
    ) as process:  # fmt: skip
        url = process.stdout.readline().strip()
        assert "admin/admin" in process.stdout.readline()
        with urllib.request.urlopen(f"{url}/xapi/siteConfig/buildInfo/version") as answer:
            assert answer.read() == b"1.8.11"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
