"""Listings in memory: how long, how many, and what is kept when nothing has changed."""

from __future__ import annotations

import math
import time

from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.levels import PROJECT
from xnatfs.tree import held
from xnatfs.tree.held import FileListing, Held, Listing
from xnatfs.tree.sharing import Key, Told
from xnatfs.tree.sheets import FILES

KEY = Key(FILES, "/experiments/E/resources/7")


def rows(*names: str, size: int = 1) -> list[RemoteFile]:
    return [RemoteFile("7", name, size, "") for name in names]


def test_an_equal_listing_keeps_the_catalog_and_is_younger() -> None:
    here = Held(60, 60)
    first = here.take(KEY, Told(rows("a", "b"), time.monotonic() - 50))
    again = here.take(KEY, Told(rows("a", "b"), time.monotonic()))
    assert isinstance(first, FileListing)
    assert isinstance(again, FileListing)
    assert again.catalog is first.catalog
    assert again.asked > first.asked
    for other in (rows("b", "a"), rows("a"), rows("a", "b", "c"), rows("a", "b", size=2)):
        changed = here.take(KEY, Told(other, time.monotonic()))
        assert isinstance(changed, FileListing)
        assert changed.catalog is not first.catalog
        assert changed.catalog.rows() == other


def test_an_own_change_outlives_an_equal_listing_from_before_it() -> None:
    here = Held(60, 60)
    here.take(KEY, Told(rows("a"), time.monotonic() - 50))
    asked = time.monotonic()
    (own,) = rows("own")
    here.own_file(KEY.address, "own", own)
    for listed in (rows("a"), rows("a", "own")):
        taken = here.take(KEY, Told(listed, asked))
        assert isinstance(taken, FileListing)
        assert taken.catalog.rows() == rows("a", "own")


def test_nothing_is_told_past_its_time() -> None:
    here = Held(10, 60)
    here.take(KEY, Told(rows("a"), time.monotonic() - 10))
    assert here.get(KEY) is None
    assert Held(math.inf, 60).get(KEY) is None


def test_what_came_first_goes_first(monkeypatch) -> None:
    monkeypatch.setattr(held, "MOST_ROWS", 10)
    here = Held(60, 60)
    now = time.monotonic()
    keys = [Key("project", f"/{number}") for number in range(4)]
    for key in keys:
        here.take(key, Told([Item(PROJECT, str(it), "", "", {}) for it in range(3)], now))
    assert [here.get(key) is not None for key in keys] == [False, False, True, True]
    # One that is larger than all that may be held is held alone.
    large = here.take(KEY, Told(rows(*map(str, range(20))), now))
    assert here.get(KEY) is large
    assert here.get(keys[3]) is None
    here.forget("")
    assert here.get(KEY) is None


def test_what_is_long_over_takes_no_memory() -> None:
    here = Held(10, 60)
    now = time.monotonic()
    old = Key("project", "/old")
    here.take(old, Told([Item(PROJECT, "P", "", "", {})], now - 25))
    here.take(KEY, Told(rows("a"), now))
    assert here._known(old) is None
    assert isinstance(here.take(old, Told([], now)), Listing)
