"""Two requests for one listing under way, the younger of which comes back first."""

from __future__ import annotations

import threading
import time
from typing import cast

from xnatfs.config import Limits
from xnatfs.rest.archive import Archive
from xnatfs.tree.listings import Listing, Listings
from xnatfs.waiting import Waiter, Workers


def test_an_old_answer_after_a_younger_one_is_no_error() -> None:
    listings = Listings(cast("Archive", None), Workers(4, "test"), Limits())
    asked = [threading.Event(), threading.Event()]
    gates = [threading.Event(), threading.Event()]
    calls: list[int] = []

    def ask(_waiter: Waiter) -> list[int]:
        number = len(calls)
        calls.append(number)
        asked[number].set()
        gates[number].wait(10)
        return [number]

    answers: dict[int, Listing[int]] = {}

    def get(number: int, not_before: float) -> None:
        waiter = Waiter(total_s=10)
        answers[number] = listings._get("key", ask, waiter, not_before, "the listing")

    threads = []
    for number in (0, 1):
        thread = threading.Thread(target=get, args=(number, time.monotonic() if number else 0.0))
        thread.start()
        threads.append(thread)
        assert asked[number].wait(10)
    for number in (1, 0):
        gates[number].set()
        threads[number].join()
    # The younger one stands, for whoever asked for the older one too.
    assert {number: answer.rows for number, answer in answers.items()} == {0: (1,), 1: (1,)}
