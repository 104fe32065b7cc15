"""Downloads: true bytes or an error, one transfer for all readers, whatever the far end does."""

from __future__ import annotations

import contextlib
import hashlib
import os
import random
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from xnatfs.cache import layout
from xnatfs.cache.store import BLOCK, SMALL, Store
from xnatfs.config import KIB, MIB, Limits, StoreSettings
from xnatfs.download.reader import Downloads, Reader
from xnatfs.errors import (
    BadReply,
    ContentProblem,
    Contradiction,
    Interrupted,
    NotPermitted,
    ServerBusy,
    ServerFault,
    Stale,
    TimedOut,
    TransferBroken,
    Unreachable,
)
from xnatfs.model.entities import Head
from xnatfs.model.versions import Version
from xnatfs.waiting import Waiter, Workers

PIECE = 128 * KIB
DATE = "Mon, 01 Jan 2024 00:00:00 GMT"


def noise(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


SMALL_BODY = noise(300_000)
BIG_BODY = noise(SMALL + 5 * MIB + 4321)


def version_of(body: bytes, digest: str | None = None, modified: str = "") -> Version:
    md5 = hashlib.md5(body).hexdigest() if digest is None else digest
    return Version("7", "a/b.dcm", len(body), md5, modified)


class Server:
    """The far end: serves ``body``; ``script`` may change what the n-th GET does.

    ``script(number, start, piece)`` is called for each piece before it is sent, and returns what
    is sent instead of it, or raises.
    """

    def __init__(
        self,
        body: bytes,
        script: Callable[[int, int, bytes], bytes] = lambda number, start, piece: piece,
        modified: str = DATE,
        size: int | None = None,
    ) -> None:
        self.body = body
        self.script = script
        self.modified = modified
        self.size = len(body) if size is None else size
        self.gets: list[tuple[int, int | None]] = []
        self._mu = threading.Lock()

    def fetch(
        self,
        start: int,
        length: int | None,
        modified: str,
        sink: Callable[[bytes], None],
        waiter: Waiter,
    ) -> Head:
        with self._mu:
            number = len(self.gets)
            self.gets.append((start, length))
        if modified and self.modified != modified:
            raise Stale(f"a version of {self.modified}")
        end = len(self.body) if length is None else start + length
        at = start
        while at < end:
            waiter.check("the far end")
            piece = self.script(number, at, self.body[at : min(end, at + 256 * KIB)])
            sink(piece)
            at += len(piece)
        return Head(self.size, self.modified)

    def asked(self) -> list[int]:
        """How often each block was asked for."""
        counts = [0] * -(-len(self.body) // BLOCK)
        for start, length in self.gets:
            end = len(self.body) if length is None else start + length
            for index in range(start // BLOCK, -(-end // BLOCK)):
                counts[index] += 1
        return counts


class Bench:
    def __init__(self, folder: Path, verify: str = "strict", timeout: float = 2.0) -> None:
        self.folder = folder
        settings = StoreSettings(folder=folder, keep_free=0.0, verify=verify)
        self.store = Store(settings, "server")
        self.downloads = Downloads(
            self.store, Workers(8, "transfer"), Limits(io_timeout_s=timeout), settings
        )

    def open(self, server: Server, version: Version | None = None) -> Reader:
        return self.downloads.open(version or version_of(server.body), server.fetch, "P/a/b.dcm")


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def waiter(idle_s: float = 20.0) -> Waiter:
    return Waiter(idle_s=idle_s)


def whole(reader: Reader, size: int, step: int = PIECE) -> bytes:
    return b"".join(reader.read(offset, step, waiter()) for offset in range(0, size, step))


def settled(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "it never happened"
        time.sleep(0.005)


# the plain way


@pytest.mark.parametrize("body", [b"", b"x", SMALL_BODY, noise(SMALL), BIG_BODY])
def test_every_byte_arrives(bench: Bench, body: bytes) -> None:
    server = Server(body)
    reader = bench.open(server)
    assert whole(reader, len(body)) == body
    assert reader.read(len(body), 10, waiter()) == b""
    assert reader.read(max(0, len(body) - 3), 10, waiter()) == body[-3:]
    assert reader.verified == "md5"
    reader.close()
    assert max(server.asked(), default=0) <= 1
    assert bench.downloads.stats().fetched == len(body)
    assert bench.downloads.stats().served == len(body) + len(body[-3:])


def test_a_small_file_is_one_get_without_range(bench: Bench) -> None:
    server = Server(SMALL_BODY)
    reader = bench.open(server)
    assert reader.read(200_000, 10, waiter()) == SMALL_BODY[200_000:200_010]
    assert whole(reader, len(SMALL_BODY)) == SMALL_BODY
    assert server.gets == [(0, None)]
    reader.close()


def test_opening_asks_the_server_nothing(bench: Bench) -> None:
    server = Server(BIG_BODY)
    bench.open(server).close()
    assert server.gets == []


@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_the_second_time_comes_from_the_store(bench: Bench, tmp_path: Path, body: bytes) -> None:
    server = Server(body)
    reader = bench.open(server)
    whole(reader, len(body))
    reader.close()
    for again in (bench, Bench(tmp_path)):
        nobody = Server(body, script=refuse)
        reader = again.open(nobody)
        assert reader.verified == "md5"
        assert whole(reader, len(body)) == body
        assert nobody.gets == []
        reader.close()


def refuse(number: int, start: int, piece: bytes) -> bytes:
    raise NotPermitted("not for you")


def test_a_random_reader_fetches_aligned_blocks_only(bench: Bench) -> None:
    server = Server(BIG_BODY)
    reader = bench.open(server)
    for index in (9, 3, 6):
        offset = index * MIB + 5000
        assert reader.read(offset, 64 * KIB, waiter()) == BIG_BODY[offset:][: 64 * KIB]
    reader.close()
    assert server.gets == [(index * MIB, 2 * BLOCK) for index in (9, 3, 6)]


def test_a_read_over_the_border_of_blocks(bench: Bench) -> None:
    server = Server(BIG_BODY)
    reader = bench.open(server)
    reader.read(5 * MIB, 10, waiter())
    offset, size = 4 * MIB - 7, 3 * MIB + 11
    assert reader.read(offset, size, waiter()) == BIG_BODY[offset : offset + size]
    assert server.asked()[offset // BLOCK : (offset + size) // BLOCK + 1] == [1] * 50
    reader.close()


def test_a_walking_reader_finds_windows_ahead(bench: Bench) -> None:
    gate = threading.Event()

    def script(number: int, start: int, piece: bytes) -> bytes:
        if start >= 5 * MIB:
            assert gate.wait(20)
        return piece

    server = Server(noise(40 * MIB), script)
    reader = bench.open(server)
    reader.read(0, PIECE, waiter())
    reader.read(PIECE, PIECE, waiter())
    settled(lambda: len(server.gets) == 4)
    ahead = 2 * PIECE
    assert sorted(server.gets)[:2] == [(0, PIECE), (PIECE, PIECE)]
    assert sorted(server.gets)[2:] == [(ahead, MIB), (ahead + MIB, 2 * MIB)]
    for offset in range(ahead, MIB + PIECE, PIECE):
        reader.read(offset, PIECE, waiter())
    settled(lambda: (ahead + 3 * MIB, 4 * MIB) in server.gets)
    assert reader.read(4 * MIB, 10, waiter()) == server.body[4 * MIB :][:10]
    gate.set()
    reader.close()


def test_closing_gives_up_windows_that_nobody_waits_for(bench: Bench) -> None:
    going = threading.Event()

    def slow(number: int, start: int, piece: bytes) -> bytes:
        if start >= 2 * MIB:
            assert going.wait(20)
        return piece

    server = Server(noise(64 * MIB), slow)
    reader = bench.open(server)
    reader.read(0, PIECE, waiter())
    reader.read(PIECE, PIECE, waiter())
    settled(lambda: len(server.gets) == 4)
    reader.close()
    going.set()
    settled(lambda: not bench.downloads._alive)
    assert bench.downloads.stats().fetched <= 4 * MIB


# many readers


@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_one_transfer_for_a_range_however_many_readers(bench: Bench, body: bytes) -> None:
    def slow(number: int, start: int, piece: bytes) -> bytes:
        time.sleep(0.002)
        return piece

    server = Server(body, slow)
    start = threading.Barrier(16)

    def work(seed: int) -> bool:
        reader = bench.open(server)
        start.wait()
        found = whole(reader, len(body), PIECE) if seed % 2 else scattered(reader, seed)
        reader.close()
        return found == body

    def scattered(reader: Reader, seed: int) -> bytes:
        offsets = list(range(0, len(body), PIECE))
        random.Random(seed).shuffle(offsets)
        pieces = {offset: reader.read(offset, PIECE, waiter()) for offset in offsets}
        return b"".join(pieces[offset] for offset in sorted(pieces))

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(work, range(16)))
    assert max(server.asked()) == 1
    assert bench.downloads.stats().fetched == len(body)


def test_many_threads_on_one_reader(bench: Bench) -> None:
    server = Server(BIG_BODY)
    reader = bench.open(server)

    def work(offset: int) -> bool:
        return reader.read(offset, PIECE, waiter()) == BIG_BODY[offset : offset + PIECE]

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(0, len(BIG_BODY), PIECE)))
    assert max(server.asked()) == 1
    assert reader.verified == "md5"
    reader.close()


def test_an_interrupted_reader_leaves_and_the_transfer_goes_on(bench: Bench) -> None:
    gate = threading.Event()

    def stall(number: int, start: int, piece: bytes) -> bytes:
        assert gate.wait(20)
        return piece

    server = Server(SMALL_BODY, stall)
    stays, leaves = bench.open(server), bench.open(server)
    with ThreadPoolExecutor(1) as pool:
        patient = pool.submit(stays.read, 0, 100, waiter())
        settled(lambda: len(server.gets) == 1)
        with pytest.raises(Interrupted):
            leaves.read(0, 100, Waiter(interrupted=lambda: True))
        with pytest.raises(TimedOut):
            leaves.read(0, 100, Waiter(total_s=0.05))
        leaves.close()
        gate.set()
        assert patient.result(20) == SMALL_BODY[:100]
    assert server.gets == [(0, None)]
    stays.close()


def test_a_small_file_arrives_though_its_reader_left(bench: Bench) -> None:
    gate = threading.Event()

    def stall(number: int, start: int, piece: bytes) -> bytes:
        assert gate.wait(20)
        return piece

    server = Server(SMALL_BODY, stall)
    reader = bench.open(server)
    with pytest.raises(Interrupted):
        reader.read(0, 100, Waiter(interrupted=lambda: bool(server.gets)))
    reader.close()
    gate.set()
    settled(lambda: not bench.downloads._alive)
    reader = bench.open(server)
    assert reader.read(0, 100, waiter()) == SMALL_BODY[:100]
    assert server.gets == [(0, None)]
    reader.close()


def test_slow_is_not_stalled(tmp_path: Path) -> None:
    bench = Bench(tmp_path, timeout=0.4)

    def slow(number: int, start: int, piece: bytes) -> bytes:
        time.sleep(0.1)
        return piece

    server = Server(noise(2 * MIB), slow)
    reader = bench.open(server)
    assert reader.read(MIB, 10, Waiter(idle_s=0.4)) == server.body[MIB:][:10]
    reader.close()


# what breaks


def breaks_at(*positions: int) -> Callable[[int, int, bytes], bytes]:
    """The n-th GET breaks when it reaches the n-th position."""

    def script(number: int, start: int, piece: bytes) -> bytes:
        if number < len(positions) and start <= positions[number] < start + len(piece):
            if start == positions[number]:
                raise TransferBroken("reset by peer")
            return piece[: positions[number] - start]
        return piece

    return script


def test_a_broken_small_transfer_is_resumed_at_the_byte(bench: Bench) -> None:
    server = Server(SMALL_BODY, breaks_at(100_001, 200_002))
    reader = bench.open(server)
    assert whole(reader, len(SMALL_BODY)) == SMALL_BODY
    assert server.gets == [(0, None), (100_001, 199_999), (200_002, 99_998)]
    assert bench.downloads.stats().fetched == len(SMALL_BODY)
    assert bench.downloads.stats().retries == 2
    reader.close()


def test_a_broken_range_is_resumed_at_the_byte(bench: Bench) -> None:
    server = Server(BIG_BODY, breaks_at(4 * MIB + 12345))
    reader = bench.open(server)
    assert reader.read(4 * MIB, MIB, waiter()) == BIG_BODY[4 * MIB : 5 * MIB]
    assert server.gets == [(4 * MIB, MIB), (4 * MIB + 12345, MIB - 12345)]
    reader.close()


def test_a_reply_that_ends_early_is_no_end_of_file(bench: Bench) -> None:
    class Short(Server):
        def fetch(self, start, length, modified, sink, waiter):  # type: ignore[no-untyped-def]
            self.gets.append((start, length))
            sink(self.body[start : start + min(length, 300 * KIB)])
            return Head(len(self.body), DATE)

    server = Short(BIG_BODY)
    reader = bench.open(server)
    assert reader.read(0, MIB, waiter()) == BIG_BODY[:MIB]
    reader.close()


@pytest.mark.parametrize(
    "error",
    [
        Unreachable("no route"),
        ServerBusy("come back", retry_after=0.05),
        TimedOut("slow"),
        TransferBroken("reset"),
    ],
)
@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_what_passes_is_waited_for(bench: Bench, body: bytes, error: Exception) -> None:
    def script(number: int, start: int, piece: bytes) -> bytes:
        if number == 0:
            raise error
        return piece

    server = Server(body, script)
    reader = bench.open(server)
    assert reader.read(0, 1000, waiter()) == body[:1000]
    reader.close()


@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_what_does_not_pass_is_an_error_for_all_and_can_be_tried_again(
    tmp_path: Path, body: bytes
) -> None:
    bench = Bench(tmp_path, timeout=0.5)
    down = True

    def script(number: int, start: int, piece: bytes) -> bytes:
        if down:
            raise Unreachable("no route")
        return piece

    server = Server(body, script)
    readers = [bench.open(server) for _ in range(4)]

    def work(reader: Reader) -> type[Exception] | None:
        try:
            reader.read(0, 100, waiter())
        except Unreachable as error:
            return type(error)
        return None

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(work, readers)) == [Unreachable] * 4
    down = False
    for reader in readers:
        assert reader.read(0, 100, waiter()) == body[:100]
        reader.close()


def test_a_refusal_is_not_tried_again(bench: Bench) -> None:
    server = Server(SMALL_BODY, refuse)
    reader = bench.open(server)
    with pytest.raises(NotPermitted):
        reader.read(0, 100, waiter())
    assert len(server.gets) == 1
    reader.close()


def test_a_stall_ends_within_the_limit(tmp_path: Path) -> None:
    bench = Bench(tmp_path, timeout=0.4)

    def stall(number: int, start: int, piece: bytes) -> bytes:
        time.sleep(0.3)
        raise TimedOut("nothing came")

    reader = bench.open(Server(BIG_BODY, stall))
    with pytest.raises(TimedOut):
        reader.read(0, 100, waiter())
    reader.close()


def test_a_fault_of_ours_reaches_the_reader(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def bug(number: int, start: int, piece: bytes) -> bytes:
        raise KeyError("oops")

    reader = bench.open(Server(SMALL_BODY, bug))
    with pytest.raises(ServerFault, match="KeyError"):
        reader.read(0, 100, waiter())
    reader.close()
    assert "the transfer failed" in caplog.text


def test_more_bytes_than_asked_for_are_refused(bench: Bench) -> None:
    def script(number: int, start: int, piece: bytes) -> bytes:
        return piece + b"more" if start % MIB else piece

    reader = bench.open(Server(BIG_BODY, script))
    with pytest.raises(BadReply):
        reader.read(0, MIB, waiter())
    reader.close()


# what is not what it should be


def corrupts(gets: range, at: int, seed: int = 0) -> Callable[[int, int, bytes], bytes]:
    """GETs of those numbers bring a wrong byte at a position; with a seed each another one."""

    def script(number: int, start: int, piece: bytes) -> bytes:
        if number in gets and start <= at < start + len(piece):
            wrong = bytearray(piece)
            wrong[at - start] ^= (1 + number) if seed else 0xFF
            return bytes(wrong)
        return piece

    return script


def test_a_corrupt_small_file_is_fetched_again_and_never_seen(bench: Bench) -> None:
    server = Server(SMALL_BODY, corrupts(range(1), 5))
    reader = bench.open(server)
    assert reader.read(0, 100, waiter()) == SMALL_BODY[:100]
    assert len(server.gets) == 2
    assert reader.verified == "md5"
    reader.close()


def test_downloads_that_always_differ_are_an_error(bench: Bench) -> None:
    server = Server(SMALL_BODY, corrupts(range(100), 5, seed=1))
    reader = bench.open(server)
    with pytest.raises(ContentProblem, match="each different"):
        reader.read(0, 100, waiter())
    assert len(server.gets) == 3
    reader.close()


@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_a_contradiction_is_an_error(bench: Bench, body: bytes) -> None:
    server = Server(body)
    version = version_of(body, digest="0" * 32)
    reader = bench.open(server, version)
    with pytest.raises(Contradiction, match="catalog out of date"):
        whole(reader, len(body))
    with pytest.raises(Contradiction):
        reader.read(0, 1, waiter())
    assert max(server.asked()) == 2
    reader.close()
    assert not layout.content_path(bench.folder / "server", version.key).exists()


@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_a_contradiction_is_let_through_on_request(
    tmp_path: Path, body: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    server = Server(body)
    version = version_of(body, digest="0" * 32)
    for bench in (Bench(tmp_path, "warn"), Bench(tmp_path, "warn")):
        caplog.clear()
        reader = bench.open(server, version)
        assert whole(reader, len(body)) == body
        assert reader.verified == "size"
        reader.close()
        assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert max(server.asked()) == 2
    reader = Bench(tmp_path, "strict").open(server, version)
    with pytest.raises(Contradiction):
        whole(reader, len(body))
    reader.close()


@pytest.mark.parametrize("length", [0, 100, 299_999, 300_001, 900_000])
@pytest.mark.parametrize("verify", ["strict", "warn"])
def test_another_size_than_the_listing_is_an_error(
    tmp_path: Path, length: int, verify: str
) -> None:
    server = Server(noise(length))
    reader = Bench(tmp_path, verify).open(server, version_of(SMALL_BODY))
    with pytest.raises(Contradiction, match="300000 bytes"):
        reader.read(0, 100, waiter())
    assert len(server.gets) == 2
    reader.close()


def test_a_corrupt_block_of_a_large_file_fails_who_saw_it_and_heals(bench: Bench) -> None:
    at = 3 * MIB + 5
    hurt = [True]

    def script(number: int, start: int, piece: bytes) -> bytes:
        if hurt[0] and start <= at < start + len(piece):
            hurt[0] = False
            return bytes(len(piece))
        return piece

    server = Server(BIG_BODY, script)
    saw, did_not = bench.open(server), bench.open(server)
    assert saw.read(3 * MIB, MIB, waiter()) != BIG_BODY[3 * MIB : 4 * MIB]
    assert did_not.read(0, 100, waiter()) == BIG_BODY[:100]
    with pytest.raises(ContentProblem, match="damaged"):
        whole(saw, len(BIG_BODY))
    with pytest.raises(ContentProblem):
        saw.read(0, 1, waiter())
    assert did_not.read(3 * MIB, MIB, waiter()) == BIG_BODY[3 * MIB : 4 * MIB]
    assert did_not.verified == "md5"
    later = bench.open(server)
    assert whole(later, len(BIG_BODY)) == BIG_BODY
    for reader in (saw, did_not, later):
        reader.close()
    assert max(server.asked()) == 2


def test_a_reader_that_walks_never_ends_well_with_a_wrong_byte(bench: Bench) -> None:
    for at in (0, 5 * MIB, len(BIG_BODY) - 1):
        server = Server(BIG_BODY, corrupts(range(4), at))
        version = version_of(BIG_BODY)
        bench.store.forget(version)
        reader = bench.open(server, version)
        with contextlib.suppress(ContentProblem):
            assert whole(reader, len(BIG_BODY)) == BIG_BODY
        reader.close()


def test_the_last_block_is_withheld_until_the_whole_was_checked(bench: Bench) -> None:
    def script(number: int, start: int, piece: bytes) -> bytes:
        return bytes(len(piece)) if number == 0 else piece

    server = Server(BIG_BODY, script)
    reader = bench.open(server)
    last = -(-len(BIG_BODY) // MIB) - 1
    # Backwards: nothing is fetched ahead.
    for index in reversed(range(last)):
        reader.read(index * MIB, MIB, waiter())
    assert reader.verified == "pending"
    with pytest.raises(ContentProblem):
        reader.read(last * MIB, 10, waiter())
    reader.close()


def test_a_replaced_file_is_stale_for_everybody(bench: Bench) -> None:
    def replaced(number: int, start: int, piece: bytes) -> bytes:
        if number >= 1:
            raise Stale("another version")
        return piece

    server = Server(BIG_BODY, replaced)
    one, two = bench.open(server), bench.open(server)
    for reader in (one, two):
        assert reader.read(0, 100, waiter()) == BIG_BODY[:100]
    for reader in (one, two, one):
        with pytest.raises(Stale):
            reader.read(5 * MIB, 100, waiter())
    with pytest.raises(Stale):
        two.read(0, 100, waiter())
    assert len(server.gets) == 2
    for reader in (one, two):
        reader.close()
    settled(lambda: bench.store.stats().files == 0)


def test_another_total_is_stale(bench: Bench) -> None:
    reader = bench.open(Server(BIG_BODY, size=len(BIG_BODY) + 1))
    with pytest.raises(Stale):
        whole(reader, len(BIG_BODY))
    reader.close()


def test_another_date_between_two_ranges_is_stale(bench: Bench) -> None:
    server = Server(BIG_BODY)
    reader = bench.open(server)
    reader.read(0, 100, waiter())
    settled(lambda: not any(incoming._transfers for incoming in bench.downloads._alive))
    server.modified = "Tue, 02 Jan 2024 00:00:00 GMT"
    with contextlib.suppress(Stale):
        reader.read(5 * MIB, 100, waiter())
    settled(lambda: not any(incoming._transfers for incoming in bench.downloads._alive))
    with pytest.raises(Stale):
        reader.read(5 * MIB, 100, waiter())
    reader.close()


@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_without_digest_size_and_date_are_checked(bench: Bench, body: bytes) -> None:
    version = version_of(body, digest="", modified=DATE)
    server = Server(body)
    reader = bench.open(server, version)
    assert whole(reader, len(body)) == body
    assert reader.verified == "size"
    reader.close()
    reader = bench.open(Server(body, refuse), version)
    assert whole(reader, len(body)) == body
    reader.close()
    other = version_of(body, digest="", modified="Tue, 02 Jan 2024 00:00:00 GMT")
    reader = bench.open(server, other)
    with pytest.raises(Stale):
        whole(reader, len(body))
    reader.close()


# the store underneath


def test_a_large_file_is_continued_after_a_restart(bench: Bench, tmp_path: Path) -> None:
    server = Server(BIG_BODY)
    reader = bench.open(server)
    for index in (2, 7):
        reader.read(index * MIB, 10, waiter())
    reader.close()
    settled(lambda: not bench.downloads._alive)
    bench = Bench(tmp_path)
    reader = bench.open(server)
    assert whole(reader, len(BIG_BODY)) == BIG_BODY
    assert reader.verified == "md5"
    assert max(server.asked()) == 1
    reader.close()


def test_what_is_complete_but_was_never_judged_is_judged_first(bench: Bench) -> None:
    wrong = bytearray(BIG_BODY)
    wrong[5] ^= 1
    version = version_of(BIG_BODY)
    content = bench.store.open(version)
    for start in range(0, len(wrong), MIB):
        content.put(start, bytes(wrong[start : start + MIB]))
    content.close()
    server = Server(BIG_BODY)
    reader = bench.open(server)
    assert reader.read(0, 100, waiter()) == BIG_BODY[:100]
    assert reader.verified == "md5"
    reader.close()
    content = bench.store.open(version)
    assert content.verified
    content.close()


def test_a_file_that_was_replaced_between_two_mounts_is_not_mixed(
    bench: Bench, tmp_path: Path
) -> None:
    reader = bench.open(Server(BIG_BODY))
    reader.read(2 * MIB, 10, waiter())
    reader.close()
    settled(lambda: not bench.downloads._alive)
    # The listing still tells of the old one.
    other = Server(noise(len(BIG_BODY), 2), modified="Tue, 02 Jan 2024 00:00:00 GMT")
    bench = Bench(tmp_path)
    reader = bench.open(other, version_of(BIG_BODY))
    assert reader.read(2 * MIB, 10, waiter()) == BIG_BODY[2 * MIB :][:10]
    for _ in range(2):
        with pytest.raises(Stale):
            reader.read(5 * MIB, 10, waiter())
    reader.close()
    reader = bench.open(other, version_of(other.body))
    assert whole(reader, len(other.body)) == other.body
    reader.close()


@pytest.mark.parametrize("body", [SMALL_BODY, BIG_BODY])
def test_damage_on_disk_is_noticed_and_fetched_again(
    bench: Bench, tmp_path: Path, body: bytes
) -> None:
    version = version_of(body)
    reader = bench.open(Server(body))
    whole(reader, len(body))
    reader.close()
    settled(lambda: not bench.downloads._alive)
    path = layout.content_path(tmp_path / "server", version.key)
    victim = next(path.glob("*.bytes")) if path.is_dir() else path
    with victim.open("r+b") as file:
        file.seek(200_000)
        file.write(b"damaged")
    server = Server(body)
    reader = Bench(tmp_path).open(server)
    assert whole(reader, len(body)) == body
    assert len(server.gets) == 1
    assert server.gets[0] in ((0, None), (200_000 // BLOCK * BLOCK, BLOCK))
    assert reader.verified == "md5"
    reader.close()


def test_damage_on_disk_and_on_the_way_at_once(bench: Bench, tmp_path: Path) -> None:
    version = version_of(BIG_BODY)
    reader = bench.open(Server(BIG_BODY))
    whole(reader, len(BIG_BODY))
    reader.close()
    settled(lambda: not bench.downloads._alive)
    path = layout.content_path(tmp_path / "server", version.key)
    with next(path.glob("*.bytes")).open("r+b") as file:
        file.write(b"damaged")
    server = Server(BIG_BODY, corrupts(range(1), 77))
    reader = Bench(tmp_path).open(server)
    assert whole(reader, len(BIG_BODY)) == BIG_BODY
    assert server.gets == [(0, BLOCK), (0, BLOCK)]
    reader.close()


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if os.geteuid() != 0:
        pytest.skip("mounting a tmpfs needs root")
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(command, check=False).returncode:
        pytest.skip("no tmpfs can be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("body", [noise(3 * MIB), BIG_BODY, noise(90 * MIB)])
def test_a_full_disk_fails_no_read(full_disk: Path, body: bytes) -> None:
    bench = Bench(full_disk)
    server = Server(body)
    reader = bench.open(server)
    assert whole(reader, len(body)) == body
    assert reader.verified == "md5"
    assert max(server.asked()) == 1
    for offset in (0, len(body) // 2, len(body) - 1000):
        assert reader.read(offset, 1000, waiter()) == body[offset : offset + 1000]
    reader.close()


def test_a_full_disk_and_many_readers(full_disk: Path) -> None:
    bench = Bench(full_disk)
    bodies = [noise(7 * MIB, seed) for seed in range(12)]

    def work(body: bytes) -> bool:
        reader = bench.open(Server(body))
        found = whole(reader, len(body)) == body
        reader.close()
        return found

    with ThreadPoolExecutor(12) as pool:
        assert all(pool.map(work, bodies))


def test_eviction_under_readers(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    stop = threading.Event()

    def sweep() -> None:
        while not stop.wait(0.001):
            Store(StoreSettings(folder=tmp_path, keep_free=0.0), "server").clear()

    other = threading.Thread(target=sweep)
    other.start()
    try:
        for body in [BIG_BODY, *(noise(200_000, seed) for seed in range(40))]:
            reader = bench.open(Server(body))
            assert whole(reader, len(body)) == body
            reader.close()
    finally:
        stop.set()
        other.join()


def test_two_processes_read_one_store_at_once(tmp_path: Path) -> None:
    benches = [Bench(tmp_path) for _ in range(3)]
    server = Server(BIG_BODY)

    def work(bench: Bench) -> bool:
        reader = bench.open(server)
        found = whole(reader, len(BIG_BODY)) == BIG_BODY
        reader.close()
        return found

    with ThreadPoolExecutor(3) as pool:
        assert all(pool.map(work, benches))


def test_random_faults_never_give_a_wrong_byte(tmp_path: Path) -> None:
    """Breaks, stalls and corruption at random places: what is read is true, or an error."""
    for seed in range(12):
        chance = random.Random(seed)
        body = noise(chance.choice([200_000, 3 * MIB, 10 * MIB + 77]), seed)

        def script(
            number: int,
            start: int,
            piece: bytes,
            chance: random.Random = chance,
            small: bool = len(body) <= SMALL,
        ) -> bytes:
            dice = chance.random()
            if dice < 0.03:
                raise TransferBroken("reset")
            if dice < 0.05:
                return piece[: len(piece) // 2] or piece
            if dice < 0.06:
                raise ServerBusy("busy")
            if dice < 0.10 and small:
                return bytes(len(piece))
            return piece

        bench = Bench(tmp_path / str(seed), timeout=5.0)
        server = Server(body, script)

        def work(
            number: int, bench: Bench = bench, server: Server = server, body: bytes = body
        ) -> bool:
            reader = bench.open(server)
            order = list(range(0, len(body), 64 * KIB))
            if number % 2:
                random.Random(number).shuffle(order)
            try:
                for offset in order:
                    if reader.read(offset, 64 * KIB, waiter()) != body[offset:][: 64 * KIB]:
                        return False
            except ContentProblem:
                return True
            finally:
                reader.close()
            return True

        with ThreadPoolExecutor(4) as pool:
            assert all(pool.map(work, range(4)))
        settled(lambda bench=bench: not bench.downloads._alive)
