"""One subject: GET, PUT (make, change, rename), POST, DELETE (R§5.3)."""

from __future__ import annotations

from dataclasses import replace

from xnatfs.demo import holders, items
from xnatfs.demo.addresses import variable
from xnatfs.demo.objects import Subject, timestamp
from xnatfs.demo.removal import Removal
from xnatfs.demo.routes import Call
from xnatfs.demo.single import Single, created, fields_of, without
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Refusal, Reply, text


class Subjects:
    """Answers for `…/subjects/S`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self._single = Single(site)
        self._removal = Removal(site)

    def get(self, call: Call) -> Reply:
        """A subject with its experiments."""
        project, subject = self._single.subject(call)
        item = items.subject_item(self._rows, subject, project.id if project else subject.project)
        return items.reply(item, call.request)

    def put(self, call: Call) -> Reply:
        """Make (201), change or rename (200) a subject."""
        request = call.request
        project = self._site.addresses.project(call.variables, request.user)
        name = variable(call.variables, "S")
        known = self._rows.subject(project.id, name) if project else self._rows.subjects.get(name)
        if known is not None and not self._site.rights.reads(request.user, known):
            known = None
        home = self._rows.projects.get(known.project) if known else project
        if home is None:
            raise Refusal(404)
        self._single.need(request, "edit", home)
        if known is None:
            made = self._single.make_subject(home, name, request)
            return text(made.id, status=201)
        label = request.query.get("label")
        if label and label != known.label:
            self._rename_subject(known, label)
            return text("")
        self._rows.subjects.put(
            replace(known, fields=fields_of(known.fields, request.query), last_modified=timestamp())
        )
        return text(known.id)

    def post(self, call: Call) -> Reply:
        """Make a subject from parameters; the reply says where it is."""
        request = call.request
        project = self._site.addresses.project(call.variables, request.user)
        label = request.query.get("label")
        if project is None or not label:
            raise Refusal(400)
        self._single.need(request, "edit", project)
        if self._rows.subject(project.id, label) is not None:
            raise Refusal(409, "Subject already exists.")
        made = self._single.make_subject(project, label, request)
        return created(request, f"/data/subjects/{made.id}")

    def _rename_subject(self, subject: Subject, label: str) -> None:
        with self._rows.lock:
            if self._rows.subject(subject.project, label) is not None:
                raise Refusal(409, "Specified label is already in use.")
            changed = replace(subject, label=label, last_modified=timestamp())
            before, after = holders.subject_folder(subject), holders.subject_folder(changed)
            self._single.move(before, after, [holders.of_subject(subject)])
            self._rows.subjects.put(changed)

    def delete(self, call: Call) -> Reply:
        """Remove a subject; in a project it is only shared into, end the sharing (R§5.3)."""
        request = call.request
        if call.tail.strip("/"):
            raise Refusal(400, "does not start with 'projects/'")
        project, subject = self._single.subject(call)
        if project is not None and project.id != subject.project:
            self._single.need(request, "delete", project)
            self._rows.subjects.put(replace(subject, shares=without(subject.shares, project.id)))
            return text("")
        self._single.need(request, "delete", self._rows.projects.get(subject.project))
        self._removal.subject(subject)
        return text("")
