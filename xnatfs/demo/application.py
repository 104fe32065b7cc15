"""From a request to a reply: firewall, login, routing, refusals, ranges.

Synchronous and free of aiohttp; `server.py` runs it in worker threads.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from xnatfs.demo import ranges, services
from xnatfs.demo.changes import Changes
from xnatfs.demo.deletes import Deletes
from xnatfs.demo.directory import Directory
from xnatfs.demo.files import Files
from xnatfs.demo.gate import Gate, login_page
from xnatfs.demo.lists import Lists
from xnatfs.demo.resources import Resources
from xnatfs.demo.routes import Router
from xnatfs.demo.services import Services
from xnatfs.demo.site import Site
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
            knock.base,
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
                self._check_reason(request)
                return self._router.answer(request, path.removeprefix(mount))
        raise Refusal(404)

    def _check_reason(self, request: Request) -> None:
        changing = request.verb in ("PUT", "POST", "DELETE") and not _NO_CHANGE.match(request.path)
        if changing and self._site.options.require_reason and not request.query.get("event_reason"):
            raise Refusal(403, "A justification for the change is required (event_reason).")


def _routes(site: Site, gate: Gate) -> Router:
    """The route table (R§1.2)."""
    router = Router()
    lists, changes, door = Lists(site), Changes(site), Services(site, gate)
    files, resources, folder = Files(site), Resources(site), Directory(site)
    project, subject = "/projects/{P}", "/projects/{P}/subjects/{S}"
    deep, flat, under_project = (
        f"{subject}/experiments/{{E}}",
        "/experiments/{E}",
        (f"{project}/experiments/{{E}}"),
    )

    router.add("/projects", get=lists.projects)
    router.add(project, get=changes.get_project, put=changes.put_project,
               post=changes.put_project, delete=changes.delete_project)  # fmt: skip
    router.add("/subjects", get=lists.subjects)
    router.add(f"{project}/subjects", get=lists.subjects, post=changes.post_subject)
    for place in ("/subjects/{S}", subject):
        router.add(place, get=changes.get_subject, put=changes.put_subject,
                   delete=changes.delete_subject)  # fmt: skip
        router.add(f"{place}/projects", get=changes.subject_projects)
        router.add(f"{place}/projects/{{TO}}", put=changes.share_subject,
                   delete=changes.unshare_subject)  # fmt: skip
    router.add("/experiments", get=lists.all_experiments)
    router.add(f"{project}/experiments", get=lists.experiments)
    router.add(f"{subject}/experiments", get=lists.experiments, post=changes.post_experiment)
    for place in (flat, under_project, deep):
        router.add(place, get=changes.get_experiment, put=changes.put_experiment,
                   delete=changes.delete_experiment)  # fmt: skip
        router.add(f"{place}/projects", get=changes.experiment_projects)
        router.add(f"{place}/projects/{{TO}}", put=changes.share_experiment,
                   delete=changes.unshare_experiment)  # fmt: skip
    for place in (flat, deep):
        router.add(f"{place}/scans", get=lists.scans)
        router.add(f"{place}/scans/{{SCAN}}", get=changes.get_scan, put=changes.put_scan,
                   delete=changes.delete_scan)  # fmt: skip
        router.add(f"{place}/reconstructions", get=lists.reconstructions)
        router.add(f"{place}/reconstructions/{{RECON}}", get=changes.get_reconstruction,
                   put=changes.put_reconstruction,
                   delete=changes.delete_reconstruction)  # fmt: skip
        router.add(f"{place}/assessors", get=lists.assessors)
        router.add(f"{place}/assessors/{{A}}", get=changes.get_assessor,
                   put=changes.put_assessor, delete=changes.delete_assessor)  # fmt: skip
        router.add(f"{place}/assessors/{{A}}/projects", get=changes.experiment_projects)
    for place in (flat, under_project):
        router.add(f"{place}/DIR", get=folder.get)

    parts = [f"{place}/scans/{{SCAN}}" for place in (flat, deep)]
    for place in (flat, deep):
        for part in (f"{place}/assessors/{{A}}", f"{place}/reconstructions/{{RECON}}"):
            parts += [part, f"{part}/{{TYPE}}"]
    removal, upload = Deletes(site), changes.uploads
    for parent in (project, subject, "/subjects/{S}", under_project, deep, flat, *parts):
        router.add(f"{parent}/resources", get=resources.list, put=resources.put,
                   post=resources.put)  # fmt: skip
        router.add(f"{parent}/resources/{{RES}}", get=resources.get, put=resources.put,
                   post=resources.put, delete=resources.delete)  # fmt: skip
        verbs = {"get": files.get, "put": upload.put, "post": upload.put}
        router.add(f"{parent}/resources/{{RES}}/files", **verbs, delete=removal.delete)
        if parent != under_project:
            router.add(f"{parent}/files", **verbs, delete=removal.delete)

    router.add("/JSESSION", archive=False, get=door.session, post=door.session,
               delete=door.end_session)  # fmt: skip
    router.add("/auth", archive=False, get=door.identity)
    router.add("/services/auth", archive=False, put=door.login, post=door.login)
    router.add("/services/tokens", archive=False, get=door.tokens)
    router.add("/services/refresh/catalog", archive=False, post=door.refresh)
    return router
