"""docs/PYTHON.md: its blocks run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd

from xnatfs.demo.server import DemoServer
from xnatfs.fsspec import XnatFileSystem

TEXT = Path(__file__).resolve().parents[2] / "docs" / "PYTHON.md"
FILES = "XNAT_E00001/scans/4/resources/PYTHON/files"


def test_the_blocks_run(site: DemoServer) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", TEXT.read_text(encoding="utf-8"), re.M | re.S)
    assert len(blocks) == 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, str(TEXT), "exec"), names)
    assert names["image"].pixel_array.shape == (256, 256)
    fs = XnatFileSystem()
    written = fs.find(FILES)
    assert [path.removeprefix(f"{FILES}/") for path in written] == [
        "qc/ok.csv", "slice.nii",
    ]  # fmt: skip
    with fs.open(f"{FILES}/qc/ok.csv") as file:
        assert pd.read_csv(file).to_dict("records") == [{"scan": 4, "snr": 31.5, "ok": True}]
