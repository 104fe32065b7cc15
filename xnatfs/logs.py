"""Logging: one set-up for all commands, one line for each failed operation.

The level belongs to the error: a name that does not exist is no warning. Nothing here may
know a secret; ``Redactor`` is the second line of defence, for text that came from outside.
"""

from __future__ import annotations

import logging
import logging.handlers
import os
import re
import stat
import sys
from io import TextIOWrapper
from pathlib import Path

from xnatfs.config import make_private

FORMAT = "%(asctime)s %(levelname)s %(name)s: %(message)s"
# On stderr a person reads along, or systemd, which adds the time.
SHORT = "xnatfs: %(message)s"

# A log is put aside at this size (bytes); so many older ones are kept.
MOST_BYTES = 10_000_000
OLDER = 3

# user:password@ in an address, Authorization headers and session cookies, wherever they stand.
_SECRETS = re.compile(
    r"(?P<keep>://[^/\s:@]*:)[^/\s@]+(?=@)"
    r"|(?P<header>Authorization:?\s*Basic\s+|JSESSIONID=)[^\s;,'\"]+",
    re.IGNORECASE,
)


class Redactor(logging.Filter):
    """Replaces what looks like a secret in a log line by ``***``."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record's text in place; every record passes."""
        text = record.getMessage()
        clean = _SECRETS.sub(lambda hit: (hit["keep"] or hit["header"]) + "***", text)
        if clean != text:
            record.msg, record.args = clean, None
        return True


def make_file_private(descriptor: int) -> None:
    """Keep others from reading a log that was there before, if it is ours and a plain file."""
    status = os.fstat(descriptor)
    if stat.S_ISREG(status.st_mode) and status.st_uid == os.geteuid():
        os.fchmod(descriptor, 0o600)


class _PrivateRotatingFile(logging.handlers.RotatingFileHandler):
    """A rotated log that only its owner can read."""

    def _open(self) -> TextIOWrapper:
        descriptor = os.open(self.baseFilename, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o600)
        make_file_private(descriptor)
        return TextIOWrapper(open(descriptor, "ab"), encoding=self.encoding, errors=self.errors)


def set_up(level: str, file: Path | None) -> None:
    """Send the log of this process to ``file`` (0600, rotated at 10 MB), else to stderr.

    Args:
        level: ``debug``, ``info``, ``warning`` or ``error``.
        file: the log file, or None for stderr.
    """
    handler: logging.Handler
    if file is None:
        handler = logging.StreamHandler(sys.stderr)
    else:
        make_private(file.parent)
        handler = _PrivateRotatingFile(
            file,
            maxBytes=MOST_BYTES,
            backupCount=OLDER,
            encoding="utf-8",
            errors="backslashreplace",
        )
    handler.setFormatter(logging.Formatter(SHORT if file is None else FORMAT))
    handler.addFilter(Redactor())
    root = logging.getLogger("xnatfs")
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    root.propagate = False
