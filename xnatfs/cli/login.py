"""Keep a token for a server in the place of a password, so that jobs need none.

xnatfs login https://xnat.example.edu            with your password; the server issues a token
xnatfs login --token https://xnat.example.edu    enter one made in the browser (single sign-on)
"""

from __future__ import annotations

import argparse
import os
from dataclasses import replace

from xnatfs import options
from xnatfs.cli.connecting import typed, waiter_for
from xnatfs.cli.exits import OK
from xnatfs.cli.shown import expiry_text
from xnatfs.config import Settings
from xnatfs.configuration import choose
from xnatfs.errors import NotFound, NotPermitted, UsageError
from xnatfs.rest import tokens
from xnatfs.rest.login import (
    STORED,
    Credentials,
    RefusalMemory,
    check_address,
    check_transport,
    find_credentials,
    login_file,
    store_login,
)
from xnatfs.rest.session import Session
from xnatfs.waiting import Waiter


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``login``."""
    parser.add_argument("place", nargs="?", metavar="SERVER", help="as with mount")
    parser.add_argument(
        "--token",
        action="store_true",
        help="ask for the alias and secret of a token; without a terminal they are the next two "
        "lines of standard input",
    )
    options.add_to(parser, "login")


def run(args: argparse.Namespace) -> int:
    """Log in, and store what logs in again."""
    if args.place:
        args.server = args.place
    settings = choose(args, os.environ).settings
    if settings.server.anonymous:
        raise UsageError("a guest has no login to keep")
    given = _token(settings) if args.token else _password(settings)
    # Who logs in by hand knows better than what was remembered.
    RefusalMemory(settings.state_folder, settings.server.url, given).clear()
    with_own_session = replace(settings.server, shared_session=False)
    session = Session(with_own_session, settings.limits, given, settings.state_folder)
    waiter = waiter_for(settings)
    session.open(waiter)
    try:
        kept = _completed(given, session, waiter) if args.token else tokens.issue(session, waiter)
    finally:
        session.close()
    store_login(settings.server.url, kept, settings.state_folder)
    RefusalMemory(settings.state_folder, settings.server.url, kept).clear()
    if not args.quiet:
        print(f"logged in to {settings.server.url} as {kept.account}: {expiry_text(kept.expires)}")
        print(f"the token is in {login_file(settings.server.url, settings.state_folder)}")
    return OK


def _password(settings: Settings) -> Credentials:
    return find_credentials(
        settings.server, os.environ, typed, state_folder=settings.state_folder, stored=False
    )


def _token(settings: Settings) -> Credentials:
    check_address(settings.server.url)
    check_transport(settings.server)
    alias = typed("Alias of the token: ").strip()
    secret = typed("Password (secret) of the token: ").strip()
    if not alias or not secret:
        raise UsageError("a token is an alias and a secret")
    return Credentials(alias, secret, "the token given")


def _completed(given: Credentials, session: Session, waiter: Waiter) -> Credentials:
    """A token that was entered, with what the server tells of it."""
    kept = replace(given, source=STORED, account=session.user)
    try:
        told = tokens.find(session, given.user, waiter)
    except (NotFound, NotPermitted):
        return kept
    return replace(kept, issued=told.issued, expires=told.expires) if told else kept
