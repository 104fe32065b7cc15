"""Subjects and experiments in several projects (R§5.3)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from xnatfs.demo import tables
from xnatfs.demo.objects import Experiment, Pairs, Subject, label_in
from xnatfs.demo.routes import Call
from xnatfs.demo.single import Single, without
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Refusal, Reply, text


class Sharing:
    """Answers for `…/projects[/P2]` below a subject or an experiment."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self._single = Single(site)

    def _row(self, call: Call) -> tuple[Subject | Experiment, Callable[..., object]]:
        """The subject or experiment of a call, and what keeps it."""
        if "E" in call.variables:
            return self._single.experiment(call)[1], self._rows.experiments.put
        return self._single.subject(call)[1], self._rows.subjects.put

    def homes(self, call: Call) -> Reply:
        """The projects that show it."""
        row, _keep = self._row(call)
        names = [row.project, *(home for home, _label in row.shares)]
        found = [it for name in names if (it := self._rows.projects.get(name)) is not None]
        columns = ("ID", "label", "Secondary_ID", "Name")
        cells = ((it.id, label_in(row, it.id), it.secondary_id, it.name) for it in found)
        rows = (dict(zip(columns, them, strict=True)) for them in cells)
        return tables.render(tables.counted(columns, rows), call.request)

    def share(self, call: Call) -> Reply:
        """Show it in another project; the subject of an experiment goes with it (R§5.3)."""
        row, keep = self._row(call)
        shares, target = self._shared(row, call), call.variables["TO"]
        label = call.request.query.get("label") or row.label
        find = self._rows.experiment if isinstance(row, Experiment) else self._rows.subject
        if find(target, label):
            raise Refusal(409, "Label is already in use.")
        subject = self._rows.subjects.get(row.subject) if isinstance(row, Experiment) else None
        if subject is not None and target not in (subject.project, *dict(subject.shares)):
            more = (*subject.shares, (target, subject.label))
            self._rows.subjects.put(replace(subject, shares=more))
        keep(replace(row, shares=shares))
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

    def unshare(self, call: Call) -> Reply:
        """Stop showing it in another project."""
        row, keep = self._row(call)
        target = call.variables["TO"]
        if target not in dict(row.shares):
            raise Refusal(404)
        self._single.need(call.request, "delete", self._rows.projects.get(target))
        keep(replace(row, shares=without(row.shares, target)))
        return text("")
