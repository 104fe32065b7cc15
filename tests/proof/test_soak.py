"""The load with random faults that ``script/soak`` runs for as long as asked."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.proof.storm import Storm

TOP = Path(__file__).parents[2]


def soak(*words: str, timeout: float) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.proof.soak", *words],
        cwd=TOP, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("fuse")
@pytest.mark.parametrize(
    "minutes", [0.1, pytest.param(5.0, marks=[pytest.mark.long, pytest.mark.timeout(600)])]
)
def test_soak(minutes: float) -> None:
    done = soak("--minutes", str(minutes), timeout=60 * minutes + 150)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert done.stdout.endswith("\n0 wrong, 0 lost\n")
    print(done.stdout)


@pytest.mark.usefixtures("fuse")
def test_what_is_lost_is_seen(tmp_path: Path) -> None:
    """The judge itself: a byte that somebody takes away, and a file."""
    storm = Storm(tmp_path)
    try:
        there = storm.held()
        names = sorted(there)
        storm.ledger.done({names[0]: "another sum", "STORM/files/never": "some"})
        assert [problem.split()[1] for problem in storm.ledger.judge(there)] == ["holds", "is"]
    finally:
        storm.close()
    assert storm.problems == []
