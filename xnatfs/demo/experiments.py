"""One session or assessor: GET, PUT (make, change, rename), POST, DELETE (R§5.3)."""

from __future__ import annotations

from dataclasses import replace

from xnatfs.demo import columns, holders, items
from xnatfs.demo.addresses import variable
from xnatfs.demo.objects import Experiment, Project, Subject, timestamp
from xnatfs.demo.removal import Removal
from xnatfs.demo.routes import Call
from xnatfs.demo.single import Single, created, fields_of, path_value, without
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Query, Refusal, Reply, Request, text


class Experiments:
    """Answers for `…/experiments/E` and `…/assessors/A`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self._single = Single(site)
        self._removal = Removal(site)

    def get(self, call: Call) -> Reply:
        """A session or an assessor; an unknown sub-path gets it too (R§1.1)."""
        project, row = self._single.experiment(call)
        item = items.experiment_item(self._rows, row, project.id if project else row.project)
        return items.reply(item, call.request)

    def put(self, call: Call) -> Reply:
        """Make (201), change or rename (200) a session; its subject is made if needed."""
        request, query = call.request, call.request.query
        project = self._site.addresses.project(call.variables, request.user)
        found = self._site.addresses.experiments(call.variables, request.user, project)
        if found:
            return self._change_experiment(found[0], request)
        if project is None or "S" not in call.variables:
            raise Refusal(404)
        self._single.need(request, "edit", project)
        xsi_type = query.get("xsiType")
        if not xsi_type:
            raise Refusal(417, "Need PUT Contents")
        if not columns.is_session_type(xsi_type):
            raise Refusal(400, f"Unknown experiment type {xsi_type}")
        with self._rows.lock:
            name = variable(call.variables, "S")
            subject = self._rows.subject(project.id, name)
            if subject is None:
                bare = replace(request, query=Query())
                subject = self._single.make_subject(project, name, bare)
            label = variable(call.variables, "E")
            made = self._make_session(project, subject, label, request)
        return text(made.id, status=201)

    def post(self, call: Call) -> Reply:
        """Make a session from parameters below an existing subject."""
        request = call.request
        project, subject = self._single.subject(call)
        label = request.query.get("label")
        if project is None or not label:
            raise Refusal(400)
        self._single.need(request, "edit", project)
        if self._rows.experiment(project.id, label) is not None:
            raise Refusal(409, "Experiment already exists.")
        made = self._make_session(project, subject, label, request)
        return created(request, f"/data/experiments/{made.id}")

    def _make_session(
        self, project: Project, subject: Subject, label: str, request: Request
    ) -> Experiment:
        now, query = timestamp(), request.query
        return self._rows.experiments.put(
            Experiment(
                id=self._rows.accession("E"), project=project.id, label=label,
                xsi_type=query.get("xsiType"), subject=subject.id,
                date=query.get("date") or path_value(query, "/date"),
                fields=fields_of((), query), insert_user=request.user.name, insert_date=now,
                last_modified=now,
            )
        )  # fmt: skip

    def _change_experiment(self, row: Experiment, request: Request) -> Reply:
        self._single.need(request, "edit", self._rows.projects.get(row.project))
        label = request.query.get("label")
        if label and label != row.label:
            self._rename_experiment(row, label)
            return text("")
        date = request.query.get("date") or path_value(request.query, "/date") or row.date
        fields = fields_of(row.fields, request.query)
        self._rows.experiments.put(
            replace(row, fields=fields, date=date, last_modified=timestamp())
        )
        return text(row.id)

    def _rename_experiment(self, row: Experiment, label: str) -> None:
        with self._rows.lock:
            taken = (
                self._rows.assessor(row.session, row.project, label)
                if row.session
                else self._rows.experiment(row.project, label)
            )
            if taken is not None:
                raise Refusal(409, "Specified label is already in use.")
            changed = replace(row, label=label, last_modified=timestamp())
            session = self._rows.experiments.get(row.session) if row.session else None
            if session is not None:
                roles = ("in", "out", "")
                concerned = [holders.of_assessor(session, row, it) for it in roles]
                before, after = (
                    holders.of_assessor(session, it, "out").folder.removesuffix("/out")
                    for it in (row, changed)
                )
            else:
                concerned = holders.below_session(self._rows, row)
                before, after = holders.session_folder(row), holders.session_folder(changed)
            self._single.move(before, after, concerned)
            self._rows.experiments.put(changed)

    def delete(self, call: Call) -> Reply:
        """Remove a session; in a project it is only shared into, end the sharing (R§5.3)."""
        request = call.request
        if call.tail.strip("/"):
            raise Refusal(400, "does not start with 'projects/'")
        project, row = self._single.experiment(call)
        if project is not None and project.id != row.project:
            self._single.need(request, "delete", project)
            self._rows.experiments.put(replace(row, shares=without(row.shares, project.id)))
            return text("")
        self._single.need(request, "delete", self._rows.projects.get(row.project))
        self._removal.experiment(row)
        return text("")

    def put_assessor(self, call: Call) -> Reply:
        """Make (201), change or rename (200) an assessor."""
        request = call.request
        session_call = replace(
            call, variables={k: v for k, v in call.variables.items() if k != "A"}
        )
        project, session = self._single.experiment(session_call)
        label = variable(call.variables, "A")
        home = project.id if project else session.project
        known = self._rows.assessor(session.id, home, label)
        if known is not None:
            return self._change_experiment(known, request)
        owner = project or self._rows.projects.get(session.project)
        self._single.need(request, "edit", owner)
        xsi_type, now = request.query.get("xsiType"), timestamp()
        if not xsi_type:
            raise Refusal(417, "Need PUT Contents")
        made = self._rows.experiments.put(
            Experiment(
                id=self._rows.accession("E"), project=home, label=label, xsi_type=xsi_type,
                subject=session.subject, session=session.id,
                fields=fields_of((), request.query), insert_user=request.user.name,
                insert_date=now, last_modified=now,
            )
        )  # fmt: skip
        return text(made.id, status=201)
