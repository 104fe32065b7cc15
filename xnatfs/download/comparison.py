"""The rule of contradictions: what a download means that is not what the catalog says.

One mismatch may be an accident of the transfer; the same one twice is the catalog's.
"""

from __future__ import annotations

import logging

from xnatfs.cache.content import Verdict
from xnatfs.download.sinks import Fingerprint
from xnatfs.errors import ContentProblem, Contradiction
from xnatfs.model.versions import Version

log = logging.getLogger(__name__)

# Downloads of one version before it is given up as arriving differently every time.
_DOWNLOADS = 3


class Comparison:
    """Judges the downloads of one version against the catalog, one after the other.

    Args:
        version: what the catalog says.
        label: the path, for texts.
        lenient: let a contradiction of the right size through (``--verify warn``).
    """

    def __init__(self, version: Version, label: str, *, lenient: bool) -> None:
        self._version = version
        self._label = label
        self._lenient = lenient
        self._seen: list[Fingerprint] = []

    def judge(self, found: Fingerprint) -> Verdict:
        """What a download means: VERIFIED, CONTRADICTS (let it through) or OPEN (download again).

        Raises:
            Contradiction: two identical downloads contradict the catalog.
            ContentProblem: every download differs.
        """
        version = self._version
        if found.length == version.size and version.digest in ("", found.digest):
            return Verdict.VERIFIED
        told = f"{version.size} bytes, MD5 {version.digest or 'unknown'}"
        got = f"{found.length} bytes, MD5 {found.digest}" if found.length >= 0 else "more bytes"
        if found not in self._seen:
            self._seen.append(found)
            if len(self._seen) >= _DOWNLOADS:
                raise ContentProblem(
                    f"{self._label}: {_DOWNLOADS} downloads, each different, none as in the "
                    "catalog; the connection or a proxy damages data"
                )
            log.info("%s: got %s instead of %s; fetching it again", self._label, got, told)
            return Verdict.OPEN
        text = (
            f"{self._label}: catalog out of date, ask the owner to refresh it "
            f"(it says {told}; two identical downloads had {got})"
        )
        if self._lenient and found.length == version.size:
            log.warning("%s; let through", text)
            return Verdict.CONTRADICTS
        raise Contradiction(text)
