"""From a call to a reply: firewall, login, routing, refusals, ranges.

Synchronous and free of aiohttp; `server.py` runs it in worker threads.
"""

from __future__ import annotations

import re
import tarfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial

from xnatfs.demo import files, gate, lists, projects, resources, services, single, uploads
from xnatfs.demo.calls import Call, Handler
from xnatfs.demo.catalog import CatalogConflictError
from xnatfs.demo.multipart import MultipartError
from xnatfs.demo.ranges import conditional, ranged
from xnatfs.demo.wire import BrokenTransferError, Refusal, Reply, container_reply, refused

# What Spring's firewall lets nobody send (R§4.2).
_REJECTED = re.compile(r";|%3b|%2f|\\|%5c|%2e|%25|//|/\.{1,2}(/|$)|[^\x20-\x7e]", re.IGNORECASE)
_RESTLET_HEADERS = (
    ("Accept-Ranges", "bytes"),
    ("Vary", "Accept-Charset, Accept-Encoding, Accept-Language, Accept"),
    ("Cache-Control", "must-revalidate"),
)
# Paths whose POST or PUT is no change of the archive and needs no reason.
_NO_CHANGE = re.compile(r"/(data|REST)(/archive)?/(JSESSION|services/(auth|tokens|refresh))")
# What the real server runs into as well, and answers with 500 (R§4.5).
_TROUBLE = (OSError, MultipartError, BrokenTransferError, CatalogConflictError, tarfile.TarError,
            zipfile.BadZipFile, UnicodeError)  # fmt: skip


def answer(call: Call) -> tuple[Reply, str]:
    """The reply to a request, and the user on whose behalf it was made."""
    options = call.site.options
    if options.maintenance:
        return container_reply(503), ""
    if _REJECTED.search(call.path):
        return container_reply(500), ""
    if not call.path.startswith(options.context_path + "/"):
        return container_reply(404), ""
    path = call.path[len(options.context_path) :]
    entry = gate.admit(call.site, call.headers, path)
    if isinstance(entry, Reply):
        return entry, ""
    tunnelled = call.verb == "POST" and call.query.get("method").upper()
    call = replace(call, path=path, verb=tunnelled or call.verb, user=entry.user,
                   session=entry.session)  # fmt: skip
    try:
        reply = ranged(call.headers, conditional(call.headers, _reply(call)))
    except Refusal as refusal:
        reply = refused(refusal)
    except _TROUBLE as problem:
        reply = refused(Refusal(500, str(problem)))
    return reply.adding(*entry.cookies, *_RESTLET_HEADERS), entry.user.name


def _reply(call: Call) -> Reply:
    _empty, mount, path = (*call.path.split("/", 2), "")[:3]
    if mount == "xapi":
        return services.xapi(call, path.strip("/"))
    if mount in ("data", "REST"):
        _check_change(call)
        return _routed(call, f"/{path}")
    if mount in ("app", ""):
        return gate.login_page(call.site.options.context_path)
    raise Refusal(404)


def _check_change(call: Call) -> None:
    """Refuse changes without a reason where one is wanted, and those of strange pages (R§6)."""
    if call.verb not in ("PUT", "POST", "DELETE") or _NO_CHANGE.match(call.path):
        return
    is_proved = call.query.get("XNAT_CSRF") == gate.csrf_token(call.session)
    if gate.is_browser(call.headers.get("user-agent", "")) and not is_proved:
        raise Refusal(500, "INVALID CSRF")
    if call.site.options.require_reason and not call.query.get("event_reason"):
        raise Refusal(403, "A justification for the change is required (event_reason).")


def _routed(call: Call, path: str) -> Reply:
    """Hand a call to its route as Restlet 1.1 does: the longest matching start wins (R§1.1).

    An unknown sub-path is therefore no 404: the longest matching parent gets the rest as its tail.
    """
    in_archive = path.startswith("/archive/")
    path = path.removeprefix("/archive") if in_archive else path
    matches = [
        (match.end(), match, handlers)
        for pattern, handlers in (_ARCHIVE if in_archive else _ARCHIVE + _SERVICES)
        if (match := pattern.match(path))
    ]
    if not matches:
        raise Refusal(404)
    end, match, handlers = max(matches, key=lambda it: it[0])
    handler = handlers.get("GET" if call.verb == "HEAD" else call.verb)
    if handler is None:
        raise Refusal(405)
    return handler(replace(call, variables=match.groupdict(), tail=path[end:]))


_P = "/projects/{P}"
_S = "/projects/{P}/subjects/{S}"
# The three addresses of a session; scans and the like have no place below the second.
_DEEP, _MIDDLE, _FLAT = f"{_S}/experiments/{{E}}", f"{_P}/experiments/{{E}}", "/experiments/{E}"
_PARTS = {"scans/{SCAN}": "scan", "reconstructions/{RECON}": "reconstruction",
          "assessors/{A}": "assessor"}  # fmt: skip

Routes = Iterator[tuple[str, Mapping[str, Handler]]]


def _objects() -> Routes:
    """The routes of objects and where they are shared (R§1.2)."""
    yield "/projects", {"GET": lists.projects}
    yield _P, {
        "GET": projects.get, "PUT": projects.put, "POST": projects.put, "DELETE": projects.delete,
    }  # fmt: skip
    yield "/subjects", {"GET": lists.subjects}
    yield f"{_P}/subjects", {"GET": lists.subjects, "POST": partial(single.post, "subject")}
    yield "/experiments", {"GET": lists.all_experiments}
    yield f"{_P}/experiments", {"GET": lists.experiments}
    yield f"{_S}/experiments", {
        "GET": lists.experiments, "POST": partial(single.post, "experiment"),
    }  # fmt: skip
    for place in (_FLAT, _MIDDLE):
        yield f"{place}/DIR", {"GET": files.directory}
    places = {"/subjects/{S}": "subject", _S: "subject"}
    places |= dict.fromkeys((_FLAT, _MIDDLE, _DEEP), "experiment")
    for session in (_FLAT, _DEEP):
        for part, kind in _PARTS.items():
            yield f"{session}/{part.partition('/')[0]}", {"GET": partial(lists.parts, kind)}
            places[f"{session}/{part}"] = kind
    for place, kind in places.items():
        yield place, {
            "GET": single.get, "PUT": partial(single.put, kind), "DELETE": single.delete,
        }  # fmt: skip
        if kind not in ("scan", "reconstruction"):
            yield f"{place}/projects", {"GET": single.homes}
            yield f"{place}/projects/{{TO}}", {"PUT": single.share, "DELETE": single.unshare}


def _resources() -> Routes:
    """The routes of resources and files of every level, short-cuts included (R§1.2)."""
    parents = [_P, _S, "/subjects/{S}", _MIDDLE, _DEEP, _FLAT]
    for session in (_FLAT, _DEEP):
        for part, kind in _PARTS.items():
            parents.append(f"{session}/{part}")
            if kind != "scan":
                parents.append(f"{session}/{part}/{{TYPE}}")
    of_files = {
        "GET": files.get, "PUT": uploads.put, "POST": uploads.put, "DELETE": uploads.delete,
    }  # fmt: skip
    for parent in parents:
        yield f"{parent}/resources", {
            "GET": resources.listing, "PUT": resources.put, "POST": resources.put,
        }  # fmt: skip
        yield f"{parent}/resources/{{RES}}", {
            "GET": resources.get, "PUT": resources.put, "POST": resources.put,
            "DELETE": resources.delete,
        }  # fmt: skip
        yield f"{parent}/resources/{{RES}}/files", of_files
        if parent != _MIDDLE:
            yield f"{parent}/files", of_files


def _others() -> Routes:
    """The routes that have no twin below /data/archive."""
    yield "/JSESSION", {
        "GET": services.session, "POST": services.session, "DELETE": services.end_session,
    }  # fmt: skip
    yield "/auth", {"GET": services.identity}
    yield "/services/auth", {"PUT": services.login, "POST": services.login}
    yield "/services/tokens", {"GET": services.tokens}
    yield "/services/refresh/catalog", {"POST": services.refresh}
    yield "/search/elements", {"GET": services.elements}


def _compiled(*tables: Routes) -> list[tuple[re.Pattern[str], Mapping[str, Handler]]]:
    return [
        (re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", template)), handlers)
        for table in tables
        for template, handlers in table
    ]


_ARCHIVE = _compiled(_objects(), _resources())
_SERVICES = _compiled(_others())
