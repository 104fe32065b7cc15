"""Settings from all the places where they can be written, in their order.

The command line, then ``-o``, the environment, the user's config.toml and the administrator's
/etc/xnatfs.toml; what stands there under ``[enforced]`` nobody can loosen.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from xnatfs.config import ServerSettings, Settings, config_home
from xnatfs.errors import UsageError
from xnatfs.options import BY_KEY, Option, flag, mount_words, option_of, value_of

log = logging.getLogger(__name__)

SITE_FILE = Path("/etc/xnatfs.toml")
_SERVER_VARIABLES = ("XNAT_HOST", "XNATPY_HOST", "XNAT_URL")
_PREFIX = "XNATFS_"


@dataclass(frozen=True, slots=True)
class Chosen:
    """Everything that was chosen for one command."""

    settings: Settings
    # Options of the command itself, by key: those without a field in ``Settings``.
    own: Mapping[str, Any]

    @property
    def log_level(self) -> str:
        """The level that was asked for, or "" ."""
        return str(self.own.get("log_level", ""))


@dataclass(frozen=True, slots=True)
class _File:
    """One configuration file."""

    options: dict[str, Any]
    servers: dict[str, dict[str, Any]]
    enforced: dict[str, Any]


def choose(
    args: argparse.Namespace,
    environ: Mapping[str, str],
    *,
    needs_server: bool = True,
    site_file: Path = SITE_FILE,
) -> Chosen:
    """Build the settings of a command.

    Args:
        args: the parsed command line; ``o`` holds the texts of ``-o``, if the verb has it.
        environ: the environment.
        needs_server: whether the command talks to a server.
        site_file: the administrator's file.

    Raises: UsageError.
    """
    site = _read(site_file, must_exist=False)
    own_path = getattr(args, "config", None) or environ.get("XNATFS_CONFIG")
    user = _read(Path(own_path) if own_path else config_home() / "config.toml",
                 must_exist=bool(own_path))  # fmt: skip
    given = _from_environment(environ)
    for text in getattr(args, "o", None) or []:
        given |= mount_words(text)
    given |= _from_arguments(args)
    servers = {
        name: site.servers.get(name, {}) | user.servers.get(name, {})
        for name in site.servers | user.servers
    }
    values = site.options | user.options
    wanted = given.get("server") or _first(environ, _SERVER_VARIABLES) or values.get("server")
    url, of_server = _server(wanted, servers, needed=needs_server)
    values = _enforce(values | of_server | given, site.enforced)
    return Chosen(
        _settings(url, values),
        {key: value for key, value in values.items() if not BY_KEY[key].field},
    )


def _read(path: Path, *, must_exist: bool) -> _File:
    """Read one configuration file; a missing one is empty unless it was asked for."""
    try:
        text = path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError, PermissionError) as error:
        if must_exist:
            raise UsageError(f"{path}: {error.strerror}") from error
        return _File({}, {}, {})
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: cannot be read: {error}") from error
    import tomllib

    try:
        content = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"{path}: {error}") from error
    servers = _tables(content.pop("servers", {}), path, "servers")
    enforced = content.pop("enforced", {})
    if not isinstance(enforced, dict):
        raise UsageError(f"{path}: [enforced] is a table")
    named = {}
    for name, table in servers.items():
        url = table.pop("url", None)
        if not isinstance(url, str):
            raise UsageError(f"{path}: [servers.{name}] needs a url")
        named[name] = {"url": url, **_options(table, f"{path}: [servers.{name}]")}
    return _File(_options(content, str(path)), named, _options(enforced, f"{path}: [enforced]"))


def _tables(content: object, path: Path, name: str) -> dict[str, dict[str, Any]]:
    if not isinstance(content, dict) or not all(isinstance(it, dict) for it in content.values()):
        raise UsageError(f"{path}: [{name}.NAME] are tables")
    return content


def _options(table: Mapping[str, object], where: str) -> dict[str, Any]:
    found = {}
    for name, value in table.items():
        option = option_of(name, where)
        if not option.in_files:
            raise UsageError(f"{where}: {option.name} belongs on the command line")
        found[option.key] = value_of(option, value, where)
    return found


def _from_environment(environ: Mapping[str, str]) -> dict[str, Any]:
    found = {}
    for option in BY_KEY.values():
        name = _PREFIX + option.key.upper()
        if option.in_files and environ.get(name):
            found[option.key] = value_of(option, environ[name], f"${name}")
    return found


def _from_arguments(args: argparse.Namespace) -> dict[str, Any]:
    return {
        key: value_of(option, getattr(args, key), f"--{option.name}")
        for key, option in BY_KEY.items()
        if hasattr(args, key) and getattr(args, key) is not None
    }


def _first(environ: Mapping[str, str], names: tuple[str, ...]) -> str:
    return next((environ[name] for name in names if environ.get(name)), "")


def _server(
    wanted: str | None, servers: dict[str, dict[str, Any]], *, needed: bool
) -> tuple[str, dict[str, Any]]:
    """The address of a server given by name or address, and the options of its section."""
    if not wanted and len(servers) == 1:
        wanted = next(iter(servers))
    if not wanted:
        if needed:
            raise UsageError(
                "no server: give its address, set XNAT_HOST, or name it in "
                f"{config_home() / 'config.toml'}"
            )
        return "", {}
    if wanted in servers:
        section = dict(servers[wanted])
        return normal_url(section.pop("url")), section
    url = normal_url(wanted)
    for section in servers.values():
        if normal_url(section["url"]) == url:
            return url, {key: value for key, value in section.items() if key != "url"}
    return url, {}


def normal_url(text: str) -> str:
    """A server's base URL without a slash at its end; a bare host name means https.

    Raises: UsageError. The error never repeats a user or password that stands in the address.
    """
    address = text.strip()
    if "://" not in address:
        if "." not in address and ":" not in address and address != "localhost":
            raise UsageError(f"{address!r} is neither an address nor a server of config.toml")
        address = f"https://{address}"
    try:
        parts = urlsplit(address)
    except ValueError as error:
        raise UsageError(f"the server's address is none: {error}") from error
    if "@" in parts.netloc:
        raise UsageError(
            "no user or password in the address, where others can see it: use -u NAME and netrc, "
            "or XNAT_USER and XNAT_PASS"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise UsageError(f"{text!r}: a server is given as https://HOST[:PORT][/PATH]")
    return f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"


def _enforce(values: dict[str, Any], enforced: dict[str, Any]) -> dict[str, Any]:
    """Hold the values within what the administrator enforces."""
    held = dict(values)
    for key, limit in enforced.items():
        option = BY_KEY[key]
        held[key] = _within(option, held.get(key, _unset(option, limit)), limit)
        if key in values and held[key] != values[key]:
            log.warning("%s is %s here: the administrator enforces it", option.name, limit)
    return held


def _unset(option: Option, limit: Any) -> Any:
    """What an option that nobody gave counts as: not set, its default, or the limit itself."""
    if option.parse is flag:
        return False
    return limit if option.default is None else option.default


def _within(option: Option, value: Any, limit: Any) -> Any:
    return limit if option.stricter is None else option.stricter((value, limit))


def _settings(url: str, values: Mapping[str, Any]) -> Settings:
    settings: Any = Settings(server=ServerSettings(url=url))
    for key, value in values.items():
        option = BY_KEY[key]
        if not option.field:
            continue
        value = not value if option.negative else value
        concern, _, field = option.field.rpartition(".")
        if concern:
            part = replace(getattr(settings, concern), **{field: value})
            settings = replace(settings, **{concern: part})
        else:
            settings = replace(settings, **{field: value})
    chosen: Settings = settings
    return chosen
