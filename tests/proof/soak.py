"""Rounds of a mixed load with faults at random, for as long as asked; then what was found.

    python -m tests.proof.soak [--minutes M] [--seed S]

Each round mounts, lets programs change and read files, lets requests fail, sessions expire, and
mount and server be killed; then everything has to be where it was promised to be. It ends at the
first broken promise, with the seed and the folder in which all of it lies.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.proof.storm import Round, Storm
from xnatfs.demo.faults import Fault

# What goes wrong, each somewhere and now and then.
FAULTS = (
    {"kind": "reset"},
    {"kind": "reset_after", "bytes": 3000},
    {"kind": "truncate"},
    {"kind": "corrupt", "verb": "GET", "path": r"/files/|format=(tar|zip)"},
    {"kind": "stall", "seconds": 2.0},
    {"kind": "slow", "rate": 200_000.0},
    {"kind": "status", "code": 500},
    {"kind": "status", "code": 503, "retry_after": "1"},
    {"kind": "status_after", "code": 500},
    {"kind": "status_after", "code": 502},
    {"kind": "html"},
    {"kind": "expire"},
    {"kind": "conflict"},
)
VERBS = ("", "GET", "PUT", "POST", "DELETE")
REPORT_S = 60.0


def some_round(choice: random.Random) -> Round:
    """A round as chance has it."""
    chosen = choice.sample(FAULTS, choice.randrange(4))
    return Round(
        seed=choice.randrange(1 << 30),
        write_back=choice.random() < 0.5,
        changes=choice.randrange(1, 60),
        seconds=choice.uniform(0.0, 1.0),
        workers=choice.randrange(1, 4),
        end=choice.choice(("kill", "kill", "term")),
        recover=choice.choice(("mount", "send")),
        kill_server=choice.random() < 0.15,
        expire=choice.random() < 0.2,
        faults=tuple(
            Fault(**{"verb": choice.choice(VERBS), "path": "/resources"} | fault,
                  probability=choice.choice((0.02, 0.1, 0.3)))
            for fault in chosen
        ),
    )  # fmt: skip


def requests(log: Path) -> Counter[str]:
    """What the server's log tells: requests, faults, and what was sent again after a failure."""
    found: Counter[str] = Counter()
    failed = set()
    for line in log.read_text().splitlines():
        row = json.loads(line)
        what = row["verb"], row["path"].partition("?")[0]
        found["requests"] += 1
        found["retries"] += what in failed
        failed.discard(what)
        if row["fault"]:
            found["faults"] += 1
            found[f"faults: {row['fault']}"] += 1
            failed.add(what)
    return found


def summary(storm: Storm, seconds: float) -> str:
    """The last lines."""
    lost = sum(" is lost" in problem for problem in storm.problems)
    asked = requests(storm.server.request_log)
    rows = {"seconds": round(seconds)} | dict(sorted((storm.counts + asked).items()))
    lines = [f"{what:28}{number:>10,}" for what, number in rows.items()]
    return "\n".join([*lines, f"{len(storm.problems) - lost} wrong, {lost} lost"])


def main() -> int:
    """Run; 0 when nothing was wrong and nothing lost."""
    parser = argparse.ArgumentParser(
        prog="script/soak", description="A mixed load with random faults, kills and restarts."
    )
    parser.add_argument("--minutes", type=float, default=10.0, help="for how long (10)")
    parser.add_argument("--seed", type=int, help="of an earlier run, to have its choices again")
    args = parser.parse_args()
    seed = args.seed if args.seed is not None else random.SystemRandom().randrange(1 << 30)
    print(f"seed {seed}, {args.minutes:g} minutes", flush=True)

    choice = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="xnatfs-soak-"))
    began = told = time.monotonic()
    storm = Storm(folder, options=("--io-timeout", "20"))
    plan = None
    try:
        while not storm.problems and time.monotonic() < began + 60 * args.minutes:
            plan = some_round(choice)
            storm.round(plan)
            if time.monotonic() > told + REPORT_S:
                told = time.monotonic()
                counts = storm.counts
                print(
                    f"{(told - began) / 60:.0f} min: {counts['rounds']} rounds, "
                    f"{counts['changes acknowledged']} changes acknowledged, 0 wrong, 0 lost",
                    flush=True,
                )
    finally:
        storm.close()
    print(summary(storm, time.monotonic() - began))
    if storm.problems:
        print(f"round {storm.counts['rounds']} of seed {seed}: {plan}", *storm.problems, sep="\n")
        print(f"kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
