"""Who a request is: cookie, Basic, guest; and what those get who may not come in (R§6)."""

from __future__ import annotations

import base64
import binascii
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from xnatfs.demo.site import Site
from xnatfs.demo.users import GUEST, Session, User
from xnatfs.demo.wire import Headers, Reply, container_page

_BROWSERS = re.compile("MSIE|Mozilla|AppleWebKit|Opera")
# Paths that answer without a login (R§6, R§8, R§12.5).
_OPEN = re.compile(
    r"/(data|REST)/(JSESSION|services/auth)(/|$)|/xapi/siteConfig/(buildInfo|siteId|siteUrl)|"
    r"/app/|/$|$"
)


def is_browser(user_agent: str) -> bool:
    """Whether a User-Agent is that of a browser; whatever says Java is none (R§6)."""
    return bool(_BROWSERS.search(user_agent)) and "java" not in user_agent.lower()


def csrf_token(session: str) -> str:
    """What browsers must send with every change in an HTTP session."""
    return str(uuid.uuid5(uuid.NAMESPACE_OID, session))


@dataclass(frozen=True, slots=True)
class Entry:
    """An admitted request: its user, its session and the cookies that its reply carries."""

    user: User
    session: str
    cookies: Headers


class Gate:
    """Admits requests."""

    def __init__(self, site: Site, context_path: str) -> None:
        self._site = site
        self._home = context_path or "/"
        self._context_path = context_path

    def admit(self, headers: Mapping[str, str], path: str) -> Entry | Reply:
        """The user of a request, or the reply that it gets instead."""
        sessions = self._site.sessions
        live = sessions.touch(_cookie(headers.get("cookie", ""), "JSESSIONID"))
        credentials = _basic(headers.get("authorization", ""))
        known = self._site.accounts.users.get(live.user) if live else None
        if live and known and (credentials is None or credentials[0] == live.user):
            return Entry(known, live.id, self._cookies(None))
        if credentials is not None:
            return self._login(credentials, live)
        fresh = None
        if live is None:
            fresh = live = sessions.open(GUEST.name)
        if live is None:
            return self._unauthorized(None)
        if self._site.options.open_site or _OPEN.match(path):
            return Entry(GUEST, live.id, self._cookies(fresh))
        if is_browser(headers.get("user-agent", "")):
            return self._to_login_page(fresh)
        return self._unauthorized(fresh)

    def login(self, name: str, password: str) -> Session | None:
        """A new session for right credentials; None otherwise, or when there are too many."""
        user = self._site.accounts.check(name, password)
        return self._site.sessions.open(user.name) if user else None

    def _login(self, credentials: tuple[str, str], former: Session | None) -> Entry | Reply:
        user = self._site.accounts.check(*credentials)
        if former is not None and user is not None:
            if former.user == user.name:  # an alias token on its owner's session
                return Entry(user, former.id, self._cookies(None))
            self._site.sessions.close(former.id)  # a login changes the session's id
        session = self._site.sessions.open(user.name) if user else None
        if user is None or session is None:
            return self._unauthorized(None)
        return Entry(user, session.id, self._cookies(session))

    def _cookies(self, fresh: Session | None) -> Headers:
        now, idle = int(time.time() * 1000), int(self._site.sessions.idle_s * 1000)
        expiry = f'SESSION_EXPIRATION_TIME="{now},{idle}"; Path={self._home}'
        found: Headers = (("Set-Cookie", expiry),)
        if fresh is not None:
            found += (("Set-Cookie", f"JSESSIONID={fresh.id}; Path={self._home}; HttpOnly"),)
        return found

    def session_cookie(self, session: Session) -> Headers:
        """The cookies of a session that was opened by a form."""
        return self._cookies(session)

    def _unauthorized(self, fresh: Session | None) -> Reply:
        challenge = ("WWW-Authenticate", 'Basic realm="XNAT Protected Area, Login Required"')
        page = container_page(401, "Unauthorized")
        return Reply(401, (challenge, *self._cookies(fresh)), page, "text/html;charset=utf-8")

    def _to_login_page(self, fresh: Session | None) -> Reply:
        where = ("Location", f"{self._context_path}/app/template/Login.vm")
        return Reply(302, (where, *self._cookies(fresh)))


def login_page(context_path: str) -> bytes:
    """The page that browsers are sent to; clients get it with status 200."""
    return (
        "<!DOCTYPE html>\n<html><head><title>XNAT</title></head><body>"
        f'<form name="form1" method="post" action="{context_path}/login">'
        '<input name="username"/><input name="password" type="password"/></form></body></html>\n'
    ).encode()


def _cookie(header: str, name: str) -> str:
    for part in header.split(";"):
        key, _, value = part.strip().partition("=")
        if key == name:
            return value.strip('"')
    return ""


def _basic(header: str) -> tuple[str, str] | None:
    """Name and password of a Basic header; a provider before the name is left away (R§6)."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(coded).decode("utf-8").partition(":")
    except (binascii.Error, UnicodeDecodeError):
        return ("", "")
    return name.rpartition("/")[2], password
