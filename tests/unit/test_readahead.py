"""The readahead policy: what it asks for, and what it never asks for."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from xnatfs.config import KIB, MIB
from xnatfs.download.readahead import LAST_WINDOW, Readahead

PIECE = 128 * KIB


def walk(policy: Readahead, start: int, end: int) -> list[tuple[int, int]]:
    windows = []
    for offset in range(start, end, PIECE):
        windows += policy.advance(offset, PIECE)
    return windows


def test_a_single_read_asks_for_nothing_beyond_itself() -> None:
    assert Readahead(100 * MIB, MIB).advance(0, PIECE) == []


def test_the_second_neighbour_starts_two_windows() -> None:
    policy = Readahead(100 * MIB, MIB)
    assert walk(policy, 0, 2 * PIECE) == [(MIB, MIB), (2 * MIB, 2 * MIB)]


def test_windows_double_and_follow_each_other_without_gap() -> None:
    policy = Readahead(2000 * MIB, MIB)
    windows = walk(policy, 0, 600 * MIB)
    assert [length // MIB for _start, length in windows[:9]] == [1, 2, 4, 8, 16, 32, 64, 64, 64]
    for (start, length), (following, _length) in itertools.pairwise(windows):
        assert start + length == following


def test_two_windows_are_always_ahead_of_the_reader() -> None:
    policy = Readahead(2000 * MIB, MIB)
    windows: list[tuple[int, int]] = []
    for offset in range(0, 300 * MIB, PIECE):
        windows += policy.advance(offset, PIECE)
        if offset:
            not_entered = [start for start, _length in windows if start >= offset + PIECE]
            assert len(not_entered) == 2


def test_the_last_window_ends_with_the_file() -> None:
    size = 10 * MIB + 12345
    windows = walk(Readahead(size, MIB), 0, size)
    assert sum(windows[-1]) == size
    assert windows[0] == (MIB, MIB)


def test_a_reader_that_jumps_gets_nothing() -> None:
    policy = Readahead(1000 * MIB, MIB)
    offsets = [(index * 37 % 97) * 10 * MIB for index in range(90)]
    assert [policy.advance(offset, 64 * KIB) for offset in offsets] == [[]] * 90


def test_two_reads_that_happen_to_meet_are_no_walk() -> None:
    policy = Readahead(1000 * MIB, 64 * KIB)
    for place in (500 * MIB, 100 * MIB):
        assert policy.advance(place, PIECE) == []
        assert policy.advance(place + PIECE, PIECE) == []
    assert policy.advance(100 * MIB + 2 * PIECE, PIECE) != []


def test_a_reader_that_stops_is_asked_for_no_more() -> None:
    policy = Readahead(1000 * MIB, MIB)
    walk(policy, 0, 4 * MIB)
    assert policy.advance(4 * MIB - PIECE, PIECE) == []


def test_pieces_out_of_order_are_one_walk() -> None:
    policy = Readahead(1000 * MIB, MIB)
    windows = []
    for pair in range(0, 64, 2):
        for piece in (pair + 1, pair):
            windows += policy.advance(piece * PIECE, PIECE)
    assert [length // MIB for _start, length in windows] == [1, 2, 4, 8, 16]


def test_two_descriptors_walk_each_for_itself() -> None:
    policy = Readahead(1000 * MIB, MIB)
    near, far = [], []
    for offset in range(0, 3 * MIB, PIECE):
        near += policy.advance(offset, PIECE)
        far += policy.advance(500 * MIB + offset, PIECE)
    assert [(start - 500 * MIB, length) for start, length in far] == near
    assert near


def test_a_seek_back_over_what_was_read_is_tolerated() -> None:
    policy = Readahead(1000 * MIB, MIB)
    walk(policy, 0, 8 * MIB)
    assert policy.advance(8 * MIB - 600 * KIB, PIECE) == []
    assert policy.advance(8 * MIB, PIECE) != []


def test_the_largest_window_can_be_kept_small() -> None:
    policy = Readahead(1000 * MIB, MIB)
    windows = []
    for offset in range(0, 100 * MIB, PIECE):
        windows += policy.advance(offset, PIECE, 4 * MIB)
    assert max(length for _start, length in windows) == 4 * MIB


@given(
    size=st.integers(1, 300 * MIB),
    reads=st.lists(st.tuples(st.integers(0, 300 * MIB), st.integers(0, 2 * MIB)), max_size=60),
    steps=st.lists(st.integers(1, 2 * MIB), max_size=60),
)
def test_windows_lie_in_the_file_on_block_borders(
    size: int, reads: list[tuple[int, int]], steps: list[int]
) -> None:
    policy = Readahead(size, MIB)
    at = 0
    for step in steps:
        reads.append((at, step))
        at += step
    for offset, length in reads:
        for start, window in policy.advance(offset, length):
            assert start % MIB == 0
            assert 0 < window <= LAST_WINDOW
            assert start + window == size or (start + window) % MIB == 0
            assert start + window <= size
            assert start >= min(size, offset + length)
