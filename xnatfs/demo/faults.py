"""Faults on a script: which requests go wrong, and how.

The front asks for the fault of each request and plays it; nothing behind it knows.
"""

from __future__ import annotations

import random
import re
import threading
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

KINDS = (
    "reset",  # the connection is reset before anything is done
    "reset_after",  # … after `bytes` of the reply's (or, for uploads, the request's) body
    "truncate",  # full headers, `bytes` of the body (default half), then an orderly close
    "stall",  # `seconds` of silence before the reply, or after `bytes` of its body
    "slow",  # the body at `rate` bytes per second
    "corrupt",  # the byte at `bytes` (default the middle) is inverted
    "status",  # `code` instead of doing the work, with Retry-After if `retry_after`
    "status_after",  # `code` although the work was done
    "html",  # status 200 and a login page
    "expire",  # all sessions expire, then the request is handled
    "delay",  # `seconds` before the request is handled
    "conflict",  # an upload or delete finds its catalog rewritten by another: 500, an orphan
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One rule: requests whose path (with query) matches `path` go wrong in the way of `kind`.

    `verb` "" is any; the first `after` matching requests are spared, then `count` of them are
    hit (None: all), each with `probability` from a fixed random sequence.
    """

    kind: str
    path: str = ""
    verb: str = ""
    count: int | None = None
    after: int = 0
    probability: float = 1.0
    bytes: int | None = None
    seconds: float = 0.0
    rate: float = 0.0
    code: int = 500
    retry_after: str = ""

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"unknown kind of fault: {self.kind}; there are {', '.join(KINDS)}")
        re.compile(self.path)


def fault_from(values: Mapping[str, Any]) -> Fault:
    """A fault from JSON. Raises ValueError for unknown names or kinds."""
    unknown = set(values) - {field.name for field in fields(Fault)}
    if unknown:
        raise ValueError(f"unknown in a fault: {', '.join(sorted(unknown))}")
    return Fault(**values)


class FaultScript:
    """The rules in force; the first one that hits a request is played.

    Threading: `_lock` guards the rules, their counts and the random sequence.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[tuple[Fault, list[int]]] = []  # with how often each matched
        self._random = random.Random(1)

    def add(self, *faults: Fault) -> None:
        """Put rules behind those in force."""
        with self._lock:
            self._rules += [(fault, [0]) for fault in faults]

    def clear(self) -> None:
        """Drop all rules."""
        with self._lock:
            self._rules.clear()

    def match(self, verb: str, path: str) -> Fault | None:
        """The fault that hits this request; counts it."""
        with self._lock:
            for fault, matched in self._rules:
                if fault.verb in ("", verb) and re.search(fault.path, path):
                    matched[0] += 1
                    number = matched[0] - fault.after
                    spent = fault.count is not None and number > fault.count
                    if number > 0 and not spent and self._random.random() < fault.probability:
                        return fault
        return None
