"""What is not archive: sessions, identity, alias tokens, catalog refresh, build info (R§6-R§8)."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from urllib.parse import unquote

from xnatfs.demo import schema, tables
from xnatfs.demo.archive import REFRESH_STEPS
from xnatfs.demo.catalog import CatalogConflictError
from xnatfs.demo.gate import Gate, csrf_token
from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Resource
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.users import AliasToken
from xnatfs.demo.wire import Query, Refusal, Reply, Request, text

VERSION = "1.8.11"
BUILD_INFO = {
    "version": VERSION, "buildNumber": "1", "buildDate": "Tue Jun 04 12:00:00 UTC 2024",
    "sha": "93d33cbf", "isDirty": "false", "commit": "0", "tag": VERSION,
    "shaFull": "93d33cbf00000000000000000000000000000000", "branch": "master",
    "timestamp": "1717502400000",
}  # fmt: skip


class Services:
    """Answers below /data/JSESSION, /data/auth and /data/services."""

    def __init__(self, site: Site, gate: Gate) -> None:
        self._site = site
        self._gate = gate

    def session(self, call: Call) -> Reply:
        """The id of the session, a guest's too (R§6)."""
        tables.accepted(call.request, ("text/plain",))
        session = call.request.session
        more = f"; XNAT_CSRF={csrf_token(session)}" if call.request.query.flag("CSRF") else ""
        return text(session + more)

    def end_session(self, call: Call) -> Reply:
        """Log out."""
        self._site.sessions.close(call.request.session)
        return text("")

    def identity(self, call: Call) -> Reply:
        """Who is logged in."""
        return text(f"User '{call.request.user.name}' is logged in")

    def login(self, call: Call) -> Reply:
        """Log in by a form; the body is the new session's id (R§12.5)."""
        form = Query(call.request.body.read(1 << 16).decode("utf-8", "replace"))
        if not form.has("username"):
            form = call.request.query
        session = self._gate.login(form.get("username"), form.get("password"))
        if session is None:
            raise Refusal(401)
        return text(session.id).adding(*self._gate.session_cookie(session))

    def tokens(self, call: Call) -> Reply:
        """`issue`, `show`, `validate/ALIAS/SECRET`, `invalidate/ALIAS` of alias tokens."""
        user, accounts = call.request.user, self._site.accounts
        verb, *rest = [unquote(it) for it in call.tail.strip("/").split("/")]
        if user.guest:
            raise Refusal(403)
        whom = user.name
        if rest[:1] == ["user"] and len(rest) > 1:
            whom = rest[1]
            if whom != user.name and not user.admin:
                raise Refusal(403)
            if accounts.users.get(whom) is None:
                raise Refusal(404)
        if verb == "issue":
            return _json(_shown(accounts.issue(whom)))
        if verb == "show":
            return _json([_shown(it) for it in accounts.tokens.all() if it.user == whom])
        token = accounts.tokens.get(rest[0]) if rest else None
        if verb == "validate" and rest:
            valid = token is not None and rest[1:] == [token.secret]
            return _json({"valid": token.user} if token and valid else {})
        if verb != "invalidate" or token is None or (token.user != user.name and not user.admin):
            raise Refusal(404)
        accounts.tokens.drop(token.alias)
        return _json({"result": "OK"})

    def refresh(self, call: Call) -> Reply:
        """Bring catalogs and disk together for every `resource=` address (R§7)."""
        query, user = call.request.query, call.request.user
        asked = [it for it in query.words("options") if it in REFRESH_STEPS]
        asked += [it for it in REFRESH_STEPS if query.has(it) and query.flag(it)]
        for address in query.all("resource"):
            for holder, resource in self._meant(address, call.request):
                if not self._site.addresses.may(user, "edit", holder):
                    raise Refusal(403)
                try:
                    self._site.archive.refresh(resource, asked or REFRESH_STEPS, user.name)
                except CatalogConflictError as conflict:
                    raise Refusal(500, str(conflict)) from conflict
        return text("")

    def elements(self, call: Call) -> Reply:
        """The types that can be searched (R§12.11); one type's fields are not described."""
        names = [] if call.tail.strip("/") else schema.element_names()
        keys = ("ELEMENT_NAME", "SINGULAR", "PLURAL", "SECURED", "COUNT")
        rows = (dict(zip(keys, (it, it, it, "true", "0"), strict=True)) for it in names)
        return tables.render(tables.counted(keys, rows), call.request)

    def _meant(self, address: str, request: Request) -> Iterable[tuple[Holder, Resource]]:
        """The resources that an archive address like `/archive/experiments/E/…` means."""
        path = re.sub(r"^(/data)?(/archive)?", "", address)
        match = _ADDRESS.fullmatch(path)
        if match is None:
            raise Refusal(400, f"Unable to identify {address}")
        variables = {key: value for key, value in match.groupdict().items() if value is not None}
        target = self._site.addresses.target(variables, request.user, strict=True)
        level = target.everything if target.whole_session else target.holders
        return self._site.addresses.resources(variables.get("RES", ""), level, request.user)


_ADDRESS = re.compile(
    r"(?:/projects/(?P<P>[^/]+))?(?:/subjects/(?P<S>[^/]+))?(?:/experiments/(?P<E>[^/]+))?"
    r"(?:/scans/(?P<SCAN>[^/]+)|/reconstructions/(?P<RECON>[^/]+)|/assessors/(?P<A>[^/]+))?"
    r"(?:/(?P<TYPE>in|out))?(?:/resources/(?P<RES>[^/]+))?(?:/files)?/?"
)


def xapi(request: Request, path: str) -> Reply:
    """The few addresses below /xapi that clients ask."""
    if path.startswith("/siteConfig/buildInfo"):
        name = path.removeprefix("/siteConfig/buildInfo").strip("/")
        if not name:
            return _json(BUILD_INFO)
        if name in BUILD_INFO:
            return text(BUILD_INFO[name])
    if path == "/schemas":
        return _json(list(schema.NAMES))
    if path.removeprefix("/schemas/") in schema.NAMES:
        return text(schema.schema(path.removeprefix("/schemas/")), media_type="text/xml")
    if path == "/siteConfig/siteId":
        return text("XNAT")
    if path == "/siteConfig/siteUrl":
        return text(request.base)
    if path == "/users/username":
        return text(request.user.name)
    if path.startswith("/users/"):
        name = path.removeprefix("/users/")
        if name != request.user.name and not request.user.admin:
            raise Refusal(403)
        return _json({"username": name, "enabled": True, "verified": True, "admin": False})
    raise Refusal(404)


def _shown(token: AliasToken) -> dict[str, object]:
    return {
        "alias": token.alias, "created": token.created, "disabled": 0, "enabled": True,
        "estimatedExpirationTime": token.expires, "id": token.number, "secret": token.secret,
        "singleUse": False, "timestamp": token.created, "validIPAddresses": [],
        "xdatUserId": token.user,
    }  # fmt: skip


def _json(value: object) -> Reply:
    return text(json.dumps(value, separators=(",", ":")), media_type="application/json")
