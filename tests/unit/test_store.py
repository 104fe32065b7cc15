"""The store: bytes on disk, what survives, what goes, and what is never served."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xnatfs.cache import layout
from xnatfs.cache.layout import PartMap, Seal
from xnatfs.cache.store import BLOCK, SMALL, Content, Store, Verdict
from xnatfs.config import MIB, StoreSettings
from xnatfs.errors import DiskFault
from xnatfs.model.versions import Version


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def version_of(body: bytes, path: str = "a") -> Version:
    return Version("7", path, len(body), hashlib.md5(body).hexdigest())


def store_in(folder: Path, **bounds: float) -> Store:
    return Store(StoreSettings(folder=folder, keep_free=0.0, **bounds), "server")  # type: ignore[arg-type]


def keep(store: Store, body: bytes, seed: str = "a") -> Version:
    """Put a verified content into the store and close it."""
    version = version_of(body, seed)
    content = store.open(version)
    fill(content, body)
    content.mark_verified()
    content.close()
    return version


def fill(content: Content, body: bytes) -> None:
    for start in range(0, content.size, content.block):
        assert content.put(start, body[start : start + content.block])


def place(folder: Path, version: Version) -> Path:
    return layout.content_path(folder / "server", version.key)


SMALL_BODY = noise(300_000)
BIG_BODY = noise(SMALL + 3 * MIB + 4321)


@pytest.mark.parametrize("body", [b"x", SMALL_BODY, noise(SMALL), BIG_BODY])
def test_what_was_put_is_read_again_by_the_next_process(tmp_path: Path, body: bytes) -> None:
    version = keep(store_in(tmp_path), body)
    content = store_in(tmp_path).open(version)
    assert content.complete()
    assert content.verified
    assert content.missing(0, len(body)) == []
    assert content.read(0, len(body)) == body
    assert content.read(len(body) // 2, 10) == body[len(body) // 2 :][:10]
    assert content.read(len(body), 10) == b""
    content.close()


def test_empty_content_needs_no_disk(tmp_path: Path) -> None:
    content = store_in(tmp_path).open(version_of(b""))
    assert (content.complete(), content.verified, content.read(0, 10)) == (True, True, b"")
    assert content.missing(0, 10) == []
    content.close()


def test_the_folder_is_private_and_tagged(tmp_path: Path) -> None:
    keep(store_in(tmp_path / "cache"), SMALL_BODY)
    keep(store_in(tmp_path / "cache"), BIG_BODY)
    tag = (tmp_path / "cache" / "CACHEDIR.TAG").read_text()
    assert tag.startswith("Signature: 8a477f597d28d172789f06886806bc55")
    for path in (tmp_path / "cache").rglob("*"):
        assert path.stat().st_mode & 0o077 == 0, path
    assert (tmp_path / "cache").stat().st_mode & 0o777 == 0o700


def test_a_folder_that_cannot_be_made_is_a_fault_that_names_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DiskFault, match="file"):
        store_in(tmp_path / "file")


def test_small_content_is_published_only_when_marked(tmp_path: Path) -> None:
    version = version_of(SMALL_BODY)
    content = store_in(tmp_path).open(version)
    fill(content, SMALL_BODY)
    assert content.read(0, 10) == SMALL_BODY[:10]
    assert not place(tmp_path, version).exists()
    content.mark_verified()
    assert place(tmp_path, version).stat().st_size == len(SMALL_BODY) + layout.SEAL_SIZE
    assert content.read(0, 10) == SMALL_BODY[:10]
    content.close()


@pytest.mark.parametrize("at", [0, 150_000, 299_999, 300_000, 300_008, 300_031])
def test_a_damaged_small_content_is_never_served(tmp_path: Path, at: int) -> None:
    version = keep(store_in(tmp_path), SMALL_BODY)
    flip(place(tmp_path, version), at)
    content = store_in(tmp_path).open(version)
    assert content.read(0, 1) is None
    assert content.missing(5, 1) == [(0, len(SMALL_BODY))]
    assert not place(tmp_path, version).exists()
    content.close()


@pytest.mark.parametrize("length", [0, 31, 1000, 300_000, 300_031])
def test_a_torn_small_content_is_never_served(tmp_path: Path, length: int) -> None:
    version = keep(store_in(tmp_path), SMALL_BODY)
    os.truncate(place(tmp_path, version), length)
    content = store_in(tmp_path).open(version)
    assert content.read(0, 1) is None
    content.close()


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0xFF]))


def test_small_content_is_checked_once_in_a_process(tmp_path: Path) -> None:
    version = keep(store_in(tmp_path), SMALL_BODY)
    store = store_in(tmp_path)
    store.open(version).close()
    stat = place(tmp_path, version).stat()
    flip(place(tmp_path, version), 5)
    os.utime(place(tmp_path, version), ns=(stat.st_atime_ns, stat.st_mtime_ns))
    content = store.open(version)
    assert content.complete(), "the same file was looked at again"
    content.close()
    os.utime(place(tmp_path, version))
    content = store.open(version)
    assert not content.complete(), "a changed file was not looked at again"
    content.close()


def test_a_partly_read_big_content_survives_a_restart(tmp_path: Path) -> None:
    version = version_of(BIG_BODY)
    content = store_in(tmp_path).open(version)
    content.put(2 * BLOCK, BIG_BODY[2 * BLOCK : 4 * BLOCK])
    assert content.missing(0, 5 * BLOCK) == [(0, 2 * BLOCK), (4 * BLOCK, BLOCK)]
    content.close()
    content = store_in(tmp_path).open(version)
    assert content.read(2 * BLOCK + 5, 2 * BLOCK - 5) == BIG_BODY[2 * BLOCK + 5 : 4 * BLOCK]
    assert content.read(BLOCK, BLOCK + 1) is None
    assert content.verdict is Verdict.OPEN
    content.close()


def test_a_big_content_takes_the_room_of_its_blocks_only(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    version = Version("7", "a", 2000 * MIB, "0" * 32)
    content = store.open(version)
    content.put(1000 * BLOCK, noise(BLOCK))
    content.close()
    assert BLOCK <= store.stats().bytes < 4 * BLOCK


def test_a_damaged_block_is_dropped_and_only_that(tmp_path: Path) -> None:
    version = keep(store_in(tmp_path), BIG_BODY)
    (part,) = place(tmp_path, version).glob("*.bytes")
    flip(part, 3 * BLOCK + 77)
    content = store_in(tmp_path).open(version)
    assert content.read(0, 3 * BLOCK) == BIG_BODY[: 3 * BLOCK]
    assert content.read(3 * BLOCK, 10) is None
    assert content.missing(0, content.size) == [(3 * BLOCK, BLOCK)]
    assert not content.put(3 * BLOCK, noise(BLOCK, 99)), "another block was taken for the lost one"
    assert content.put(3 * BLOCK, BIG_BODY[3 * BLOCK : 4 * BLOCK])
    assert content.read(0, content.size) == BIG_BODY
    content.close()
    content = store_in(tmp_path).open(version)
    assert content.read(0, content.size) == BIG_BODY
    assert content.verified
    content.close()


@pytest.mark.parametrize("at", [0, 9, 20, 60, 70, -1])
def test_a_damaged_map_is_not_believed(tmp_path: Path, at: int) -> None:
    version = keep(store_in(tmp_path), BIG_BODY)
    (found,) = place(tmp_path, version).glob("*.map")
    flip(found, at % found.stat().st_size)
    content = store_in(tmp_path).open(version)
    assert content.missing(0, content.size) == [(0, content.size)]
    content.close()


def test_a_map_without_its_bytes_is_not_believed(tmp_path: Path) -> None:
    version = keep(store_in(tmp_path), BIG_BODY)
    (part,) = place(tmp_path, version).glob("*.bytes")
    part.unlink()
    content = store_in(tmp_path).open(version)
    assert content.read(0, 1) is None
    content.close()


def test_a_truncated_part_serves_what_it_has(tmp_path: Path) -> None:
    version = keep(store_in(tmp_path), BIG_BODY)
    (part,) = place(tmp_path, version).glob("*.bytes")
    os.truncate(part, 2 * BLOCK + 5)
    content = store_in(tmp_path).open(version)
    assert content.read(0, 2 * BLOCK) == BIG_BODY[: 2 * BLOCK]
    assert content.read(2 * BLOCK, 5) is None
    content.close()


def test_two_processes_complete_each_others_content(tmp_path: Path) -> None:
    version = version_of(BIG_BODY)
    one, two = store_in(tmp_path).open(version), store_in(tmp_path).open(version)
    one.put(0, BIG_BODY[: 6 * BLOCK])
    two.put(5 * BLOCK, BIG_BODY[5 * BLOCK :])
    one.close()
    two.close()
    content = store_in(tmp_path).open(version)
    assert content.complete()
    assert content.read(0, content.size) == BIG_BODY
    content.mark_verified()
    content.close()
    content = store_in(tmp_path).open(version)
    assert content.read(0, content.size) == BIG_BODY
    content.close()


def test_blocks_of_two_dates_are_not_mixed(tmp_path: Path) -> None:
    version = version_of(BIG_BODY)
    one, two = store_in(tmp_path).open(version), store_in(tmp_path).open(version)
    for content, date in ((one, "Mon"), (two, "Tue")):
        content.modified = date
    one.put(0, BIG_BODY[:MIB])
    one.close()
    two.put(MIB, bytes(MIB))
    two.save()
    two.look()
    assert two.read(0, 10) is None
    two.close()
    content = store_in(tmp_path).open(version)
    here = [content.read(0, MIB), content.read(MIB, MIB)]
    assert (content.modified, here) in (
        ("Mon", [BIG_BODY[:MIB], None]),
        ("Tue", [None, bytes(MIB)]),
    )
    content.close()


def test_nobody_writes_over_what_another_process_has_checked(tmp_path: Path) -> None:
    version = version_of(BIG_BODY)
    one, two = store_in(tmp_path).open(version), store_in(tmp_path).open(version)
    fill(one, BIG_BODY)
    one.mark_verified()
    two.put(0, noise(BLOCK, 99))
    two.save()
    assert one.read(0, BLOCK) == BIG_BODY[:BLOCK]
    two.close()
    one.close()
    content = store_in(tmp_path).open(version)
    assert content.verified
    assert content.read(0, content.size) == BIG_BODY
    content.close()


def test_one_content_for_all_openings_of_a_process(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    version = version_of(BIG_BODY)
    one, two = store.open(version), store.open(version)
    one.put(0, BIG_BODY[:BLOCK])
    assert two.read(0, BLOCK) == BIG_BODY[:BLOCK]
    one.close()
    assert two.read(0, BLOCK) == BIG_BODY[:BLOCK]
    two.close()
    assert (store.stats().hits, store.stats().misses) == (0, 2)


def test_opening_and_closing_by_many_threads_loses_nothing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    version = version_of(BIG_BODY)
    blocks = range(0, len(BIG_BODY), BLOCK)
    wrong: list[int] = []

    def work(seed: int) -> None:
        order = random.Random(seed).sample(blocks, len(blocks))
        for start in order:
            content = store.open(version)
            content.put(start, BIG_BODY[start : start + BLOCK])
            if content.read(start, 100) != BIG_BODY[start : start + 100]:
                wrong.append(start)
            content.close()

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    content = store_in(tmp_path).open(version)
    assert content.read(0, content.size) == BIG_BODY
    content.close()
    assert len(list(place(tmp_path, version).glob("*.bytes"))) == 1


def test_a_content_that_contradicts_the_catalog_is_not_verified(tmp_path: Path) -> None:
    for body in (SMALL_BODY, BIG_BODY):
        version = Version("7", "a", len(body), "0" * 32)
        content = store_in(tmp_path).open(version)
        fill(content, body)
        content.mark_contradicting()
        content.close()
        content = store_in(tmp_path).open(version)
        assert content.verdict is Verdict.CONTRADICTS
        assert not content.verified
        assert content.read(0, 100) == body[:100]
        content.close()


def test_drop_forgets_here_and_on_disk(tmp_path: Path) -> None:
    for body in (SMALL_BODY, BIG_BODY):
        store = store_in(tmp_path)
        version = keep(store, body)
        content = store.open(version)
        content.drop()
        assert content.read(0, 1) is None
        assert content.verdict is Verdict.OPEN
        assert not place(tmp_path, version).exists()
        fill(content, body)
        content.mark_verified()
        content.close()
        assert place(tmp_path, version).exists()


def test_forget_and_clear(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    bodies = [noise(1000, seed) for seed in range(4)]
    versions = [keep(store, body, str(index)) for index, body in enumerate(bodies)]
    store.forget(versions[0])
    assert store.stats().files == 3
    content = store.open(versions[1])
    store.clear()
    assert store.stats().files == 1
    assert content.read(0, 1000) == bodies[1]
    store.forget(versions[1])
    assert content.read(0, 1000) is None
    content.close()
    assert store.stats().files == 0


def test_verify_finds_and_drops_what_is_damaged(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    versions = [keep(store, noise(1000, seed), str(seed)) for seed in range(3)]
    big = keep(store, BIG_BODY)
    assert store.verify() == (4, 0)
    flip(place(tmp_path, versions[0]), 10)
    (part,) = place(tmp_path, big).glob("*.bytes")
    flip(part, 10)
    assert store.verify() == (4, 2)
    assert store.verify() == (2, 0)


# bounds


def aged(path: Path, seconds: float) -> None:
    files = path.iterdir() if path.is_dir() else [path]
    for file in files:
        then = time.time() - seconds
        os.utime(file, (then, then))


def test_the_least_recently_used_goes_first_and_never_what_is_open(tmp_path: Path) -> None:
    bodies = [noise(MIB, seed) for seed in range(4)]
    versions = [keep(store_in(tmp_path), body) for body in bodies]
    store = store_in(tmp_path, size=4 * MIB)
    for index, version in enumerate(versions):
        aged(place(tmp_path, version), 10_000 - 1000 * index)
    oldest = store.open(versions[0])
    store.open(versions[1]).close()
    aged(place(tmp_path, versions[0]), 50_000)
    store.sweep()
    kept = [place(tmp_path, version).exists() for version in versions]
    assert kept == [True, True, False, True]
    assert store.stats().evictions == 1
    assert oldest.read(0, MIB) == bodies[0]
    oldest.close()


def test_what_is_too_old_goes(tmp_path: Path) -> None:
    store = store_in(tmp_path, max_age_s=3600.0)
    old, young = keep(store, noise(1000, 1), "1"), keep(store, BIG_BODY, "2")
    aged(place(tmp_path, old), 4000)
    aged(place(tmp_path, young), 3000)
    store.sweep()
    assert (place(tmp_path, old).exists(), place(tmp_path, young).exists()) == (False, True)
    aged(place(tmp_path, young), 4000)
    store.sweep()
    assert store.stats().files == 0


def test_the_bound_holds_while_content_arrives(tmp_path: Path) -> None:
    store = store_in(tmp_path, size=10 * MIB)
    for seed in range(40):
        keep(store, noise(MIB, seed), str(seed))
        assert store.stats().bytes <= 10 * MIB
    assert store.stats().files >= 3


def test_a_content_larger_than_the_store_is_read_all_the_same(tmp_path: Path) -> None:
    store = store_in(tmp_path, size=3 * MIB)
    content = store.open(version_of(BIG_BODY))
    for start in range(0, len(BIG_BODY), BLOCK):
        content.put(start, BIG_BODY[start : start + BLOCK])
        assert content.read(start, BLOCK) == BIG_BODY[start : start + BLOCK]
        store.sweep()
    assert not content.on_disk
    assert store.stats().files == 1
    content.close()


def test_what_another_process_evicts_still_reads(tmp_path: Path) -> None:
    for body in (SMALL_BODY, BIG_BODY):
        version = keep(store_in(tmp_path), body)
        content = store_in(tmp_path).open(version)
        store_in(tmp_path).clear()
        assert not place(tmp_path, version).exists()
        assert content.read(0, len(body)) == body
        content.close()


def test_an_evicted_content_takes_more_and_serves_it(tmp_path: Path) -> None:
    version = version_of(BIG_BODY)
    content = store_in(tmp_path).open(version)
    content.put(0, BIG_BODY[:BLOCK])
    content.save()
    store_in(tmp_path).clear()
    fill(content, BIG_BODY)
    assert content.read(0, content.size) == BIG_BODY
    content.mark_verified()
    content.close()
    content = store_in(tmp_path).open(version)
    found = content.read(0, BLOCK)
    assert found in (None, BIG_BODY[:BLOCK])
    content.close()


def test_leftovers_of_killed_processes_go(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    spread = place(tmp_path, keep(store, SMALL_BODY)).parent
    fresh, stale = spread / f"{layout.BESIDE}1", spread / f"{layout.BESIDE}2"
    doomed = spread / f"{layout.DOOMED}3"
    fresh.write_bytes(b"x")
    stale.write_bytes(b"x")
    aged(stale, 100_000)
    doomed.mkdir()
    (doomed / "part.bytes").write_bytes(b"x")
    store.sweep()
    assert fresh.exists()
    assert not stale.exists()
    assert not doomed.exists()
    assert store.stats().files == 1


@contextlib.contextmanager
def tiny_disk(folder: Path, size: str) -> Iterator[Path]:
    folder.mkdir()
    if shutil.which("mount") is None or os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)], check=False
    )
    if done.returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_a_full_disk_never_fails_a_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with tiny_disk(tmp_path / "disk", "1m") as disk:
        store = store_in(disk)
        for body in (noise(2 * MIB), BIG_BODY):
            content = store.open(version_of(body))
            fill(content, body)
            content.mark_verified()
            assert content.read(0, len(body)) == body
            assert not content.on_disk
            content.close()
        content = store.open(version_of(b"tiny"))
        fill(content, b"tiny")
        content.mark_verified()
        assert content.read(0, 4) == b"tiny"
        content.close()
        assert not list(disk.rglob(".new-*"))
    told = [record for record in caplog.records if record.levelname == "WARNING"]
    assert len(told) == 1
    assert os.strerror(errno.ENOSPC) in told[0].getMessage()


def test_memory_is_bounded_when_the_disk_is_full(tmp_path: Path) -> None:
    with tiny_disk(tmp_path / "disk", "1m") as disk:
        store = store_in(disk)
        content = store.open(Version("7", "a", 500 * MIB, "0" * 32))
        for index in range(100):
            content.put(index * MIB, noise(MIB, index))
            assert content.read(index * MIB, MIB) == noise(MIB, index)
        assert store.stats().bytes <= 65 * MIB
        assert content.missing(0, MIB) in ([], [(0, MIB)])
        assert len(content.missing(0, 100 * MIB)) >= 1
        content.close()


# kill -9

_WRITER = """
import hashlib, random, sys
from pathlib import Path
from xnatfs.cache.store import Store
from xnatfs.config import StoreSettings
from xnatfs.model.versions import Version
store = Store(StoreSettings(folder=Path(sys.argv[1]), keep_free=0.0), "server")
order = random.Random(int(sys.argv[2]))
print("ready", flush=True)
while True:
    seed = order.randrange(6)
    body = random.Random(seed).randbytes(11 << 20 if seed < 2 else 200_000)
    version = Version("7", str(seed), len(body), hashlib.md5(body).hexdigest())
    content = store.open(version)
    starts = list(range(0, content.size, content.block))
    order.shuffle(starts)
    for start in starts:
        content.put(start, body[start : start + content.block])
    content.mark_verified()
    content.close()
    if order.random() < 0.3:
        store.forget(version)
"""


def test_killing_writers_at_any_moment_never_leaves_a_wrong_byte(tmp_path: Path) -> None:
    bodies = [noise(11 << 20 if seed < 2 else 200_000, seed) for seed in range(6)]
    moments = random.Random(5)
    served = 0
    for turn in range(6):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", _WRITER, str(tmp_path), str(10 * turn + number)],
                stdout=subprocess.PIPE,
            )
            for number in range(2)
        ]
        for writer in writers:
            assert writer.stdout is not None
            assert writer.stdout.readline() == b"ready\n"
        time.sleep(moments.uniform(0.02, 0.5))
        for writer in writers:
            writer.kill()
        for writer in writers:
            writer.wait()
            assert writer.stdout is not None
            writer.stdout.close()
        store = store_in(tmp_path)
        for seed, body in enumerate(bodies):
            content = store.open(version_of(body, str(seed)))
            for start in range(0, content.size, content.block):
                found = content.read(start, content.block)
                assert found in (None, body[start : start + content.block])
                served += found is not None
            assert content.read(0, content.size) in (None, body)
            content.close()
    assert served > 0


# layout


@given(
    size=st.integers(SMALL + 1, 40 * MIB),
    choice=st.randoms(use_true_random=False),
    verdict=st.sampled_from(Verdict),
)
def test_a_map_tells_what_was_packed(size: int, choice: random.Random, verdict: Verdict) -> None:
    blocks = layout.block_count(size)
    states = bytes(choice.choices([layout.HERE, layout.KNOWN], k=blocks))
    if verdict is Verdict.OPEN:
        states = bytes(choice.choices([layout.ABSENT, layout.HERE], k=blocks))
    crcs = array("I", [choice.getrandbits(32) for _ in range(blocks)])
    part = PartMap(verdict, states, crcs, choice.choice(["", "Mon, 01 Jan 2024 00:00:00 GMT"]))
    raw = layout.pack_map(size, part)
    assert layout.parse_map(raw, size) == part
    assert layout.parse_map(raw, size + MIB) is None
    assert layout.parse_map(raw[: choice.randrange(len(raw))], size) is None
    spot = choice.randrange(len(raw))
    broken = raw[:spot] + bytes([raw[spot] ^ (1 << choice.randrange(8))]) + raw[spot + 1 :]
    assert layout.parse_map(broken, size) is None


@given(size=st.integers(0, 2**40), crc=st.integers(0, 2**32 - 1), spot=st.integers(0, 31))
def test_a_seal_tells_what_was_packed(size: int, crc: int, spot: int) -> None:
    seal = Seal(Verdict.VERIFIED, size, crc)
    raw = layout.pack_seal(seal)
    assert len(raw) == layout.SEAL_SIZE
    assert layout.parse_seal(raw) == seal
    broken = raw[:spot] + bytes([raw[spot] ^ 1]) + raw[spot + 1 :]
    assert layout.parse_seal(broken) is None


@settings(max_examples=25, deadline=None)
@given(data=st.data(), last=st.integers(1, MIB))
def test_missing_and_read_agree_with_what_was_put(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, last: int
) -> None:
    size = 9 * MIB + last
    body = (noise(MIB, 3) * 10)[:size]
    here = data.draw(st.sets(st.integers(0, 9)))
    content = store_in(tmp_path_factory.mktemp("store")).open(version_of(body))
    for index in here:
        content.put(index * MIB, body[index * MIB : (index + 1) * MIB])
    offset = data.draw(st.integers(0, size + MIB))
    length = data.draw(st.integers(0, 4 * MIB))
    gaps = content.missing(offset, length)
    end = min(size, offset + length)
    asked = set(range(offset // MIB, -(-end // MIB))) if end > offset else set()
    lacking = {
        index for start, gap in gaps for index in range(start // MIB, -(-(start + gap) // MIB))
    }
    assert lacking == asked - here
    assert gaps == sorted(gaps)
    for (start, gap), (following, _gap) in itertools.pairwise(gaps):
        assert start + gap < following
    for start, gap in gaps:
        assert start % BLOCK == 0
        assert start + gap <= size
    assert content.read(offset, length) == (None if lacking else body[offset:end])
    content.close()
