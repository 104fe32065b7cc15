"""kill −9 at random moments of a mixed write load: nothing acknowledged is lost, nothing is half.

The seed is printed; ``XNATFS_SEED`` repeats a run (as far as moments can be repeated).
"""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.proof.storm import Round, Storm

SEED = int(os.environ.get("XNATFS_SEED") or random.SystemRandom().randrange(1 << 30))


@pytest.mark.usefixtures("fuse")
@pytest.mark.parametrize(
    "rounds", [15, pytest.param(200, marks=[pytest.mark.long, pytest.mark.timeout(1200)])]
)
def test_kill_9(tmp_path: Path, rounds: int) -> None:
    print(f"XNATFS_SEED={SEED}")
    choice = random.Random(SEED)
    storm = Storm(tmp_path)
    try:
        for number in range(rounds):
            plan = Round(
                seed=choice.randrange(1 << 30),
                write_back=number % 2 == 0,
                changes=choice.randrange(1, 30),
                seconds=choice.uniform(0.0, 0.1),
                recover="send" if choice.random() < 0.6 else "mount",
                kill_server=number % 7 == 3,
            )
            storm.round(plan)
            assert not storm.problems, (number, plan, storm.problems)
    finally:
        storm.close()
        print(dict(storm.counts))
    assert storm.problems == []
    # It was no idle run.
    assert storm.counts["changes acknowledged"] > 4 * rounds
