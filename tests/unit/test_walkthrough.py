from __future__ import annotations

import struct
from pathlib import Path

import pytest

from xnatfs.cli.plainrest import case_scans
from xnatfs.cli.walkthrough import dimensions
from xnatfs.errors import XnatfsError


@pytest.mark.parametrize("order", ["<", ">"])
def test_dimensions_of_a_volume(tmp_path: Path, order: str) -> None:
    volume = tmp_path / "x.nii"
    header = struct.pack(f"{order}i36x8h", 348, 3, 256, 200, 60, 1, 1, 1, 1)
    volume.write_bytes(header.ljust(352, b"\0"))
    assert dimensions(volume) == "256 x 200 x 60"


def test_no_volume(tmp_path: Path) -> None:
    volume = tmp_path / "x.nii"
    volume.write_bytes(b"short")
    assert dimensions(volume) == ""


def test_scans_of_a_case(tmp_path: Path) -> None:
    for name in ("10_T1", "5_3D SPGR", "3_SCAN 1_ T2"):
        (tmp_path / "scans" / name / "DICOM").mkdir(parents=True)
    assert [scan[:2] for scan in case_scans(tmp_path)] == [
        ("3", "SCAN 1_ T2"),
        ("5", "3D SPGR"),
        ("10", "T1"),
    ]
    with pytest.raises(XnatfsError, match="no scans/N_TYPE/DICOM"):
        case_scans(tmp_path / "scans")
