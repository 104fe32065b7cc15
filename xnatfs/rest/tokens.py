"""Alias tokens: issued, looked up, renewed and revoked at the server (R§6).

An alias and its secret log in like a user and a password, for as long as the site allows (two
days by default). ``xnatfs login`` keeps one in the place of a password.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from time import time
from typing import Any

from xnatfs.errors import BadReply, NotFound, NotPermitted, XnatfsError
from xnatfs.rest.login import (
    STORED,
    Credentials,
    login_file,
    store_login,
    stored_login,
)
from xnatfs.rest.private import PrivateFolder
from xnatfs.rest.repeats import failed
from xnatfs.rest.session import Session
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# Between two looks at the age of a token, at most and at least. Seconds.
_LOOK_S = 600.0
_LOOK_AGAIN_S = 1.0

# A token that the server does not renew is warned of when it has this long to live. Seconds.
_WARN_S = 12 * 3600.0


def issue(session: Session, waiter: Waiter) -> Credentials:
    """A new token for the user of a session.

    Raises: NotPermitted, NotFound (the server has no tokens), BadReply and those of
        ``Session.request``.
    """
    try:
        token = _ask(session, "issue", waiter)
    except NotPermitted as error:
        raise NotPermitted(
            f"{session.url}: the server issues no token to user {session.user!r}"
        ) from error
    return _credentials(token, session, "GET /services/tokens/issue")


def find(session: Session, alias: str, waiter: Waiter) -> Credentials | None:
    """What the server tells of a token of this user; None when it does not list it.

    Raises: as ``issue``.
    """
    shown = _ask(session, "show", waiter)
    for token in shown if isinstance(shown, list) else []:
        if isinstance(token, dict) and token.get("alias") == alias:
            return _credentials(token, session, "GET /services/tokens/show")
    return None


def revoke(session: Session, alias: str, waiter: Waiter) -> None:
    """End a token. Raises: NotFound: there is none (any more); as ``issue``."""
    _ask(session, f"invalidate/{alias}", waiter)


def _ask(session: Session, operation: str, waiter: Waiter) -> Any:
    reply = session.request("GET", f"/services/tokens/{operation}", waiter=waiter)
    if reply.status != 200:
        raise failed(reply)
    try:
        return json.loads(reply.content)
    except ValueError as error:
        raise BadReply(f"{reply.what}: not JSON where a token was asked for") from error


def _credentials(token: Any, session: Session, what: str) -> Credentials:
    cells = token if isinstance(token, dict) else {}
    alias, secret = cells.get("alias"), cells.get("secret")
    if not isinstance(alias, str) or not isinstance(secret, str) or not alias or not secret:
        raise BadReply(f"{what}: no alias and secret in the server's answer")
    return Credentials(
        alias,
        secret,
        STORED,
        account=session.user,
        issued=_seconds(cells.get("created")),
        expires=_seconds(cells.get("estimatedExpirationTime")),
    )


def _seconds(milliseconds: object) -> float:
    """A time of the server (epoch, ms) in seconds; 0 where it tells none."""
    return milliseconds / 1000 if isinstance(milliseconds, int | float) else 0.0


def keep(session: Session, state_folder: Path, waiter: Waiter) -> float:
    """Renew the stored login that a session uses, when half of its life is over.

    The old token is left to expire: jobs that were started with it may still use it. What keeps
    the server from renewing is logged.

    Args:
        session: open.
        state_folder: where logins are stored.
        waiter: limits of the wait.

    Returns: seconds after which to look again.
    """
    mine = session.credentials
    if mine.source != STORED or not mine.expires:
        return _LOOK_S
    wait = (mine.issued + mine.expires) / 2 - time()
    if wait > 0:
        return max(_LOOK_AGAIN_S, min(_LOOK_S, wait))
    try:
        _renew(session, mine, state_folder, waiter)
    except XnatfsError as error:
        left = mine.expires - time()
        level = logging.WARNING if left < _WARN_S else logging.INFO
        log.log(
            level,
            "the stored login ends in %.1f h and was not renewed (%s): run `xnatfs login`",
            max(0.0, left) / 3600,
            error,
        )
    return _LOOK_S


def _renew(session: Session, mine: Credentials, state_folder: Path, waiter: Waiter) -> None:
    file = login_file(session.url, state_folder)
    with PrivateFolder(file.parent).lock(f"{file.stem}.lock", waiter, "our turn to renew"):
        stored = stored_login(session.url, state_folder)
        if stored is None or stored.account != session.user:
            # Logged out, or logged in as somebody else: nothing of ours to renew.
            raise NotFound("it is not stored any more")
        if stored.secret == mine.secret:
            stored = issue(session, waiter)
            store_login(session.url, stored, state_folder)
            log.info("%s: a new token for the stored login", session.url)
    session.take(stored)
