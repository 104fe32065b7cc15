"""What may stand under each name, by what was promised for it.

Before a change its outcome is noted as possible; when the change was acknowledged (close, rename
or unlink returned 0), nothing else is possible any more. So after any crash the truth is known:
each name holds one of its possible contents, whole, or a promise was broken.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

Content = TypeVar("Content")


class Ledger(Generic[Content]):
    """The possible contents of each name; None stands for "no such file"."""

    def __init__(self) -> None:
        self._possible: dict[str, list[Content | None]] = {}

    def begun(self, outcome: Mapping[str, Content | None]) -> None:
        """A change has begun: its outcome is possible besides."""
        for name, content in outcome.items():
            possible = self._possible.setdefault(name, [None])
            if content not in possible:
                possible.append(content)

    def done(self, outcome: Mapping[str, Content | None]) -> None:
        """The change was acknowledged: this, and nothing else."""
        for name, content in outcome.items():
            self._possible[name] = [content]

    def possible(self, name: str) -> list[Content | None]:
        """What may stand there."""
        return self._possible.get(name, [None])

    def judge(self, held: Mapping[str, Content]) -> list[str]:
        """The broken promises, in words, given what there is."""
        problems = []
        for name in sorted({*self._possible, *held}):
            possible, there = self.possible(name), held.get(name)
            if there in possible:
                continue
            what = "is lost" if there is None else f"holds {there!r}"
            problems.append(f"{name} {what}; possible is {possible!r}")
        return problems

    def adopt(self, held: Mapping[str, Content]) -> None:
        """What there is now is what is promised from now on."""
        self._possible = {name: [content] for name, content in held.items()}

    def sure(self) -> dict[str, Content]:
        """Names of which one content only is possible."""
        return {
            name: possible[0]
            for name, possible in self._possible.items()
            if len(possible) == 1 and possible[0] is not None
        }
