"""Content of no bytes."""

from __future__ import annotations

import hashlib

from xnatfs.cache.content import BLOCK, Content, Verdict

_EMPTY_MD5 = hashlib.md5(b"", usedforsecurity=False).hexdigest()


class EmptyContent(Content):
    """Content of no bytes: always here, never on disk."""

    size = 0
    block = BLOCK

    def read(self, offset: int, size: int) -> bytes:  # noqa: ARG002 -- the face of Content
        """See Content."""
        return b""

    def missing(self, offset: int, size: int) -> list[tuple[int, int]]:  # noqa: ARG002
        """See Content."""
        return []

    def put(self, offset: int, piece: bytes) -> bool:  # noqa: ARG002
        """See Content."""
        return True

    def look(self) -> bool:
        """See Content."""
        return True

    def complete(self) -> bool:
        """See Content."""
        return True

    def checksums(self) -> dict[int, int]:
        """See Content."""
        return {}

    def save(self) -> None:
        """See Content."""

    def mark_verified(self) -> None:
        """See Content."""

    def mark_contradicting(self) -> None:
        """See Content."""

    def drop(self) -> None:
        """See Content."""

    def close(self) -> None:
        """See Content."""

    @property
    def verdict(self) -> Verdict:
        """See Content."""
        return Verdict.VERIFIED

    @property
    def on_disk(self) -> bool:
        """See Content."""
        return True
