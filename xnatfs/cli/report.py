"""``xnatfs doctor --report``: what a ticket needs, without what it must not hold.

No name of a person, a machine, a server or an object of the archive is in it: known ones are
replaced, and lines of logs, which may quote anything, are counted and not shown.
"""

from __future__ import annotations

import os
import platform
import pwd
import re
import socket
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

# A path of the archive, whatever its names are.
_ARCHIVE = re.compile(r"/(?:projects|experiments)/[^\s:;,\"']+")
_ACCESSION = re.compile(r"\b\w+_[ES]\d{4,}\b")
_ADDRESS = re.compile(r"https?://[^\s/:;,\"']+(?::\d+)?")
_QUOTED = re.compile(r"'[^']*'")
# As ``logs.FORMAT`` writes a line; the message begins with the operation, or with free text.
_LOG_LINE = re.compile(r"^[\d-]+ [\d:,]+ (WARNING|ERROR|CRITICAL) (xnatfs[\w.]*): (\w+)? ?", re.M)
_OPERATIONS = frozenset({
    "getattr", "readdir", "readlink", "mkdir", "rmdir", "unlink", "rename", "symlink", "link",
    "mknod", "chmod", "chown", "utimens", "getxattr", "listxattr", "setxattr", "removexattr",
    "open", "create", "read", "write", "truncate", "flush", "fsync", "release", "statfs",
})  # fmt: skip


def veiled(text: str, server: str, users: Iterable[str]) -> str:
    """The text without the names that this machine knows, and all that looks like one of XNAT's.

    Args:
        text: a line.
        server: its address.
        users: names of users.
    """
    host = urlsplit(server).netloc
    local = pwd.getpwuid(os.getuid()).pw_name if os.getuid() else ""
    hidden = [
        (str(Path.home()), "~"),
        (host, "SERVER"),
        (host.partition(":")[0], "SERVER"),
        (socket.gethostname(), "HOST"),
        *((name, "USER") for name in (*users, local)),
    ]
    text = _QUOTED.sub("'…'", _ADDRESS.sub("SERVER", text))
    # The longer ones first: a name may be part of another.
    for name, word in sorted(hidden, key=lambda pair: -len(pair[0])):
        if name:
            text = re.sub(rf"(?<![\w.-]){re.escape(name)}(?![\w-])", word, text)
    return _ACCESSION.sub("ACCESSION", _ARCHIVE.sub("/…", text))


def machine() -> Iterator[tuple[str, str]]:
    """What the findings of ``doctor`` do not tell: (what, text)."""
    from xnatfs.fuse import binding

    yield "kernel", f"{platform.release()} {platform.machine()}, {platform.libc_ver()[1]}"
    library = binding.library()
    yield "libfuse", f"version {library.major}: {library.path}" if library else "none"
    set_here = [name for name in sorted(os.environ) if name.startswith(("XNAT", "XDG_", "FUSE_"))]
    jobs = [name for name in ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID") if name in os.environ]
    yield "environment", ", ".join(set_here + jobs) or "nothing of ours"


def mount(row: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """One mount, as ``status --json`` has it: its figures and the lines of its log, counted."""
    status = row["status"]
    uploads = status.get("uploads", {})
    yield "mount", f"{row['state']}, process {row['pid']}"
    for part in ("downloads", "store", "errors"):
        if cells := status.get(part):
            yield part, ", ".join(f"{name} {value}" for name, value in cells.items())
    waiting = Counter(upload.get("state", "") for upload in uploads.get("pending", row["pending"]))
    sent = f"sent {uploads.get('sent_files', 0)} files, {uploads.get('sent_bytes', 0)} bytes"
    yield "uploads", ", ".join([sent, *(f"{state} {count}" for state, count in waiting.items())])
    yield "failed reads", str(len(status.get("read_failures", row["read_failures"])))
    yield from _log(row["log"])


def _log(path: str) -> Iterator[tuple[str, str]]:
    if not path:
        return
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError:
        return
    found = Counter(
        (level, name, word if word in _OPERATIONS else "")
        for level, name, word in _LOG_LINE.findall(text)
    )
    for (level, name, word), count in sorted(found.items()):
        yield "log", f"{count} x {level} {name} {word}".rstrip()
