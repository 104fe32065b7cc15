"""Who a request is: cookie, Basic, guest; and what those get who may not come in (R§6)."""

from __future__ import annotations

import base64
import re
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass

from xnatfs.demo.site import Site
from xnatfs.demo.users import GUEST, Session, User
from xnatfs.demo.wire import Headers, Reply, container_reply

_BROWSERS = re.compile("MSIE|Mozilla|AppleWebKit|Opera")
# Paths that answer without a login (R§6, R§8, R§12.5).
_OPEN = re.compile(
    r"/(data|REST)/(JSESSION|services/auth)(/|$)|/xapi/siteConfig/(buildInfo|siteId|siteUrl)|"
    r"/app/|/$|$"
)
_CHALLENGE = ("WWW-Authenticate", 'Basic realm="XNAT Protected Area, Login Required"')


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


def admit(site: Site, headers: Mapping[str, str], path: str) -> Entry | Reply:
    """The user of a request, or the reply that it gets instead."""
    live = site.sessions.touch(_session_id(headers.get("cookie", "")))
    credentials = _basic(headers.get("authorization", ""))
    known = site.accounts.users.get(live.user) if live else None
    if live and known and (credentials is None or credentials[0] == live.user):
        return Entry(known, live.id, cookies(site))
    if credentials is not None:
        return _login(site, credentials, live)
    fresh = None if live else site.sessions.open(GUEST.name)
    guest = live or fresh
    if guest and (site.options.open_site or _OPEN.match(path)):
        return Entry(GUEST, guest.id, cookies(site, fresh))
    if is_browser(headers.get("user-agent", "")):
        where = ("Location", f"{site.options.context_path}/app/template/Login.vm")
        return Reply(302, (where, *cookies(site, fresh)))
    return container_reply(401, headers=(_CHALLENGE, *cookies(site, fresh)))


def _login(site: Site, credentials: tuple[str, str], former: Session | None) -> Entry | Reply:
    user = site.accounts.check(*credentials)
    if former is not None and user is not None:
        if former.user == user.name:  # an alias token on its owner's session
            return Entry(user, former.id, cookies(site))
        site.sessions.close(former.id)  # a login changes the session's id
    session = site.sessions.open(user.name) if user else None
    if user is None or session is None:
        return container_reply(401, headers=(_CHALLENGE, *cookies(site)))
    return Entry(user, session.id, cookies(site, session))


def cookies(site: Site, fresh: Session | None = None) -> Headers:
    """What every reply sets, and the session where it is a fresh one."""
    now, idle = int(time.time() * 1000), int(site.sessions.idle_s * 1000)
    home = site.options.context_path or "/"
    found: Headers = (("Set-Cookie", f'SESSION_EXPIRATION_TIME="{now},{idle}"; Path={home}'),)
    if fresh is not None:
        found += (("Set-Cookie", f"JSESSIONID={fresh.id}; Path={home}; HttpOnly"),)
    return found


def login_page(context_path: str) -> Reply:
    """The page that browsers are sent to; clients get it with status 200."""
    page = (
        "<!DOCTYPE html>\n<html><head><title>XNAT</title></head><body>"
        f'<form name="form1" method="post" action="{context_path}/login">'
        '<input name="username"/><input name="password" type="password"/></form></body></html>\n'
    )
    return Reply(body=page.encode(), media_type="text/html")


def _session_id(header: str) -> str:
    found = re.search(r'(?:^|;)\s*JSESSIONID="?([^;"]*)', header)
    return found[1] if found else ""


def _basic(header: str) -> tuple[str, str] | None:
    """Name and password of a Basic header; a provider before the name is left away (R§6)."""
    scheme, _, coded = header.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        name, _, password = base64.b64decode(coded).decode("utf-8").partition(":")
    except ValueError:
        return ("", "")
    return name.rpartition("/")[2], password
