"""From a request to a reply: firewall, login, routing, refusals, ranges.

Synchronous and free of aiohttp; `server.py` runs it in worker threads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from xnatfs.demo import ranges, services
from xnatfs.demo.deletes import Deletes
from xnatfs.demo.directory import Directory
from xnatfs.demo.experiments import Experiments
from xnatfs.demo.files import Files
from xnatfs.demo.gate import Gate, csrf_token, is_browser, login_page
from xnatfs.demo.lists import Lists
from xnatfs.demo.parts import Parts
from xnatfs.demo.projects import Projects
from xnatfs.demo.resources import Resources
from xnatfs.demo.routes import Router
from xnatfs.demo.services import Services
from xnatfs.demo.sharing import Sharing
from xnatfs.demo.site import Site
from xnatfs.demo.subjects import Subjects
from xnatfs.demo.uploads import Uploads
from xnatfs.demo.wire import (
    Body,
    NoBody,
    Query,
    Refusal,
    Reply,
    Request,
    container_page,
    refusal_reply,
)

# What Spring's firewall lets nobody send (R§4.2).
_REJECTED = re.compile(r";|%3b|%2f|\\|%5c|%2e|%25|//|/\.{1,2}(/|$)|[^\x20-\x7e]", re.IGNORECASE)
_RESTLET_HEADERS = (
    ("Accept-Ranges", "bytes"),
    ("Vary", "Accept-Charset, Accept-Encoding, Accept-Language, Accept"),
    ("Cache-Control", "must-revalidate"),
)
# Paths whose POST or PUT is no change of the archive and needs no reason.
_NO_CHANGE = re.compile(r"/(data|REST)(/archive)?/(JSESSION|services/(auth|tokens|refresh))")


@dataclass(frozen=True, slots=True)
class Knock:
    """A request as the front received it: raw path with query, lower-case headers, body."""

    verb: str
    target: str
    headers: Mapping[str, str]
    base: str
    body: Body = field(default_factory=NoBody)
    conflict: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The reply, and the user on whose behalf it was made."""

    reply: Reply
    user: str


class Application:
    """One site behind one address."""

    def __init__(self, site: Site, context_path: str = "") -> None:
        self._site = site
        self._context_path = context_path
        self._gate = Gate(site, context_path)
        self._router = _routes(site, self._gate)

    def answer(self, knock: Knock) -> Answer:
        """Answer one request; refusals become replies here."""
        target, _, query = knock.target.partition("?")
        if self._site.options.maintenance:
            return Answer(Reply(503, body=container_page(503, "Service Unavailable")), "")
        if _REJECTED.search(target):
            page = container_page(500, "Internal Server Error")
            return Answer(Reply(500, body=page, media_type="text/html;charset=utf-8"), "")
        if not target.startswith(self._context_path + "/"):
            page = container_page(404, "Not Found")
            return Answer(Reply(404, body=page, media_type="text/html;charset=utf-8"), "")
        path = target[len(self._context_path) :]
        entry = self._gate.admit(knock.headers, path)
        if isinstance(entry, Reply):
            return Answer(entry, "")
        request = Request(
            knock.verb, path, Query(query), knock.headers, knock.body, entry.user, entry.session,
            knock.base, knock.conflict,
        )  # fmt: skip
        if request.verb == "POST" and request.query.has("method"):
            request = replace(request, verb=request.query.get("method").upper())
        try:
            reply = self._reply(request)
            reply = ranges.ranged(request, ranges.conditional(request, reply))
        except Refusal as refusal:
            reply = refusal_reply(refusal)
        return Answer(reply.adding(*entry.cookies, *_RESTLET_HEADERS), entry.user.name)

    def _reply(self, request: Request) -> Reply:
        path = request.path
        if path.startswith("/xapi/"):
            return services.xapi(request, path.removeprefix("/xapi"))
        if path.startswith("/app/") or path == "/":
            return Reply(body=login_page(self._context_path), media_type="text/html")
        for mount in ("/data", "/REST"):
            if path.startswith(f"{mount}/"):
                self._check_change(request)
                return self._router.answer(request, path.removeprefix(mount))
        raise Refusal(404)

    def _check_change(self, request: Request) -> None:
        """Refuse changes without a reason where one is wanted, and those of strange pages (R§6)."""
        if request.verb not in ("PUT", "POST", "DELETE") or _NO_CHANGE.match(request.path):
            return
        proved = request.query.get("XNAT_CSRF") == csrf_token(request.session)
        if is_browser(request.headers.get("user-agent", "")) and not proved:
            raise Refusal(500, "INVALID CSRF")
        if self._site.options.require_reason and not request.query.get("event_reason"):
            raise Refusal(403, "A justification for the change is required (event_reason).")


def _routes(site: Site, gate: Gate) -> Router:
    """The route table (R§1.2)."""
    router = Router()
    _object_routes(router, site)
    _part_routes(router, site)
    _resource_routes(router, site)
    door = Services(site, gate)
    router.add("/JSESSION", archive=False, get=door.session, post=door.session,
               delete=door.end_session)  # fmt: skip
    router.add("/auth", archive=False, get=door.identity)
    router.add("/services/auth", archive=False, put=door.login, post=door.login)
    router.add("/services/tokens", archive=False, get=door.tokens)
    router.add("/search/elements", archive=False, get=door.elements)
    router.add("/services/refresh/catalog", archive=False, post=door.refresh)
    return router


_P = "/projects/{P}"
_S = "/projects/{P}/subjects/{S}"
# The three addresses of a session; scans and the like have no place below the second.
_DEEP, _MIDDLE, _FLAT = f"{_S}/experiments/{{E}}", f"{_P}/experiments/{{E}}", "/experiments/{E}"


def _object_routes(router: Router, site: Site) -> None:
    """Projects, subjects, sessions, and where they are shared."""
    lists, sharing, folder = Lists(site), Sharing(site), Directory(site)
    projects, subjects, sessions = Projects(site), Subjects(site), Experiments(site)
    router.add("/projects", get=lists.projects)
    router.add(_P, get=projects.get, put=projects.put, post=projects.put, delete=projects.delete)
    router.add("/subjects", get=lists.subjects)
    router.add(f"{_P}/subjects", get=lists.subjects, post=subjects.post)
    for place in ("/subjects/{S}", _S):
        router.add(place, get=subjects.get, put=subjects.put, delete=subjects.delete)
        router.add(f"{place}/projects", get=sharing.homes)
        router.add(f"{place}/projects/{{TO}}", put=sharing.share, delete=sharing.unshare)
    router.add("/experiments", get=lists.all_experiments)
    router.add(f"{_P}/experiments", get=lists.experiments)
    router.add(f"{_S}/experiments", get=lists.experiments, post=sessions.post)
    for place in (_FLAT, _MIDDLE, _DEEP):
        router.add(place, get=sessions.get, put=sessions.put, delete=sessions.delete)
        router.add(f"{place}/projects", get=sharing.homes)
        router.add(f"{place}/projects/{{TO}}", put=sharing.share, delete=sharing.unshare)
    for place in (_FLAT, _MIDDLE):
        router.add(f"{place}/DIR", get=folder.get)


def _part_routes(router: Router, site: Site) -> None:
    """Scans, reconstructions and assessors of a session."""
    lists, parts, sessions, sharing = Lists(site), Parts(site), Experiments(site), Sharing(site)
    for place in (_FLAT, _DEEP):
        router.add(f"{place}/scans", get=lists.scans)
        router.add(f"{place}/scans/{{SCAN}}", get=parts.get_scan, put=parts.put_scan,
                   delete=parts.delete_scan)  # fmt: skip
        router.add(f"{place}/reconstructions", get=lists.reconstructions)
        router.add(f"{place}/reconstructions/{{RECON}}", get=parts.get_reconstruction,
                   put=parts.put_reconstruction,
                   delete=parts.delete_reconstruction)  # fmt: skip
        router.add(f"{place}/assessors", get=lists.assessors)
        router.add(f"{place}/assessors/{{A}}", get=sessions.get, put=sessions.put_assessor,
                   delete=sessions.delete)  # fmt: skip
        router.add(f"{place}/assessors/{{A}}/projects", get=sharing.homes)


def _resource_routes(router: Router, site: Site) -> None:
    """Resources and files of every level, short-cuts included."""
    resources, files, uploads, deletes = Resources(site), Files(site), Uploads(site), Deletes(site)
    parents = [_P, _S, "/subjects/{S}", _MIDDLE, _DEEP, _FLAT]
    for place in (_FLAT, _DEEP):
        parents.append(f"{place}/scans/{{SCAN}}")
        for part in (f"{place}/assessors/{{A}}", f"{place}/reconstructions/{{RECON}}"):
            parents += [part, f"{part}/{{TYPE}}"]
    for parent in parents:
        router.add(f"{parent}/resources", get=resources.list, put=resources.put,
                   post=resources.put)  # fmt: skip
        router.add(f"{parent}/resources/{{RES}}", get=resources.get, put=resources.put,
                   post=resources.put, delete=resources.delete)  # fmt: skip
        shortcuts = () if parent == _MIDDLE else (f"{parent}/files",)
        for place in (f"{parent}/resources/{{RES}}/files", *shortcuts):
            router.add(place, get=files.get, put=uploads.put, post=uploads.put,
                       delete=deletes.delete)  # fmt: skip
