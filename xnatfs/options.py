"""The options, as a table: one row for each, read by everything that takes options.

The command line, ``-o``, the environment (``XNATFS_CACHE_SIZE``), config.toml and its
``[enforced]`` section all know an option by its row here; its default is the default of the
field in ``xnatfs.config`` that it sets.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xnatfs.config import ServerSettings, Settings
from xnatfs.errors import UsageError

_SIZE_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_TIME_UNITS = {"": 1.0, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def size(text: str) -> int:
    """Bytes: ``1048576``, ``512M``, ``20G``, ``20GiB`` (units of 1024).

    Raises: ValueError.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise ValueError("a size is given as 20G, 512M or in bytes")
    return int(float(found[1]) * _SIZE_UNITS[found[2].upper()])


def duration(text: str) -> float:
    """Seconds: ``60``, ``90s``, ``15m``, ``12h``, ``30d``.

    Raises: ValueError.
    """
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if not found:
        raise ValueError("a time is given in seconds, or as 15m, 12h or 30d")
    return float(found[1]) * _TIME_UNITS[found[2]]


def number(text: str) -> int:
    """A whole number from 0.

    Raises: ValueError.
    """
    if not text.strip().isdecimal():
        raise ValueError("a whole number is needed")
    return int(text)


def count(text: str) -> int:
    """A whole number from 1.

    Raises: ValueError.
    """
    if number(text) < 1:
        raise ValueError("a whole number above 0 is needed")
    return int(text)


def mode_bits(text: str) -> int:
    """Octal permission bits: ``022``.

    Raises: ValueError.
    """
    if not re.fullmatch(r"0?o?[0-7]{1,4}", text.strip()):
        raise ValueError("octal digits are needed, as in 022")
    return int(text.strip().replace("o", ""), 8)


def folder(text: str) -> Path:
    """A path; ``~`` and variables are expanded, because a config file has no shell.

    Raises: ValueError.
    """
    if not text:
        raise ValueError("a path is needed")
    return Path(os.path.abspath(os.path.expandvars(os.path.expanduser(text))))


def archive_path(text: str) -> str:
    """An absolute path in the archive, without a slash at its end."""
    return "/" + "/".join(part for part in text.split("/") if part)


def data_type(text: str) -> str:
    """The name of a data type: ``xnat:mrSessionData``.

    Raises: ValueError.
    """
    if not re.fullmatch(r"[A-Za-z_][\w.-]*:[A-Za-z_][\w.-]*", text):
        raise ValueError("a data type is given as xnat:mrSessionData")
    return text


def one_of(*words: str) -> Callable[[str], str]:
    """One of these words."""

    def parse(text: str) -> str:
        if text not in words:
            raise ValueError(f"one of {', '.join(words)} is needed")
        return text

    return parse


def flag(text: str) -> bool:
    """``true`` or ``false``, where an option without a value is given one.

    Raises: ValueError.
    """
    words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
    if text.lower() not in words:
        raise ValueError("true or false is needed")
    return words[text.lower()]


# Groups of verbs: those that log in, and among them those that read, and the mount.
MOVING = frozenset({"get", "prefetch", "put", "verify"})
READING = MOVING | {"mount", "run", "ls", "find", "refresh", "url"}
LOGIN = READING | {"uploads", "login", "logout", "doctor"}
OFFLINE = frozenset({"mount", "run", "ls", "get", "put"})
WRITING = frozenset({"mount", "run", "put", "uploads"})
MOUNT = frozenset({"mount", "run"})
ALL = LOGIN | {"cache", "umount", "status", "demo"}


@dataclass(frozen=True, slots=True)
class Option:
    """One option."""

    # As on the command line, without the dashes.
    name: str
    # Text to value; ``flag`` makes it an option without an argument.
    parse: Callable[[str], Any]
    # The field of ``Settings`` that it sets ("store.size"); "" for the command itself.
    field: str
    help: str
    verbs: frozenset[str]
    # Name of the argument in the help.
    argument: str = ""
    short: str = ""
    # Which of two values an administrator's ``[enforced]`` keeps (``min`` or ``max``); None:
    # the enforced one, whatever the other.
    stricter: Callable[[Iterable[Any]], Any] | None = None
    # A flag that switches its field off.
    negative: bool = False
    # Where it makes sense: a password file's name on the command line only, say.
    in_files: bool = True

    @property
    def key(self) -> str:
        """As in ``-o``, config.toml and the parsed arguments."""
        return self.name.replace("-", "_")

    @property
    def default(self) -> Any:
        """The default of the field; None for an option of the command itself."""
        if not self.field:
            return None
        value: Any = Settings(server=ServerSettings(url=""))
        for part in self.field.split("."):
            value = getattr(value, part)
        return value


TABLE: tuple[Option, ...] = (
    Option("server", str, "", "the archive: an address, or a name from config.toml "
           "($XNAT_HOST, $XNATPY_HOST, $XNAT_URL)", LOGIN | {"cache"}, "URL", short="s"),
    Option("user", str, "server.user", "log in as this user (netrc entry, else a prompt)",
           LOGIN, "NAME", short="u"),
    Option("netrc", folder, "server.netrc",
           "a file with the login (mode 0600), before all others", LOGIN, "FILE"),
    Option("anonymous", flag, "server.anonymous", "work as a guest, on an open site", LOGIN),
    Option("allow-http", flag, "server.allow_http",
           "send the password over plain http to another host", LOGIN, stricter=min),
    Option("no-shared-session", flag, "server.shared_session",
           "open a server session of its own and log out of it at the end", LOGIN, negative=True),
    Option("connections", count, "server.connections", "parallel connections", LOGIN, "N",
           stricter=min),
    Option("io-timeout", duration, "limits.io_timeout_s",
           "give up after so long without progress", LOGIN, "TIME"),
    Option("reason", str, "server.reason", "what the archive records as the reason of a change",
           WRITING, "TEXT"),
    Option("path", archive_path, "view.path", "the part of the archive that is mounted", MOUNT,
           "PATH"),
    Option("read-only", flag, "policy.read_only", "change nothing", MOUNT, stricter=max),
    Option("allow-overwrite", flag, "policy.allow_overwrite", "change files that others made",
           MOUNT | {"put"}, stricter=min),
    Option("allow-delete", flag, "policy.allow_delete", "remove files that others made", MOUNT,
           stricter=min),
    Option("allow-create", flag, "policy.allow_create", "make subjects, sessions and scans",
           MOUNT, stricter=min),
    Option("session-type", data_type, "policy.session_type", "the data type of new sessions",
           MOUNT, "TYPE"),
    Option("scan-type", data_type, "policy.scan_type", "the data type of new scans", MOUNT,
           "TYPE"),
    Option("cache-dir", folder, "store.folder", "where downloaded data is kept",
           READING | {"cache", "uploads"}, "DIR"),
    Option("cache-size", size, "store.size", "how much of it", READING, "SIZE", stricter=min),
    Option("cache-max-age", duration, "store.max_age_s", "for how long at most", READING, "TIME",
           stricter=min),
    Option("spool-dir", folder, "spool.folder", "where data waits until the server has it",
           WRITING, "DIR"),
    Option("spool-size", size, "spool.size", "how much may wait (0: up to 5 %% free disk)",
           WRITING, "SIZE", stricter=min),
    Option("write-back", flag, "spool.write_back",
           "close returns when the data is safe on this disk; it is sent in the background", MOUNT),
    Option("offline", flag, "offline",
           "use no network: what was prefetched is there, what is written waits in the spool",
           OFFLINE),
    Option("metadata-ttl", duration, "limits.metadata_ttl_s",
           "age at which others' changes are seen", READING, "TIME"),
    Option("verify", one_of("strict", "warn"), "store.verify",
           "data that contradicts the catalog: an error, or a warning", READING, "strict|warn",
           stricter=min),
    Option("scan-names", one_of("id", "id-type"), "view.scan_names",
           "scans as 4 or as 4-Ax_3D_T1", READING, "id|id-type"),
    Option("drain", duration, "limits.drain_s",
           "how long a terminated mount goes on sending", MOUNT, "TIME"),
    Option("uid", number, "view.uid", "owner of the files shown", MOUNT, "ID"),
    Option("gid", number, "view.gid", "group of the files shown", MOUNT, "ID"),
    Option("umask", mode_bits, "view.umask", "permission bits that are not shown", MOUNT, "BITS"),
    Option("allow-other", flag, "", "let other users of this machine in", MOUNT, stricter=min),
    Option("foreground", flag, "", "stay in the foreground and log to the terminal",
           frozenset({"mount"}), short="f", in_files=False),
    Option("log-file", folder, "", "the log (default: in the state folder)", MOUNT, "FILE"),
    Option("log-level", one_of("debug", "info", "warning", "error"), "", "how much is logged",
           MOUNT, "LEVEL"),
    Option("metrics-file", folder, "", "figures of the mount for Prometheus, written every 15 s",
           MOUNT, "FILE"),
    Option("config", folder, "", "another file than ~/.config/xnatfs/config.toml",
           LOGIN | {"cache"}, "FILE",
           in_files=False),
)  # fmt: skip

BY_KEY = {option.key: option for option in TABLE}


def option_of(name: str, where: str) -> Option:
    """The row of a name written with dashes or underscores.

    Args:
        name: of the option.
        where: it was written, for the error.

    Raises: UsageError, with the nearest name.
    """
    option = BY_KEY.get(name.replace("-", "_"))
    if option is not None:
        return option
    import difflib

    near = difflib.get_close_matches(name.replace("-", "_"), BY_KEY, 1)
    hint = f"; did you mean {near[0]}?" if near else ""
    raise UsageError(f"{where}: unknown option {name!r}{hint}")


def value_of(option: Option, value: object, where: str) -> Any:
    """The parsed value of an option.

    Args:
        option: its row.
        value: text, or what TOML made of it; None where an option stands without a value.
        where: it was written, for the error.

    Raises: UsageError.
    """
    if value is None:
        if option.parse is not flag:
            raise UsageError(f"{where}: {option.name} needs a value")
        return True
    if isinstance(value, bool) and option.parse is flag:
        return value
    if isinstance(value, bool | list | dict):
        raise UsageError(f"{where}: {option.name}: {value!r} is no value for it")
    try:
        return option.parse(str(value))
    except ValueError as error:
        raise UsageError(f"{where}: {option.name}: {value!r}: {error}") from error


def add_to(parser: argparse.ArgumentParser, verb: str) -> None:
    """Give a verb's parser its options; one that was not given is not in the result."""
    for option in TABLE:
        if verb not in option.verbs:
            continue
        names = [f"-{option.short}"] if option.short else []
        names.append(f"--{option.name}")
        text = option.help + _shown_default(option)
        if option.parse is flag:
            parser.add_argument(
                *names, dest=option.key, action="store_true", default=argparse.SUPPRESS, help=text
            )
        else:
            parser.add_argument(
                *names, dest=option.key, metavar=option.argument, default=argparse.SUPPRESS,
                help=text,
            )  # fmt: skip
    quiet = parser.add_mutually_exclusive_group()
    quiet.add_argument("-q", "--quiet", action="store_true", help="print errors only")
    quiet.add_argument("-v", "--verbose", action="count", default=0, help="tell more; twice: all")


def _shown_default(option: Option) -> str:
    value = option.default
    if option.parse is flag or value in (None, "", 0) or option.parse in (number, folder):
        return ""
    if option.parse is size:
        value = f"{value >> 30}G"
    elif option.parse is duration:
        value = f"{value / 86400:g}d" if value >= 86400 else f"{value:g} s"
    elif option.parse is mode_bits:
        value = f"{value:03o}"
    return f" ({value})"


# What mount(8), fstab and autofs pass along and we have no use for.
_OTHERS_WORDS = {
    "rw", "dev", "nodev", "suid", "nosuid", "exec", "noexec", "auto", "noauto", "user", "nouser",
    "users", "owner", "group", "defaults", "_netdev", "nofail", "async", "sync", "dirsync",
    "atime", "noatime", "diratime", "nodiratime", "relatime", "norelatime", "strictatime",
    "nostrictatime", "lazytime", "nolazytime", "mand", "nomand", "iversion", "noiversion",
    "silent", "loud", "default_permissions",
}  # fmt: skip


def mount_words(text: str) -> dict[str, Any]:
    r"""The options of one ``-o``: ``allow_overwrite,cache_size=20G``; ``\,`` is a comma.

    With ``sloppy`` among them, those that nobody knows are passed over.

    Returns: key → value.

    Raises: UsageError.
    """
    found: dict[str, Any] = {}
    words = re.split(r"(?<!\\),", text)
    for word in words:
        name, has_value, value = word.replace("\\,", ",").strip().partition("=")
        if not name or name.startswith(("x-", "X-")) or name == "comment":
            continue
        if not has_value and name in _OTHERS_WORDS:
            continue
        if name == "ro" and not has_value:
            name = "read_only"
        if name == "remount":
            raise UsageError("-o remount: unmount and mount with the new options")
        if "sloppy" in words and name.replace("-", "_") not in BY_KEY:
            continue
        option = option_of(name, "-o")
        found[option.key] = value_of(option, value if has_value else None, "-o")
    return found
