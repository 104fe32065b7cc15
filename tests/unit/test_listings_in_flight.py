"""Two requests for one listing under way, the younger of which comes back first."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from xnatfs.cache.store import Store
from xnatfs.config import Limits, StoreSettings
from xnatfs.model.entities import Item
from xnatfs.model.levels import PROJECT
from xnatfs.tree.asking import Asking, Question
from xnatfs.tree.held import Cached, Listing
from xnatfs.tree.sharing import Key, Sharing
from xnatfs.waiting import Waiter, Workers


def test_an_old_answer_after_a_younger_one_is_no_error(tmp_path: Path) -> None:
    store = Store(StoreSettings(folder=tmp_path), "server")
    sharing = Sharing(store.shelf, store.claims, lambda _row: None, offline=False)
    asking = Asking(Workers(4, "test"), Limits(), sharing)
    key = Key("project", "")
    asked = [threading.Event(), threading.Event()]
    gates = [threading.Event(), threading.Event()]
    calls: list[int] = []

    def ask(_waiter: Waiter) -> list[Item]:
        number = len(calls)
        calls.append(number)
        asked[number].set()
        gates[number].wait(10)
        return [Item(PROJECT, str(number), "", f"/projects/{number}", {})]

    answers: dict[int, Cached] = {}

    def get(number: int, not_before: float) -> None:
        waiter = Waiter(total_s=10)
        question = Question(key, ask, "the listing")
        answers[number] = asking.get(question, waiter, not_before)

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
    assert isinstance(answers[1], Listing)
    assert [item.id for item in answers[1].rows] == ["1"]
    assert answers[0] is answers[1]
