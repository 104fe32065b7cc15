"""Which bytes: the version of a file, by which the store keeps content and opens pin it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Version:
    """One version of one file's content.

    With a digest, (digest, size) is the identity, whoever holds the file. Without one it is
    (resource id, path, size, Last-Modified).
    """

    resource_id: str
    path: str
    # Bytes.
    size: int
    # MD5 in lower-case hex, or "".
    digest: str
    # ``Last-Modified`` of the server; filled where there is no digest, else "".
    modified: str = ""

    @property
    def key(self) -> str:
        """The name of this content in the store; safe as a file name, at most 80 bytes."""
        if self.digest:
            return f"{self.digest}-{self.size}"
        identity = "\0".join((self.resource_id, self.path, str(self.size), self.modified))
        return f"x{hashlib.sha256(identity.encode()).hexdigest()[:40]}-{self.size}"

    def same_content(self, other: Version) -> bool:
        """Whether both are surely the same bytes."""
        return self.key == other.key
