"""Subjects and experiments in several projects (R§5.3)."""

from __future__ import annotations

from dataclasses import replace

from xnatfs.demo import tables
from xnatfs.demo.objects import Experiment, Pairs, Subject, label_in
from xnatfs.demo.routes import Call
from xnatfs.demo.single import Single, without
from xnatfs.demo.site import Site
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import Refusal, Reply, Request, text


class Sharing:
    """Answers for `…/projects[/P2]` below a subject or an experiment."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self._single = Single(site)

    def subject_projects(self, call: Call) -> Reply:
        """The projects that show a subject."""
        return self._homes(self._single.subject(call)[1], call.request)

    def experiment_projects(self, call: Call) -> Reply:
        """The projects that show an experiment."""
        return self._homes(self._single.experiment(call)[1], call.request)

    def _homes(self, row: Subject | Experiment, request: Request) -> Reply:
        names = [row.project, *(home for home, _label in row.shares)]
        found = [it for name in names if (it := self._rows.projects.get(name)) is not None]
        rows = tuple(
            {
                "ID": it.id, "label": label_in(row, it.id), "Secondary_ID": it.secondary_id,
                "Name": it.name,
            }
            for it in found
        )  # fmt: skip
        columns_ = ("ID", "label", "Secondary_ID", "Name")
        return tables.render(Table(columns_, rows, (("totalRecords", str(len(rows))),)), request)

    def share_subject(self, call: Call) -> Reply:
        """Show a subject in another project."""
        _project, row = self._single.subject(call)
        shares = self._shared(row, call)
        if self._rows.subject(call.variables["TO"], call.request.query.get("label") or row.label):
            raise Refusal(409, "Label is already in use.")
        self._rows.subjects.put(replace(row, shares=shares))
        return text("")

    def share_experiment(self, call: Call) -> Reply:
        """Show an experiment in another project, its subject with it (R§5.3)."""
        _project, row = self._single.experiment(call)
        shares = self._shared(row, call)
        target = call.variables["TO"]
        if self._rows.experiment(target, call.request.query.get("label") or row.label):
            raise Refusal(409, "Label is already in use.")
        subject = self._rows.subjects.get(row.subject)
        homes = (subject.project, *dict(subject.shares)) if subject else ()
        if subject is not None and target not in homes:
            self._rows.subjects.put(
                replace(subject, shares=(*subject.shares, (target, subject.label)))
            )
        self._rows.experiments.put(replace(row, shares=shares))
        return text("")

    def _shared(self, row: Subject | Experiment, call: Call) -> Pairs:
        """The shares with the new one. Raises Refusal 403, 404 or 409."""
        target = self._rows.project(call.variables["TO"])
        if target is None or not self._site.rights.sees(call.request.user, target):
            raise Refusal(404)
        self._single.need(call.request, "edit", target)
        self._single.need(call.request, "edit", self._rows.projects.get(row.project))
        if target.id == row.project or target.id in dict(row.shares):
            raise Refusal(409, f"Already assigned to project:{target.id}")
        return (*row.shares, (target.id, call.request.query.get("label") or row.label))

    def unshare_subject(self, call: Call) -> Reply:
        """Stop showing a subject in another project."""
        _project, row = self._single.subject(call)
        self._rows.subjects.put(replace(row, shares=self._unshared(row, call)))
        return text("")

    def unshare_experiment(self, call: Call) -> Reply:
        """Stop showing an experiment in another project."""
        _project, row = self._single.experiment(call)
        self._rows.experiments.put(replace(row, shares=self._unshared(row, call)))
        return text("")

    def _unshared(self, row: Subject | Experiment, call: Call) -> Pairs:
        target = call.variables["TO"]
        if target not in dict(row.shares):
            raise Refusal(404)
        self._single.need(call.request, "delete", self._rows.projects.get(target))
        return without(row.shares, target)
