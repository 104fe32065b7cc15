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
        state = hashlib.sha256(f"{self.size}\0{self.modified}".encode()).hexdigest()[:20]
        return f"{self.stem}{state}-{self.size}"

    @property
    def stem(self) -> str:
        """What the keys of all versions of this file begin with that have no digest."""
        place = f"{self.resource_id}\0{self.path}".encode("utf-8", "surrogatepass")
        return f"x{hashlib.sha256(place).hexdigest()[:20]}"

    def same_content(self, other: Version) -> bool:
        """Whether both are surely the same bytes."""
        return self.key == other.key
