"""Revoke the token that ``xnatfs login`` keeps for a server, and forget it."""

from __future__ import annotations

import argparse
import os

from xnatfs import options
from xnatfs.cli.connecting import waiter_for
from xnatfs.cli.exits import OK
from xnatfs.configuration import choose
from xnatfs.errors import LoginRefused, NotFound, ServerProblem, WaitEnded
from xnatfs.rest import tokens
from xnatfs.rest.login import forget_login, login_file, stored_login
from xnatfs.rest.session import Session


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments of ``logout``."""
    parser.add_argument("place", nargs="?", metavar="SERVER", help="as with mount")
    options.add_to(parser, "logout")


def run(args: argparse.Namespace) -> int:
    """Revoke first: a token that could not be revoked is not forgotten."""
    if args.place:
        args.server = args.place
    settings = choose(args, os.environ).settings
    url, folder = settings.server.url, settings.state_folder
    stored = stored_login(url, folder)
    if stored is None:
        raise NotFound(f"{url}: no login is stored for it")
    session = Session(settings.server, settings.limits, stored, folder)
    waiter = waiter_for(settings)
    said = f"the token of {stored.name} is revoked"
    try:
        session.open(waiter)
        tokens.revoke(session, stored.user, waiter)
        session.log_out()
    except (LoginRefused, NotFound):
        said = f"the token of {stored.name} was not valid any more"
    except (ServerProblem, WaitEnded) as error:
        raise type(error)(f"not revoked, and kept in {login_file(url, folder)}: {error}") from error
    finally:
        session.close()
    forget_login(url, folder)
    if not args.quiet:
        print(f"{url}: {said}")
    return OK
