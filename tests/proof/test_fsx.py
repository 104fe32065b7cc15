"""Random operations over the real kernel, compared byte for byte; and fio's own checksums."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import HELD, Desk
from xnatfs.demo.server import DemoServer

FSX = Path(__file__).with_name("fsx.py")
SEED = int(os.environ.get("XNATFS_SEED", "1"))


def fsx(folder: Path, operations: int, seed: int) -> dict[str, str]:
    """Runs it; file name → MD5 of what must be there."""
    words = [sys.executable, FSX, folder, "--operations", str(operations), "--seed", str(seed)]
    done = subprocess.run(
        [*map(str, words)], capture_output=True, text=True, timeout=1500, check=False
    )
    print(done.stdout, done.stderr)
    assert done.returncode == 0, done.stderr
    held: dict[str, str] = json.loads(done.stdout)["files"]
    return held


def held(server: DemoServer, label: str) -> dict[str, str]:
    files = Rest(server).files(f"{HELD}/resources/{label}")
    return {name: hashlib.md5(content).hexdigest() for name, content in files.items()}


@pytest.mark.parametrize(
    "operations", [3000, pytest.param(50_000, marks=[pytest.mark.long, pytest.mark.timeout(1600)])]
)
def test_fsx(desk: Desk, server: DemoServer, operations: int) -> None:
    with desk.mounted():
        desk.works("mkdir resources/FSX")
        files = desk.session / "resources/FSX/files"
        wanted = fsx(files, operations, SEED)
    assert held(server, "FSX") == wanted
    # Another mount, another store: the same bytes from the server.
    with desk.mounted():
        output = desk.works("cd resources/FSX/files && md5sum *")
    assert {line[34:]: line[:32] for line in output.splitlines()} == wanted


def test_fsx_is_right_on_a_local_disk(tmp_path: Path) -> None:
    wanted = fsx(tmp_path, 3000, SEED)
    found = {it.name: hashlib.md5(it.read_bytes()).hexdigest() for it in tmp_path.iterdir()}
    assert found == wanted


@pytest.mark.parametrize("pattern", ["write", "randwrite", "rw"])
def test_fio_verifies(desk: Desk, pattern: str) -> None:
    """fio writes blocks that carry their CRC, and reads them back: here, and in another mount."""
    words = [
        "fio", "--name=fio", "--filename=fio.bin", "--size=3m", "--bs=4k-96k", f"--rw={pattern}",
        "--verify=crc32c", "--verify_fatal=1", "--fallocate=none", f"--randseed={SEED}",
        "--output=/dev/null",
    ]  # fmt: skip
    command = "cd resources/FIO/files && " + " ".join(words)
    with desk.mounted():
        desk.works(f"mkdir resources/FIO && {command} --end_fsync=1 --do_verify=1")
    with desk.mounted():
        desk.works(f"{command} --verify_only")
