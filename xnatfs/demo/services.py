"""What is not archive: sessions, identity, alias tokens, catalog refresh, build info (R§6-R§8)."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from urllib.parse import unquote

from xnatfs.demo import addresses, gate, schema, tables
from xnatfs.demo.archive import REFRESH_STEPS
from xnatfs.demo.calls import Call
from xnatfs.demo.users import AliasToken
from xnatfs.demo.wire import Query, Refusal, Reply, text

_VERSION = "1.8.11"
_BUILD_INFO = {
    "version": _VERSION, "buildNumber": "1", "buildDate": "Tue Jun 04 12:00:00 UTC 2024",
    "sha": "93d33cbf", "isDirty": "false", "commit": "0", "tag": _VERSION,
    "shaFull": "93d33cbf00000000000000000000000000000000", "branch": "master",
    "timestamp": "1717502400000",
}  # fmt: skip
_ADDRESS = re.compile(
    r"(?:/data)?(?:/archive)?"
    r"(?:/projects/(?P<P>[^/]+))?(?:/subjects/(?P<S>[^/]+))?(?:/experiments/(?P<E>[^/]+))?"
    r"(?:/scans/(?P<SCAN>[^/]+)|/reconstructions/(?P<RECON>[^/]+)|/assessors/(?P<A>[^/]+))?"
    r"(?:/(?P<TYPE>in|out))?(?:/resources/(?P<RES>[^/]+))?(?:/files)?/?"
)


def session(call: Call) -> Reply:
    """The id of the session, a guest's too (R§6)."""
    tables.accepted(call, ("text/plain",))
    token = f"; XNAT_CSRF={gate.csrf_token(call.session)}" if call.query.flag("CSRF") else ""
    return text(call.session + token)


def end_session(call: Call) -> Reply:
    """Log out."""
    call.site.sessions.close(call.session)
    return text("")


def identity(call: Call) -> Reply:
    """Who is logged in."""
    return text(f"User '{call.user.name}' is logged in")


def login(call: Call) -> Reply:
    """Log in by a form; the body is the new session's id (R§12.5)."""
    form = Query(call.body.read(1 << 16).decode("utf-8", "replace"))
    form = form if form.has("username") else call.query
    user = call.site.accounts.check(form.get("username"), form.get("password"))
    opened = call.site.sessions.open(user.name) if user else None
    if opened is None:
        raise Refusal(401)
    return text(opened.id).adding(*gate.cookies(call.site, opened))


def tokens(call: Call) -> Reply:
    """`issue`, `show`, `validate/ALIAS/SECRET`, `invalidate/ALIAS` of alias tokens."""
    user, accounts, whom = call.user, call.site.accounts, call.user.name
    verb, *rest = [unquote(it) for it in call.tail.strip("/").split("/")]
    if rest[:1] == ["user"] and len(rest) > 1:
        whom = rest[1]
    if user.guest or (whom != user.name and not user.admin):
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


def _shown(token: AliasToken) -> dict[str, object]:
    return {
        "alias": token.alias, "created": token.created, "disabled": 0, "enabled": True,
        "estimatedExpirationTime": token.expires, "id": token.number, "secret": token.secret,
        "singleUse": False, "timestamp": token.created, "validIPAddresses": [],
        "xdatUserId": token.user,
    }  # fmt: skip


def refresh(call: Call) -> Reply:
    """Bring catalogs and disk together for every `resource=` address (R§7)."""
    query = call.query
    asked = [it for it in query.words("options") if it in REFRESH_STEPS]
    asked += [it for it in REFRESH_STEPS if query.flag(it)]
    for address in query.all("resource"):
        match = _ADDRESS.fullmatch(address)
        if match is None:
            raise Refusal(400, f"Unable to identify {address}")
        there = replace(call, variables={key: it for key, it in match.groupdict().items() if it})
        level = addresses.target(there, strict=True).everything
        for holder, resource in addresses.resources(there, there.variable("RES"), level):
            if not call.may("edit", holder):
                raise Refusal(403)
            call.site.archive.refresh(resource, asked or REFRESH_STEPS, call.user.name)
    return text("")


def elements(call: Call) -> Reply:
    """The types that can be searched (R§12.11); one type's fields are not described."""
    names = [] if call.tail.strip("/") else schema.element_names()
    keys = ("ELEMENT_NAME", "SINGULAR", "PLURAL", "SECURED", "COUNT")
    return tables.render(tables.counted(keys, ((it, it, it, "true", "0") for it in names)), call)


def xapi(call: Call, path: str) -> Reply:
    """The few addresses below /xapi that clients ask."""
    user = call.user
    plain = {
        "siteConfig/siteId": "XNAT", "siteConfig/siteUrl": call.base, "users/username": user.name,
    } | {f"siteConfig/buildInfo/{name}": value for name, value in _BUILD_INFO.items()}  # fmt: skip
    whole = {"siteConfig/buildInfo": _BUILD_INFO, "schemas": list(schema.NAMES)}
    room, _, name = path.partition("/")
    if path in plain:
        return text(plain[path])
    if path in whole:
        return _json(whole[path])
    if room == "schemas" and name in schema.NAMES:
        return text(schema.schema(name), media_type="text/xml")
    if room == "users" and name:
        if name != user.name and not user.admin:
            raise Refusal(403)
        return _json({"username": name, "enabled": True, "verified": True, "admin": False})
    raise Refusal(404)


def _json(value: object) -> Reply:
    return text(json.dumps(value, separators=(",", ":")), media_type="application/json")
