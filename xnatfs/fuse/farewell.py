"""The last word of a mount.

In a room of its own, because the commands that hear it need nothing of a mount to run.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Farewell:
    """What a mount says at its end."""

    sent_files: int = 0
    sent_bytes: int = 0
    # Rows as ``FileSystem.pending`` has them.
    pending: list[dict[str, Any]] = field(default_factory=list)
    # What is pending shall wait: the mount used no network.
    offline: bool = False
    # Why the server takes the login no more; "" while it does.
    refused: str = ""
    # ``ReadFailure`` as dictionaries.
    read_failures: list[dict[str, Any]] = field(default_factory=list)
