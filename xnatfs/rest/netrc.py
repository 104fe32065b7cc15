"""The netrc file: a login by host, for people who keep their passwords there.

The standard library's parser keeps one login for each machine; here ``-u`` chooses among many.
"""

from __future__ import annotations

import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from xnatfs.errors import UsageError

# A quoted text with backslash escapes, or anything without white space.
_TOKEN = re.compile(r'"((?:[^"\\]|\\.)*)"|(\S+)')
_PAIRS = frozenset({"login", "password", "account"})


@dataclass(slots=True)
class Entry:
    """One ``machine`` of the file."""

    machine: str
    login: str = ""
    password: str = field(default="", repr=False)


def netrc_file(environ: Mapping[str, str]) -> Path:
    """Where the file is: ``$NETRC``, else ``~/.netrc``."""
    home = Path(environ["HOME"]) if environ.get("HOME") else Path.home()
    return Path(environ["NETRC"]) if environ.get("NETRC") else home / ".netrc"


def parse(text: str) -> list[Entry]:
    """All ``machine`` entries in the order of the file; ``default`` and macros are passed over.

    A default entry is no login for us: it would send a password to hosts nobody thought of.
    """
    entries: list[Entry] = []
    entry: Entry | None = None
    keyword = ""
    in_macro = False
    for line in text.splitlines():
        if in_macro:
            in_macro = bool(line.strip())
            continue
        for found in _TOKEN.finditer(line):
            word = re.sub(r"\\(.)", r"\1", found[1]) if found[1] is not None else found[2]
            if keyword:
                if keyword == "machine":
                    entry = Entry(word)
                    entries.append(entry)
                elif entry is not None and keyword == "login":
                    entry.login = word
                elif entry is not None and keyword == "password":
                    entry.password = word
                keyword = ""
            elif word.startswith("#"):
                break
            elif word == "macdef":
                in_macro = True
                break
            elif word == "default":
                entry = None
            elif word == "machine" or word in _PAIRS:
                keyword = word
    return entries


def find(file: Path, hosts: tuple[str, ...], login: str) -> Entry | None:
    """The entry for the first of ``hosts`` that has one.

    Args:
        file: the netrc file; may be missing.
        hosts: names to look for, in this order (``host:port``, then ``host``).
        login: only this login name; "" means the first entry.

    Raises: UsageError when there is an entry and others could read the file.
    """
    try:
        mode = file.stat().st_mode
        entries = parse(file.read_text(encoding="utf-8", errors="surrogateescape"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{file}: cannot be read: {error.strerror}") from error
    for host in hosts:
        for entry in entries:
            if entry.machine.lower() == host and login in ("", entry.login) and entry.password:
                if mode & (stat.S_IRWXG | stat.S_IRWXO):
                    raise UsageError(
                        f"{file}: others may read it (mode {stat.S_IMODE(mode):04o}); "
                        f"run: chmod 600 {file}"
                    )
                return entry
    return None
