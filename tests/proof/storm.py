"""Rounds of a mixed load on a mount that is killed in the middle of it; then the truth is told.

A ``Storm`` has a server process, a user's desk and a ledger of what was promised. A round mounts,
lets workers work (``load``), ends the mount in some way, lets what was left be sent, and compares
what the server holds with the ledger. ``test_kill`` and ``script/soak`` drive it.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.core.driver import Rest
from tests.mount.desk import HELD, SESSION, Desk, gone, within
from tests.proof.ledger import Ledger
from tests.proof.load import GONE
from tests.proof.served import Served
from xnatfs.config import SpoolSettings
from xnatfs.demo.faults import Fault
from xnatfs.upload.queue import Queue, Row
from xnatfs.upload.record import State

LOAD = Path(__file__).with_name("load.py")
FOLDERS = ("STORM", "STORM2")
# Files of somebody else between those of the load, with names that begin like theirs.
OTHERS = ("w", "w00001", "w00001.bin", "a/w.bin", "v00001-.bin", "w1.bin.gz")

# Until what a dead mount has left has arrived.
RECOVERED_S = 60.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Round:
    """What happens in one round."""

    seed: int
    write_back: bool = False
    # Of the load, before the mount ends: after so many changes were begun, however slow the
    # machine is, and this time.
    changes: int = 0
    seconds: float = 0.3
    workers: int = 2
    # How the mount ends: "kill", "term" or "umount".
    end: str = "kill"
    # How what it left is sent: by the next "mount" or by "send".
    recover: str = "mount"
    kill_server: bool = False
    faults: tuple[Fault, ...] = ()
    expire: bool = False

    @property
    def is_rough(self) -> bool:
        """Whether programs may see errors before the mount ends."""
        return self.kill_server or bool(self.faults)


@dataclass
class Storm:
    """One archive, one user, many mounts after each other.

    ``problems`` are the broken promises; ``counts`` what happened.
    """

    folder: Path
    options: tuple[str, ...] = ()
    problems: list[str] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    ledger: Ledger[str] = field(default_factory=Ledger)
    # Whether programs must not see errors now.
    calm: bool = True

    def __post_init__(self) -> None:
        self.server = Served(self.folder / "server")
        self.server.start()
        self.desk = Desk(self.folder / "desk", self.server.url)
        self.queue = Queue(SpoolSettings(folder=self.desk.state / "spool"))
        rest = Rest(self.server)
        for name in FOLDERS:
            rest.ask("PUT", f"/data{HELD}/resources/{name}")
            for other in OTHERS:
                content = f"somebody else's {other}".encode()
                rest.ask("PUT", f"/data{HELD}/resources/{name}/files/{other}?inbody=true", content)
        self.neighbours = self.server.sums(*FOLDERS)
        self.ledger.adopt(self.held())
        self.rest = rest

    def close(self) -> None:
        """Look at the neighbours a last time, and leave nothing running."""
        self.desk.close()
        self.server.end(signal.SIGTERM)
        changed = self.neighbours.items() ^ self.server.sums(*FOLDERS).items()
        self.problems += [f"a neighbour was changed: {path}" for path, _ in sorted(changed)]

    # -- a round

    def round(self, plan: Round) -> None:
        """Do all of it; what is wrong is in ``problems``."""
        self.counts["rounds"] += 1
        self.calm = not plan.is_rough
        self.mount(plan)
        begun = self.counts["changes begun"]
        workers = [
            Worker(self, f"w{number}", random.Random(plan.seed + number).randrange(1 << 30))
            for number in range(plan.workers)
        ]
        within(20, lambda: self.counts["changes begun"] >= begun + plan.changes)
        self.disturb(plan)
        self.end_mount(plan)
        for worker in workers:
            worker.join()
        if plan.faults:
            self.server.clear_faults()
            # What it holds back, a removal say, it does although nobody waits for it any more.
            time.sleep(max(fault.seconds for fault in plan.faults))
        self.recover(plan)
        self.judge()

    def mount(self, plan: Round) -> None:
        """Mount, also over a dead mount."""
        options = ["--write-back"] if plan.write_back else []
        done = self.desk.xnatfs(
            "mount", self.server.url, self.desk.point, "--drain", "2", *options, *self.options
        )
        if done.returncode:
            raise AssertionError(f"cannot mount: {done.stderr}")

    def disturb(self, plan: Round) -> None:
        """The time of the load, with what goes wrong at the server in it."""
        choice = random.Random(plan.seed)
        if plan.faults:
            self.server.add_faults(*plan.faults)
        if plan.expire:
            time.sleep(plan.seconds * choice.random() / 2)
            self.server.control("POST", "expire")
        if plan.kill_server:
            time.sleep(plan.seconds * choice.random())
            self.server.end()
            self.counts["server kills"] += 1
            time.sleep(0.2)
            self.server.start()
        time.sleep(plan.seconds)

    def end_mount(self, plan: Round) -> None:
        """End the mount in the middle of the load."""
        self.calm = False
        pid = self.desk.pid()
        number = {"kill": signal.SIGKILL, "term": signal.SIGTERM}.get(plan.end)
        if number is None:
            # Somebody works in it: it is refused until the load has stopped.
            number = signal.SIGTERM
        os.kill(pid, number)
        self.counts[f"ended by {signal.Signals(number).name}"] += 1
        if not gone(pid, 20):
            self.problems.append(f"the mount's process {pid} is still there 20 s after {number!r}")
            os.kill(pid, signal.SIGKILL)

    def recover(self, plan: Round) -> None:
        """Let what was left arrive."""
        if plan.recover == "send":
            self.desk.xnatfs("uploads", "send")
        else:
            self.mount(plan)
            if not within(RECOVERED_S, lambda: not self.on_its_way()):
                self.problems.append(f"still not sent after {RECOVERED_S:.0f} s: {self.left()}")
            done = self.desk.umount("--wait", "30")
            if done.returncode not in (0, 75):
                self.problems.append(f"umount: {done.returncode}, {done.stderr}")

    def on_its_way(self) -> list[Row]:
        """What was closed and is not on the server yet."""
        return [row for row in self.rows() if row.record and row.record.state is State.SEALED]

    def rows(self) -> list[Row]:
        """Everything in the spool; a folder may vanish while it is looked at."""
        for _ in range(20):
            with suppress(Exception):
                return self.queue.rows()
            time.sleep(0.05)
        return self.queue.rows()

    def left(self) -> str:
        """What is in the spool, in words."""
        return "; ".join(
            f"{row.record.target.labels.rpartition('/')[2]} {row.record.state.value} "
            f"{row.record.md5} ({row.record.last_error})" if row.record else row.problem
            for row in self.rows()
        )  # fmt: skip

    # -- the truth

    def held(self) -> dict[str, str]:
        """Path → MD5 of everything in the folders of the load, as the server hands it out."""
        found = {}
        rest = Rest(self.server)
        for folder in FOLDERS:
            for path, content in rest.files(f"{HELD}/resources/{folder}").items():
                found[f"{folder}/files/{path}"] = hashlib.md5(content).hexdigest()
        return found

    def judge(self) -> None:
        """Compare what the server holds with what was promised."""
        held = self.held()
        if problems := self.ledger.judge(held):
            self.problems += [*problems, f"in the spool: {self.left()}"]
        for row in self.rows():
            if row.record is not None and row.record.state is not State.OPEN:
                self.counts[f"kept as {row.record.state.value}"] += 1
            with suppress(Exception):
                self.queue.drop(row)
        self.ledger.adopt(held)


class Worker:
    """One process of the load, and the thread that keeps the ledger of it.

    Threading: workers have names of their own; the ledger is a dictionary by name.
    """

    def __init__(self, storm: Storm, mark: str, seed: int) -> None:
        self.storm = storm
        self.process = subprocess.Popen(
            [sys.executable, LOAD, storm.desk.point / SESSION / "resources", "--mark", mark,
             "--seed", str(seed), "--folders", *FOLDERS],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert self.process.stdin is not None
        mine = {
            path: content
            for path, content in storm.ledger.sure().items()
            if path.rpartition("/")[2].startswith(mark)
            and path.partition("/files/")[2] not in OTHERS
        }
        self.process.stdin.write(json.dumps(mine))
        self.process.stdin.close()
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self) -> None:
        """Keep the ledger until the worker ends."""
        storm = self.storm
        assert self.process.stdout is not None
        for line in self.process.stdout:
            words = json.loads(line)
            if "begun" in words:
                storm.ledger.begun(words["begun"])
                storm.counts["changes begun"] += 1
            elif "done" in words:
                storm.ledger.done(words["done"])
                storm.counts["changes acknowledged"] += 1
            elif "read" in words:
                storm.counts["files read and compared"] += 1
            elif "wrong" in words:
                storm.problems.append(words["wrong"])
            elif words["errno"] not in GONE:
                storm.counts["errors"] += 1
                if storm.calm:
                    storm.problems.append(f"an error without a reason: {words['failed']}")

    def join(self) -> None:
        """The mount is gone: it ends by itself."""
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.storm.problems.append("a worker hung after the mount had gone")
        self.thread.join()
        assert self.process.stderr is not None
        if said := self.process.stderr.read():
            self.storm.problems.append(f"the load itself failed: {said}")
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
