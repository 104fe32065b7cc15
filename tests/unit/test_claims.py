"""Single flight among processes: advisory claims, with and without locks."""

from __future__ import annotations

import errno
import fcntl
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.unit.test_store import noise, store_in
from xnatfs.cache.claims import Claim, Claims
from xnatfs.config import MIB
from xnatfs.errors import Interrupted
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter

_HOLDER = """
import sys
from pathlib import Path
from xnatfs.cache.claims import Claims
claims = Claims(Path(sys.argv[1]))
claim = claims.attempt(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
print("held" if claim else "taken", flush=True)
for line in sys.stdin:
    claim.release()
    print("released", flush=True)
"""


@contextmanager
def holder(
    folder: Path, name: str, first: int = 0, count: int = 1
) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds a claim until it is told something, or ended."""
    words = [sys.executable, "-c", _HOLDER, str(folder), name, str(first), str(count)]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def soon() -> Waiter:
    return Waiter(total_s=20)


def obtain(claims: Claims, arrived: Callable[[], bool] = lambda: False) -> Claim | None:
    return claims.obtain("a", arrived, lambda: None, soon())


def test_what_another_process_holds_is_not_granted(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    with holder(tmp_path, "a", 4, 4):
        assert claims.attempt("a", 7, 2) is None
        for name, first, count in (("a", 0, 4), ("a", 8, 100), ("b", 4, 4)):
            claim = claims.attempt(name, first, count)
            assert claim is not None
            claim.release()


def test_a_killed_holder_holds_nothing(tmp_path: Path) -> None:
    claims = Claims(tmp_path)
    with holder(tmp_path, "a") as other:
        assert claims.attempt("a") is None
        other.kill()
        other.wait()
        assert obtain(claims) is not None


def test_the_claim_is_ours_once_it_is_released(tmp_path: Path) -> None:
    with holder(tmp_path, "a") as other:
        assert other.stdin is not None
        looks = 0

        def arrived() -> bool:
            nonlocal looks
            looks += 1
            if looks == 3:
                other.stdin.write("release\n")
                other.stdin.flush()
            return False

        assert obtain(Claims(tmp_path), arrived) is not None


def test_what_has_arrived_needs_no_claim(tmp_path: Path) -> None:
    looks = iter([False, False, True])
    with holder(tmp_path, "a"):
        assert obtain(Claims(tmp_path), lambda: next(looks)) is None
    # Published just before the release: seen although the claim was free.
    looks = iter([False, True])
    assert obtain(Claims(tmp_path), lambda: next(looks)) is None


def test_a_holder_that_does_not_move_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("xnatfs.cache.claims._PATIENCE_S", 0.3)
    with holder(tmp_path, "a"):
        claim = obtain(Claims(tmp_path))
        assert claim is not None
        claim.beat()
        claim.release()


def test_a_wait_can_be_interrupted(tmp_path: Path) -> None:
    gone = threading.Event()
    gone.set()
    with holder(tmp_path, "a"), pytest.raises(Interrupted):
        Claims(tmp_path).obtain("a", lambda: False, lambda: None, Waiter(interrupted=gone.is_set))


def test_where_locks_are_refused_everybody_fetches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_words: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    with holder(tmp_path, "a"):
        monkeypatch.setattr(fcntl, "lockf", refuse)
        claim = obtain(Claims(tmp_path))
        assert claim is not None
        claim.release()


def test_a_folder_that_cannot_be_made_stops_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert obtain(Claims(tmp_path / "file" / "claims")) is not None


# what others brought


@pytest.mark.parametrize("size", [100_000, 3 * 8 * MIB + 77])
def test_a_look_finds_what_another_process_brought(tmp_path: Path, size: int) -> None:
    body = noise(size, 1)
    version = Version("7", "a", size, "0" * 32)
    here, there = store_in(tmp_path).open(version), store_in(tmp_path).open(version)
    assert not here.look()
    for start in range(0, size, there.block):
        there.put(start, body[start : start + there.block])
    assert not here.look()
    there.mark_verified()
    assert here.look()
    assert here.read(0, size) == body
    assert here.verified
    there.close()
    here.close()


def test_a_look_finds_blocks_as_they_are_saved(tmp_path: Path) -> None:
    body = noise(12 * MIB, 2)
    version = Version("7", "a", len(body), "0" * 32)
    here, there = store_in(tmp_path).open(version), store_in(tmp_path).open(version)
    here.put(11 * MIB, body[11 * MIB :])
    for index in (3, 4, 7):
        there.put(index * MIB, body[index * MIB : (index + 1) * MIB])
        there.save()
        here.look()
        assert here.read(index * MIB, MIB) == body[index * MIB : (index + 1) * MIB]
    # It was dropped and made again meanwhile: another file behind the same name.
    there.drop()
    there.put(0, body[:MIB])
    there.save()
    here.look()
    assert here.read(0, MIB) == body[:MIB]
    assert here.read(11 * MIB, MIB) == body[11 * MIB :]
    there.close()
    here.close()


def test_a_verdict_on_other_bytes_is_not_taken_over(tmp_path: Path) -> None:
    body = noise(9 * MIB, 3)
    version = Version("7", "a", len(body), "0" * 32)
    here, there = store_in(tmp_path).open(version), store_in(tmp_path).open(version)
    here.put(0, bytes(MIB))
    for start in range(0, len(body), MIB):
        there.put(start, body[start : start + MIB])
    there.mark_verified()
    here.look()
    assert not here.verified
    there.close()
    here.close()
