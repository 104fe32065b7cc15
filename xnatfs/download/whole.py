"""Small files: one GET, and nothing is handed out before size and MD5 were checked.

The rule of contradictions is here too, for large files as well: one mismatch may be an accident of
the transfer, the same one twice is the catalog's.
"""

from __future__ import annotations

import logging

from xnatfs.cache.content import Verdict
from xnatfs.download.fetcher import Line, transfer
from xnatfs.download.sinks import Fingerprint, TooLong, WholeSink
from xnatfs.errors import ContentProblem, Contradiction, Stale
from xnatfs.model.entities import Head
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


def check_modified(modified: str, head: Head | None, label: str) -> None:
    """Raise Stale when a reply belongs to a file of another date than ``modified``, if both tell."""
    told = head.modified if head is not None else ""
    if modified and told and told != modified:
        raise Stale(f"{label}: the server has a version of {told}, not of {modified}")


def download_whole(line: Line, version: Version, *, lenient: bool) -> tuple[bytes, Verdict]:
    """The checked bytes of a file, and whether they agree with the catalog.

    Raises:
        Contradiction, ContentProblem: see Comparison.judge.
        Stale: a version without digest, and the server's file has another date.
        XnatfsError: the transfer's.
    """
    comparison = Comparison(version, line.label, lenient=lenient)
    while True:
        sink = WholeSink(version.size, line.label)
        try:
            head = transfer(line, sink, version.size, ranged=False)
        except TooLong:
            head = None
        check_modified(version.modified, head, line.label)
        verdict = comparison.judge(sink.fingerprint())
        if verdict is not Verdict.OPEN:
            return sink.body(), verdict
