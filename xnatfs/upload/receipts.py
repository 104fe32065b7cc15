"""Receipts: what this user created through xnatfs, and may therefore change again."""

from __future__ import annotations

from pathlib import Path


class Receipts:
    """The receipts of one account on one server, shared by all its processes."""

    def __init__(self, state_folder: Path, server: str, account: str) -> None: ...

    def add(
        self, resource_id: str, path: str, digest: str, size: int, modified: str = ""
    ) -> None:
        """Remember a version that we stored."""

    def holds(
        self, resource_id: str, path: str, digest: str, size: int, modified: str = ""
    ) -> bool:
        """Whether this version was stored by us."""
        raise NotImplementedError

    def remove(self, resource_id: str, path: str) -> None:
        """Forget a file: it was removed or renamed."""
