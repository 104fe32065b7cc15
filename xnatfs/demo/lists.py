"""The listings of all kinds of objects (R§2.2-R§2.5)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from xnatfs.demo import columns, tables
from xnatfs.demo.objects import Experiment, Project, Resource, Scan
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import Query, Refusal, Reply, Request

_PROJECT = ("ID", "secondary_ID", "name", "description", "pi_firstname", "pi_lastname")
_SUBJECT = ("ID", "project", "label", "insert_date", "insert_user")
_EXPERIMENT = ("ID", "project", "date", "xsiType", "label", "insert_date")
_SCAN = ("xnat_imagescandata_id", "ID", "type", "quality", "xsiType", "note", "series_description")
_RECON = ("xnat_reconstructedimagedata_id", "ID", "type", "baseScanType")
_ASSESSOR = ("ID", "project", "label", "date", "xsiType", "insert_date", "session_ID",
             "session_label")  # fmt: skip
_SCAN_PATH = "xnat:imagescandata/"
_MANY_PROJECTS = ("accessible", "data", "owner", "member", "collaborator", "recent", "favorite",
                  "activeSince", "prearc_code")  # fmt: skip


class Lists:
    """Answers GET of collections."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables

    def projects(self, call: Call) -> Reply:
        """The projects that the user sees."""
        request, query = call.request, call.request.query
        rights = self._site.rights
        seen = [it for it in self._rows.projects.all() if rights.sees(request.user, it)]
        if any(query.has(name) for name in _MANY_PROJECTS):
            return self._projects_with_roles(seen, request)
        wish = query.get("restrict") or query.get("permissions")
        if wish:
            verb = wish if wish in ("edit", "delete", "read") else "edit"
            seen = [it for it in seen if rights.may(request.user, verb, it)]
        values = [_project_values(it) for it in seen]
        return self._table(request, values, _PROJECT, "/data/projects/{id}")

    def _projects_with_roles(self, seen: list[Project], request: Request) -> Reply:
        query, rights = request.query, self._site.rights
        for role in ("owner", "member", "collaborator"):
            if query.flag(role):
                seen = [it for it in seen if rights.role(request.user, it) == role]
        if query.get("data") == "writable":
            seen = [it for it in seen if rights.may(request.user, "edit", it)]
        elif query.get("data") == "readable" or query.flag("accessible"):
            seen = [it for it in seen if rights.may(request.user, "read", it)]
        role_key = f"role_{request.user.name}"
        plural = {"owner": "Owners", "member": "Members", "collaborator": "Collaborators"}
        names = (
            "id", "name", "description", "secondary_id", "pi", "project_invs", "project_access",
            "insert_date", "insert_user", role_key, "URI",
        )  # fmt: skip
        cells = (
            (
                it.id, it.name, it.description, it.secondary_id,
                f"{it.pi_firstname} {it.pi_lastname}".strip(), "", it.access, it.insert_date,
                it.insert_user, plural.get(rights.role(request.user, it), ""),
                f"/data/projects/{it.id}",
            )
            for it in seen
        )  # fmt: skip
        rows = (dict(zip(names, them, strict=True)) for them in cells)
        return tables.render(tables.counted(names, rows), request)

    def subjects(self, call: Call) -> Reply:
        """The subjects of a project, or all readable ones."""
        request = call.request
        project = self._site.addresses.project(call.variables, request.user)
        if project is None:
            found = self._rows.subjects.all()
        elif self._site.rights.may(request.user, "read", project):
            found = self._rows.subjects.of(f"in:{project.id}")
        else:
            raise Refusal(403, "Unable to read subjects")
        home = project.id if project else ""
        values = [
            columns.subject_values(it, home)
            for it in found
            if self._site.rights.reads(request.user, it)
        ]
        return self._table(request, values, _SUBJECT, "/data/subjects/{id}", paged=True)

    def experiments(self, call: Call) -> Reply:
        """The sessions of a project or of a subject in it (never assessors)."""
        request = call.request
        project = self._site.addresses.project(call.variables, request.user)
        subject = self._site.addresses.subject(call.variables, request.user, project)
        if project is None:
            raise Refusal(404)
        if not self._site.rights.may(request.user, "read", project):
            raise Refusal(403, "Unable to read experiments")
        if subject is None:
            found = self._rows.experiments.of(f"in:{project.id}")
        else:
            mine = self._rows.experiments.of(f"subject:{subject.id}")
            found = [it for it in mine if project.id in (it.project, *dict(it.shares))]
        return self._experiments(
            request, found, project.id, "xnat:subjectAssessorData", _EXPERIMENT
        )

    def all_experiments(self, call: Call) -> Reply:
        """Every readable experiment of the site, assessors included."""
        query = call.request.query
        wanted = query.get("xsiType") or "xnat:experimentData"
        found = self._rows.experiments.all()
        if query.has("project"):
            homes = query.words("project")
            found = [it for it in found if it.project in homes]
        defaults: tuple[str, ...] = _EXPERIMENT
        if query.has("xsiType"):
            is_session = columns.is_session_type(wanted) or "subjectAssessor" in wanted
            defaults += ("subject_ID", "subject_label") if is_session else ()
            defaults += () if is_session else ("session_ID", "session_label")
        return self._experiments(call.request, found, "", "xnat:experimentData", defaults)

    def _experiments(
        self,
        request: Request,
        found: Iterable[Experiment],
        home: str,
        root: str,
        defaults: tuple[str, ...],
    ) -> Reply:
        query = request.query
        wanted = query.get("xsiType")
        types = query.words("xsiType")
        if any(not columns.is_known_type(it) for it in types):
            return Reply(media_type="application/json", streamed=True)  # the query failed (R§2.1)
        asked = {name.lower() for name in query.words("columns")}
        if root != "xnat:experimentData" and asked & columns.SESSION_ONLY:
            root = "xnat:imageSessionData"
        rights = self._site.rights
        kept = [
            it
            for it in found
            if rights.reads(request.user, it)
            and columns.is_a(it.xsi_type, root)
            and (not types or any(columns.is_a(it.xsi_type, kind) for kind in types))
        ]
        key = "" if not wanted and root == "xnat:experimentData" else f"{wanted or root}/id".lower()
        values = []
        joined = any(name.startswith(_SCAN_PATH) for name in asked)
        for it in kept:
            base = columns.experiment_values(self._rows, it, home) | ({key: it.id} if key else {})
            values += self._joined(it, base) if joined else [base]
        return self._table(
            request,
            values,
            defaults,
            "/data/experiments/{id}",
            root_key=key,
            paged=True,
            title="Matching experiments",
        )

    def _joined(self, row: Experiment, base: dict[str, str]) -> list[dict[str, str]]:
        """One row for each scan and resource of a session (R§1.3)."""
        found = []
        scans: list[Scan | None] = list(self._rows.scans.of(row.id))
        for scan in scans or [None]:
            values = _joined_scan(scan)
            files: list[Resource | None] = list(
                self._rows.resources.of(f"scan:{scan.key}") if scan else []
            )
            for resource in files or [None]:
                label = resource.label if resource else ""
                found.append(base | values | {f"{_SCAN_PATH}file/label": label})
        return found

    def scans(self, call: Call) -> Reply:
        """The scans of a session; an unknown accession is a 500 (R§1.4)."""
        session = self._session(call)
        values = [columns.scan_values(it) for it in self._rows.scans.of(session.id)]
        uri = f"/data/experiments/{session.id}/scans/{{id}}"
        return self._table(call.request, values, _SCAN, uri, filtered=False)

    def reconstructions(self, call: Call) -> Reply:
        """The reconstructions of a session."""
        session = self._session(call)
        rows = self._rows.reconstructions.of(session.id)
        values = [columns.reconstruction_values(it) for it in rows]
        uri = f"/data/experiments/{session.id}/reconstructions/{{id}}"
        return self._table(call.request, values, _RECON, uri)

    def assessors(self, call: Call) -> Reply:
        """The assessors of a session; their URIs are those of experiments (R§2.5)."""
        session = self._session(call)
        project = self._site.addresses.project(call.variables, call.request.user)
        home = project.id if project else ""
        key = "xnat:imageassessordata/id"
        values = [
            columns.experiment_values(self._rows, it, home) | {key: it.id}
            for it in self._rows.experiments.of(f"assessors-of:{session.id}")
            if self._site.rights.reads(call.request.user, it)
        ]
        return self._table(call.request, values, _ASSESSOR, "/data/experiments/{id}", root_key=key)

    def _session(self, call: Call) -> Experiment:
        user = call.request.user
        project = self._site.addresses.project(call.variables, user)
        self._site.addresses.subject(call.variables, user, project)
        found = self._site.addresses.experiments(call.variables, user, project)
        if not found:
            raise Refusal(404 if project else 500)
        return found[0]

    def _table(
        self,
        request: Request,
        values: list[dict[str, str]],
        defaults: tuple[str, ...],
        uri: str,
        *,
        root_key: str = "",
        paged: bool = False,
        filtered: bool = True,
        title: str = "",
    ) -> Reply:
        """The reply for rows of values by lower-case alias; `uri` is a template over them."""
        query = request.query
        known = {key for row in values for key in row}
        if filtered:
            values = [row for row in values if columns.passes(row, query, known)]
        names = columns.chosen(query, defaults, dict.fromkeys(known, "") if known else None)
        rows: list[Any] = []
        for row in values:
            shown = {name: columns.value_of(row, name) or "" for name in names}
            if root_key:
                shown[root_key] = row[root_key]
            rows.append(shown | {"URI": uri.format(id=row["id"])})
        shown_names = [name for name in names if name != "URI"]
        order = (*shown_names, *((root_key,) if root_key else ()), "URI")
        whole = tables.ordered(Table(order, tuple(rows)), query)
        page = _page(whole.rows, query) if paged else None
        if page is not None:
            return tables.render(Table(order, tuple(page)), request)
        properties = [("totalRecords", str(len(rows)))] + ([("title", title)] if title else [])
        return tables.render(Table(order, whole.rows, tuple(properties)), request)


def _page(rows: tuple[Any, ...], query: Query) -> tuple[Any, ...] | None:
    """The rows of a page; None when nobody asked for one (R§2.1)."""
    if not query.has("limit") and not query.has("offset"):
        return None
    offset = int(query.get("offset") or 0) if query.get("offset").isdigit() else 0
    limit = query.get("limit") or "100"
    if limit == "*":
        return rows[offset:]
    return rows[offset : offset + int(limit)] if limit.isdigit() else rows[offset : offset + 100]


def _project_values(project: Project) -> dict[str, str]:
    return columns.cells(project, "id", "secondary_id", "name", "description", "keywords",
                         "pi_firstname", "pi_lastname") | {
        "xsitype": "xnat:projectData", "meta/last_modified": project.insert_date,
        "meta/insert_date": project.insert_date,
    }  # fmt: skip


def _joined_scan(scan: Scan | None) -> dict[str, str]:
    names = ("id", "type", "quality", "series_description", "note")
    values = columns.scan_values(scan) if scan else {}
    return {_SCAN_PATH + name: values.get(name, "") for name in names}
