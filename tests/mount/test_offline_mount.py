"""Stage-in, compute, stage-out: a node without a network, with a real mount."""

from __future__ import annotations

import errno
import subprocess
import time
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import DCM2NIIX, HELD, SESSION, Desk
from xnatfs.demo.server import DemoServer

DICOM = "scans/4/resources/DICOM/files"


def test_stage_in_compute_stage_out(desk: Desk, server: DemoServer, tmp_path: Path) -> None:
    whole = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    done = desk.xnatfs("prefetch", "-s", server.url, f"/{SESSION}", "--resource", "DICOM")
    assert done.returncode == 0, done.stderr
    # The node: nobody answers, and there is no password.
    nobody = {"XNAT_USER": "", "XNAT_PASS": "", "https_proxy": "http://127.0.0.1:1"}
    server.faults.clear()
    server.clear_log()
    desk.variables |= nobody
    desk.expected += ["cannot read", "no network is used", "without a network"]
    began = time.monotonic()
    desk.mount("--offline")
    for name, body in whole.items():
        assert (desk.session / DICOM / name).read_bytes() == body
    # What is not there is listed, and an error at once.
    assert "qc.csv" in desk.works("ls -l resources/QC/files")
    with pytest.raises(OSError) as caught:
        (desk.session / "resources/QC/files/qc.csv").read_bytes()
    assert caught.value.errno == errno.ENETDOWN
    with pytest.raises(OSError) as caught:
        (desk.session / DICOM / name).unlink()
    assert caught.value.errno == errno.ENETDOWN
    (tmp_path / "nii").mkdir()
    command = [DCM2NIIX, "-f", "%s", "-o", tmp_path / "nii", desk.session / DICOM]
    assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    desk.works('mkdir scans/4/resources/NIFTI && cp "$1"/* scans/4/resources/NIFTI/files/',
               tmp_path / "nii")  # fmt: skip
    made = {path.name: path.read_bytes() for path in (tmp_path / "nii").iterdir()}
    shown = desk.session / "scans/4/resources/NIFTI/files"
    assert {path.name: path.read_bytes() for path in shown.iterdir()} == made
    assert time.monotonic() - began < 60
    done = desk.umount()
    assert done.returncode == 74, done.stderr
    assert "qc.csv" in done.stderr
    assert f"{len(made)} files" in done.stderr
    assert "xnatfs uploads send" in done.stderr
    assert server.log == []
    # Where there is a network again.
    desk.variables |= {"XNAT_USER": "admin", "XNAT_PASS": "admin"}
    done = desk.xnatfs("uploads", "send")
    assert (done.returncode, done.stderr) == (0, "")
    rows = Rest(server).rows(f"/data{HELD}/scans/4/resources?format=json")
    (number,) = [row["xnat_abstractresource_id"] for row in rows if row["label"] == "NIFTI"]
    assert Rest(server).files(f"{HELD}/scans/4/resources/{number}") == made


def test_without_a_prefetch_there_is_nothing_to_mount(desk: Desk, server: DemoServer) -> None:
    server.clear_log()
    done = desk.xnatfs("mount", "--offline", server.url, desk.point)
    assert done.returncode == 2
    assert "xnatfs prefetch" in done.stderr
    assert server.log == []


def test_run_without_a_network(desk: Desk, server: DemoServer) -> None:
    done = desk.xnatfs("prefetch", "-s", server.url, f"/{SESSION}/resources/QC")
    assert done.returncode == 0, done.stderr
    server.clear_log()
    script = "cat QC/files/qc.csv && mkdir OUT && cp QC/files/qc.csv OUT/files/"
    words = ["run", "--offline", "-s", server.url, "--cd", f"/{SESSION}/resources", "--"]
    done = desk.xnatfs(*words, "sh", "-c", script)
    assert done.returncode == 0, done.stderr
    assert "1 file (" in done.stderr
    assert "xnatfs uploads send" in done.stderr
    assert server.log == []
    assert desk.xnatfs("uploads", "send").returncode == 0
    assert Rest(server).files(f"{HELD}/resources/OUT") == {"qc.csv": done.stdout.encode()}
