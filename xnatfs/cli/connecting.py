"""Logging in, for every verb that talks to a server."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

from xnatfs.config import Settings
from xnatfs.configuration import Chosen, choose, normal_url
from xnatfs.errors import UsageError
from xnatfs.fs.filesystem import FileSystem
from xnatfs.rest.login import Credentials, find_credentials
from xnatfs.waiting import Waiter


def credentials_for(settings: Settings) -> Credentials:
    """Find the login; asks only where a person can answer.

    Raises: UsageError.
    """
    person = sys.stdin.isatty() and sys.stderr.isatty()
    return find_credentials(
        settings.server,
        os.environ,
        _ask if person else None,
        state_folder=settings.state_folder,
    )


def _ask(question: str) -> str:
    try:
        if question.startswith("Password"):
            import getpass

            return getpass.getpass(question)
        print(question, end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().rstrip("\n")
    except EOFError:
        raise UsageError("no login given") from None


def typed(question: str) -> str:
    """A person's answer; without a terminal the next line of standard input.

    Raises: UsageError: there is none.
    """
    if sys.stdin.isatty() and sys.stderr.isatty():
        return _ask(question)
    line = sys.stdin.readline()
    if not line:
        raise UsageError(f"no login given: standard input ended ({question.split()[0].lower()})")
    return line.rstrip("\r\n")


Connect = Callable[[Waiter], FileSystem]


def connector(settings: Settings, mount: str = "") -> Connect:
    """A function that logs in, with the login found now; offline one that asks nobody."""
    return connector_at(settings)(mount)


def connector_at(settings: Settings) -> Callable[[str], Connect]:
    """As ``connector``, for a mount point that is known later."""
    if settings.offline:
        user = _named_in(os.environ)
        return lambda mount: lambda _waiter: FileSystem.offline(settings, user, mount)
    credentials = credentials_for(settings)
    return lambda mount: lambda waiter: FileSystem.connect(settings, credentials, waiter, mount)


def _named_in(environ: Mapping[str, str]) -> str:
    """The user that the environment names, "" for nobody."""
    return environ.get("XNAT_USER") or environ.get("XNATPY_USER") or ""


def waiter_for(settings: Settings) -> Waiter:
    """The limits of one question to the server."""
    return Waiter(total_s=settings.limits.io_timeout_s)


def choose_for(args: argparse.Namespace, environ: Mapping[str, str], address: str) -> Chosen:
    """The settings of a command whose arguments may name a server by a web address.

    Raises: UsageError: another server is asked for.
    """
    if address and getattr(args, "server", None) is None:
        args.server = address
    chosen = choose(args, environ)
    if address and normal_url(address) != chosen.settings.server.url:
        raise UsageError(
            f"the address is of {address}, and the server asked for is {chosen.settings.server.url}"
        )
    return chosen


@contextmanager
def connected(args: argparse.Namespace, address: str = "") -> Iterator[tuple[FileSystem, Chosen]]:
    """A file system without a mount, for the length of a command.

    Args:
        args: the parsed command line.
        address: the server that a web address in the arguments names (``places``); "": none.

    Raises: UsageError, LoginRefused, Unreachable, NotXnat.
    """
    chosen = choose_for(args, os.environ, address)
    fs = connector(chosen.settings)(waiter_for(chosen.settings))
    try:
        yield fs, chosen
    finally:
        fs.close()
