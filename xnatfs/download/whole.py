"""Small files: one GET, and nothing is handed out before size and MD5 were checked."""

from __future__ import annotations

from xnatfs.cache.content import Verdict
from xnatfs.download.comparison import Comparison
from xnatfs.download.fetcher import Line, transfer
from xnatfs.download.sinks import TooLong, WholeSink
from xnatfs.errors import Stale
from xnatfs.model.entities import Head
from xnatfs.model.versions import Version


def check_modified(modified: str, head: Head | None, label: str) -> None:
    """Raise Stale when a reply belongs to a file of another date than ``modified``."""
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
