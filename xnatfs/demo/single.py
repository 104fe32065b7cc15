"""What all handlers of single objects share: finding, permitting, reading parameters (R§5.3)."""

from __future__ import annotations

from collections.abc import Iterable

from xnatfs.demo import holders
from xnatfs.demo.objects import Experiment, Pairs, Project, Subject, timestamp
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Query, Refusal, Reply, Request, text

_NOT_FIELDS = {"xsiType", "label", "format", "event_reason", "event_comment", "event_type",
               "event_action", "event_id", "req_format", "activate", "quarantine", "_lock",
               "_unlock", "allowDataDeletion", "removeFiles", "XNAT_CSRF", "inbody"}  # fmt: skip


class Single:
    """Finds the one object that a call means."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables

    def subject(self, call: Call) -> tuple[Project | None, Subject]:
        """The subject of a URL and the project it was asked in. Raises Refusal 404."""
        project = self._site.addresses.project(call.variables, call.request.user)
        subject = self._site.addresses.subject(call.variables, call.request.user, project)
        if subject is None:
            raise Refusal(404, "Unable to identify subject.")
        return project, subject

    def experiment(self, call: Call) -> tuple[Project | None, Experiment]:
        """The session, or if the URL has one the assessor, likewise. Raises Refusal 404."""
        project = self._site.addresses.project(call.variables, call.request.user)
        if "S" in call.variables:
            self._site.addresses.subject(call.variables, call.request.user, project)
        found = self._site.addresses.experiments(call.variables, call.request.user, project)
        if len(found) != 1:
            raise Refusal(404, "Unable to find the specified experiment.")
        if "A" not in call.variables:
            return project, found[0]
        pairs = self._site.addresses.assessors(call.variables, call.request.user, found, project)
        if len(pairs) != 1:
            raise Refusal(404, "Unable to find the specified assessor.")
        return project, pairs[0][1]

    def need(self, request: Request, verb: str, project: Project | None) -> None:
        """Raises Refusal 403 if the user may not `read`, `edit` or `delete` there."""
        if not self._site.rights.may(request.user, verb, project):
            raise Refusal(403, f"User account doesn't have permission to {verb} this item.")

    def make_subject(self, project: Project, label: str, request: Request) -> Subject:
        """A new subject with the fields of the request."""
        now = timestamp()
        return self._rows.subjects.put(
            Subject(
                id=self._rows.accession("S"), project=project.id, label=label,
                fields=fields_of((), request.query), insert_user=request.user.name,
                insert_date=now, last_modified=now,
            )
        )  # fmt: skip

    def move(self, before: str, after: str, concerned: Iterable[holders.Holder]) -> None:
        """Rename a folder of the archive. Raises Refusal 409 when the name is taken there."""
        try:
            self._site.archive.move(before, after, concerned)
        except FileExistsError as taken:
            raise Refusal(409, f"Target directory exists: {taken}") from taken


def without(shares: Pairs, project: str) -> Pairs:
    """The shares but for one project."""
    return tuple(pair for pair in shares if pair[0] != project)


def created(request: Request, path: str) -> Reply:
    """The reply to a POST that made something: its absolute URI (R§5.3)."""
    where = request.base + path
    return text(where, status=201).adding(("Location", where))


def path_value(query: Query, ending: str) -> str:
    """The value of a data-model path like `xnat:mrScanData/type`, or of the bare name."""
    name = ending.removeprefix("/")
    return next((value for key, value in query.pairs if key == name or key.endswith(ending)), "")


def fields_of(known: Pairs, query: Query) -> Pairs:
    """The object's further fields, with those of the query."""
    merged = dict(known)
    for key, value in query.pairs:
        name = key.partition("/")[2] if "/" in key else key
        if key not in _NOT_FIELDS and name not in ("label", "project", "date", "ID"):
            merged[name] = value
    return tuple(merged.items())
