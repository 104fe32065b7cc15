"""Single objects: GET, PUT (make, change, rename), DELETE, share (R§5.3)."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import replace

from xnatfs.demo import columns, holders, items, tables
from xnatfs.demo.addresses import variable
from xnatfs.demo.objects import (
    Experiment,
    Pairs,
    Project,
    Reconstruction,
    Scan,
    Subject,
    label_in,
    timestamp,
)
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.tables import Table
from xnatfs.demo.uploads import Uploads
from xnatfs.demo.wire import Query, Refusal, Reply, Request, text

_NOT_FIELDS = {"xsiType", "label", "format", "event_reason", "event_comment", "event_type",
               "event_action", "event_id", "req_format", "activate", "quarantine", "_lock",
               "_unlock", "allowDataDeletion", "removeFiles", "XNAT_CSRF", "inbody"}  # fmt: skip


class Changes:
    """Answers for projects, subjects, experiments, scans, reconstructions, assessors."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self.uploads = Uploads(site)

    # Projects

    def get_project(self, call: Call) -> Reply:
        """A project; a tail behind it is 400 (R§1.1)."""
        project = self._site.addresses.project(call.variables, call.request.user)
        if call.tail.strip("/") or project is None:
            raise Refusal(400)
        return items.reply(items.project_item(project), call.request)

    def put_project(self, call: Call) -> Reply:
        """Make or change a project; its maker becomes owner."""
        request, query = call.request, call.request.query
        if call.tail.strip("/"):
            return self._project_setting(call)
        name = variable(call.variables, "P")
        if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
            raise Refusal(417, "Invalid characters in project id.")
        if request.user.guest:
            raise Refusal(403)
        with self._rows.lock:
            known = self._rows.project(name)
            if known is not None and not self._site.rights.may(request.user, "delete", known):
                raise Refusal(403)
            project = known or Project(
                id=name, name=name, secondary_id=name, insert_user=request.user.name,
                insert_date=timestamp(), roles=((request.user.name, "owner"),),
            )  # fmt: skip
            alias = query.get("alias")
            self._rows.projects.put(
                replace(
                    project,
                    name=query.get("name") or project.name,
                    description=query.get("description") or project.description,
                    access=query.get("accessibility") or project.access,
                    aliases=tuple(dict.fromkeys((*project.aliases, *([alias] if alias else ())))),
                )
            )
        return text("")

    def _project_setting(self, call: Call) -> Reply:
        """`accessibility/LEVEL`, `users/ROLE/NAME` and `prearchive_code/N` below a project."""
        project = self._site.addresses.project(call.variables, call.request.user)
        kind, *rest = call.tail.strip("/").split("/")
        if project is None or not self._site.rights.may(call.request.user, "delete", project):
            raise Refusal(403)
        if kind == "accessibility" and rest:
            self._rows.projects.put(replace(project, access=rest[0]))
        elif kind == "users" and len(rest) == 2:
            role = rest[0].lower().rstrip("s")
            kept = tuple(pair for pair in project.roles if pair[0] != rest[1])
            self._rows.projects.put(replace(project, roles=(*kept, (rest[1], role))))
        elif kind != "prearchive_code":
            raise Refusal(400)
        return text("")

    def delete_project(self, call: Call) -> Reply:
        """Remove a project with everything in it."""
        user = call.request.user
        project = self._rows.project(variable(call.variables, "P"))
        if call.tail.strip("/") or project is None:
            raise Refusal(400)
        if not self._site.rights.may(user, "delete", project):
            raise Refusal(403)
        for subject in self._rows.subjects.of(f"in:{project.id}"):
            if subject.project == project.id:
                self._drop_subject(subject)
        self._site.archive.remove_holders([holders.of_project(project)])
        shutil.rmtree(self._site.archive.root / f"archive/{project.id}", ignore_errors=True)
        self._rows.projects.drop(project.id)
        return text("")

    # Subjects

    def get_subject(self, call: Call) -> Reply:
        """A subject with its experiments."""
        project, subject = self._subject(call)
        item = items.subject_item(self._rows, subject, project.id if project else subject.project)
        return items.reply(item, call.request)

    def _subject(self, call: Call) -> tuple[Project | None, Subject]:
        project = self._site.addresses.project(call.variables, call.request.user)
        subject = self._site.addresses.subject(call.variables, call.request.user, project)
        if subject is None:
            raise Refusal(404, "Unable to identify subject.")
        return project, subject

    def put_subject(self, call: Call) -> Reply:
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
        self._need(request, "edit", home)
        if known is None:
            made = self._make_subject(home, name, request)
            return text(made.id, status=201)
        label = request.query.get("label")
        if label and label != known.label:
            self._rename_subject(known, label)
            return text("")
        self._rows.subjects.put(
            replace(known, fields=_fields(known.fields, request.query), last_modified=timestamp())
        )
        return text(known.id)

    def post_subject(self, call: Call) -> Reply:
        """Make a subject from parameters; the reply says where it is."""
        request = call.request
        project = self._site.addresses.project(call.variables, request.user)
        label = request.query.get("label")
        if project is None or not label:
            raise Refusal(400)
        self._need(request, "edit", project)
        if self._rows.subject(project.id, label) is not None:
            raise Refusal(409, "Subject already exists.")
        made = self._make_subject(project, label, request)
        return _created(request, f"/data/subjects/{made.id}")

    def _make_subject(self, project: Project, label: str, request: Request) -> Subject:
        now = timestamp()
        return self._rows.subjects.put(
            Subject(
                id=self._rows.accession("S"), project=project.id, label=label,
                fields=_fields((), request.query), insert_user=request.user.name,
                insert_date=now, last_modified=now,
            )
        )  # fmt: skip

    def _rename_subject(self, subject: Subject, label: str) -> None:
        with self._rows.lock:
            if self._rows.subject(subject.project, label) is not None:
                raise Refusal(409, "Specified label is already in use.")
            changed = replace(subject, label=label, last_modified=timestamp())
            before, after = holders.subject_folder(subject), holders.subject_folder(changed)
            self._move(before, after, [holders.of_subject(subject)])
            self._rows.subjects.put(changed)

    def _move(self, before: str, after: str, concerned: Iterable[holders.Holder]) -> None:
        try:
            self._site.archive.move(before, after, concerned)
        except FileExistsError as taken:
            raise Refusal(409, f"Target directory exists: {taken}") from taken

    def delete_subject(self, call: Call) -> Reply:
        """Remove a subject; in a project it is only shared into, end the sharing (R§5.3)."""
        request = call.request
        if call.tail.strip("/"):
            raise Refusal(400, "does not start with 'projects/'")
        project, subject = self._subject(call)
        if project is not None and project.id != subject.project:
            self._need(request, "delete", project)
            self._rows.subjects.put(replace(subject, shares=_without(subject.shares, project.id)))
            return text("")
        self._need(request, "delete", self._rows.projects.get(subject.project))
        self._drop_subject(subject)
        return text("")

    def _drop_subject(self, subject: Subject) -> None:
        for session in self._rows.experiments.of(f"subject:{subject.id}"):
            self._drop_experiment(session)
        self._site.archive.remove_holders([holders.of_subject(subject)])
        self._rows.subjects.drop(subject.id)

    # Experiments

    def get_experiment(self, call: Call) -> Reply:
        """A session or an assessor; an unknown sub-path gets it too (R§1.1)."""
        project, row = self._experiment(call)
        item = items.experiment_item(self._rows, row, project.id if project else row.project)
        return items.reply(item, call.request)

    def _experiment(self, call: Call) -> tuple[Project | None, Experiment]:
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

    def put_experiment(self, call: Call) -> Reply:
        """Make (201), change or rename (200) a session; its subject is made if needed."""
        request, query = call.request, call.request.query
        project = self._site.addresses.project(call.variables, request.user)
        found = self._site.addresses.experiments(call.variables, request.user, project)
        if found:
            return self._change_experiment(found[0], request)
        if project is None or "S" not in call.variables:
            raise Refusal(404)
        self._need(request, "edit", project)
        xsi_type = query.get("xsiType")
        if not xsi_type:
            raise Refusal(417, "Need PUT Contents")
        if not columns.is_session_type(xsi_type):
            raise Refusal(400, f"Unknown experiment type {xsi_type}")
        with self._rows.lock:
            name = variable(call.variables, "S")
            subject = self._rows.subject(project.id, name)
            subject = subject or self._make_subject(project, name, replace(request, query=Query()))
            label = variable(call.variables, "E")
            made = self._make_session(project, subject, label, request)
        return text(made.id, status=201)

    def post_experiment(self, call: Call) -> Reply:
        """Make a session from parameters below an existing subject."""
        request = call.request
        project, subject = self._subject(call)
        label = request.query.get("label")
        if project is None or not label:
            raise Refusal(400)
        self._need(request, "edit", project)
        if self._rows.experiment(project.id, label) is not None:
            raise Refusal(409, "Experiment already exists.")
        made = self._make_session(project, subject, label, request)
        return _created(request, f"/data/experiments/{made.id}")

    def _make_session(
        self, project: Project, subject: Subject, label: str, request: Request
    ) -> Experiment:
        now, query = timestamp(), request.query
        return self._rows.experiments.put(
            Experiment(
                id=self._rows.accession("E"), project=project.id, label=label,
                xsi_type=query.get("xsiType"), subject=subject.id,
                date=query.get("date") or _path_value(query, "/date"),
                fields=_fields((), query), insert_user=request.user.name, insert_date=now,
                last_modified=now,
            )
        )  # fmt: skip

    def _change_experiment(self, row: Experiment, request: Request) -> Reply:
        self._need(request, "edit", self._rows.projects.get(row.project))
        label = request.query.get("label")
        if label and label != row.label:
            self._rename_experiment(row, label)
            return text("")
        date = request.query.get("date") or _path_value(request.query, "/date") or row.date
        fields = _fields(row.fields, request.query)
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
            self._move(before, after, concerned)
            self._rows.experiments.put(changed)

    def delete_experiment(self, call: Call) -> Reply:
        """Remove a session; in a project it is only shared into, end the sharing (R§5.3)."""
        request = call.request
        if call.tail.strip("/"):
            raise Refusal(400, "does not start with 'projects/'")
        project, row = self._experiment(call)
        if project is not None and project.id != row.project:
            self._need(request, "delete", project)
            self._rows.experiments.put(replace(row, shares=_without(row.shares, project.id)))
            return text("")
        self._need(request, "delete", self._rows.projects.get(row.project))
        self._drop_experiment(row)
        return text("")

    def _drop_experiment(self, row: Experiment) -> None:
        archive = self._site.archive
        session = self._rows.experiments.get(row.session) if row.session else None
        if session is not None:
            roles = ("in", "out", "")
            archive.remove_holders([holders.of_assessor(session, row, it) for it in roles])
            self._rows.experiments.drop(row.id)
            return
        archive.remove_holders(holders.below_session(self._rows, row))
        for scan in self._rows.scans.of(row.id):
            self._rows.scans.drop(scan.key)
        for recon in self._rows.reconstructions.of(row.id):
            self._rows.reconstructions.drop(recon.key)
        for assessor in self._rows.experiments.of(f"assessors-of:{row.id}"):
            self._rows.experiments.drop(assessor.id)
        self._rows.experiments.drop(row.id)
        shutil.rmtree(archive.root / holders.session_folder(row), ignore_errors=True)

    # Parts of a session

    def get_scan(self, call: Call) -> Reply:
        """A scan, by its plain id (R§12.4)."""
        scan = self._scan(call)
        return items.reply(items.scan_item(self._rows, scan), call.request)

    def _scan(self, call: Call) -> Scan:
        _project, session = self._experiment(call)
        name = variable(call.variables, "SCAN")
        found = [it for it in self._rows.scans.of(session.id) if it.id == name]
        if not found:
            raise Refusal(404, "Unable to find the specified scan.")
        return found[0]

    def put_scan(self, call: Call) -> Reply:
        """Make or change a scan."""
        request, query = call.request, call.request.query
        _project, session = self._experiment(call)
        self._need(request, "edit", self._rows.projects.get(session.project))
        name, xsi_type = variable(call.variables, "SCAN"), query.get("xsiType")
        with self._rows.lock:
            found = [it for it in self._rows.scans.of(session.id) if it.id == name]
            if found and xsi_type and xsi_type != found[0].xsi_type:
                raise Refusal(409, "Scan exists with another type.")
            if not found and not xsi_type:
                raise Refusal(417, "Need PUT Contents")
            if xsi_type == "xnat:imageScanData" or (xsi_type and not xsi_type.endswith("ScanData")):
                raise Refusal(400, f"Unknown scan type {xsi_type}")
            scan = found[0] if found else Scan(
                key=self._rows.number("scan"), session=session.id, id=name, xsi_type=xsi_type,
                quality="", insert_user=request.user.name, insert_date=timestamp(),
            )  # fmt: skip
            self._rows.scans.put(
                replace(
                    scan,
                    type=_path_value(query, "/type") or scan.type,
                    quality=_path_value(query, "/quality") or scan.quality,
                    note=_path_value(query, "/note") or scan.note,
                    series_description=_path_value(query, "/series_description")
                    or scan.series_description,
                )
            )
        return text("")

    def delete_scan(self, call: Call) -> Reply:
        """Remove a scan with its files."""
        if call.tail.strip("/"):
            raise Refusal(400)
        _project, session = self._experiment(call)
        scan = self._scan(call)
        self._need(call.request, "delete", self._rows.projects.get(session.project))
        self._site.archive.remove_holders([holders.of_scan(session, scan)])
        self._rows.scans.drop(scan.key)
        return text("")

    def get_reconstruction(self, call: Call) -> Reply:
        """A reconstruction."""
        _session, recon = self._reconstruction(call)
        return items.reply(items.reconstruction_item(self._rows, recon), call.request)

    def _reconstruction(self, call: Call) -> tuple[Experiment, Reconstruction]:
        _project, session = self._experiment(call)
        name = variable(call.variables, "RECON")
        found = [it for it in self._rows.reconstructions.of(session.id) if it.id == name]
        if not found:
            raise Refusal(404, "Unable to find the specified reconstruction.")
        return session, found[0]

    def put_reconstruction(self, call: Call) -> Reply:
        """Make or change a reconstruction."""
        request, query = call.request, call.request.query
        _project, session = self._experiment(call)
        self._need(request, "edit", self._rows.projects.get(session.project))
        name = variable(call.variables, "RECON")
        with self._rows.lock:
            found = [it for it in self._rows.reconstructions.of(session.id) if it.id == name]
            recon = found[0] if found else Reconstruction(
                key=self._rows.number("recon"), session=session.id, id=name,
                insert_user=request.user.name, insert_date=timestamp(),
            )  # fmt: skip
            self._rows.reconstructions.put(
                replace(
                    recon,
                    type=_path_value(query, "/type") or recon.type,
                    base_scan_type=_path_value(query, "/baseScanType") or recon.base_scan_type,
                )
            )
        return text("")

    def delete_reconstruction(self, call: Call) -> Reply:
        """Remove a reconstruction with its files."""
        session, recon = self._reconstruction(call)
        self._need(call.request, "delete", self._rows.projects.get(session.project))
        self._site.archive.remove_holders(
            [holders.of_reconstruction(session, recon, role) for role in ("in", "out")]
        )
        self._rows.reconstructions.drop(recon.key)
        return text("")

    def get_assessor(self, call: Call) -> Reply:
        """An assessor."""
        return self.get_experiment(call)

    def put_assessor(self, call: Call) -> Reply:
        """Make (201), change or rename (200) an assessor."""
        request = call.request
        session_call = replace(
            call, variables={k: v for k, v in call.variables.items() if k != "A"}
        )
        project, session = self._experiment(session_call)
        label = variable(call.variables, "A")
        home = project.id if project else session.project
        known = self._rows.assessor(session.id, home, label)
        if known is not None:
            return self._change_experiment(known, request)
        owner = project or self._rows.projects.get(session.project)
        self._need(request, "edit", owner)
        xsi_type, now = request.query.get("xsiType"), timestamp()
        if not xsi_type:
            raise Refusal(417, "Need PUT Contents")
        made = self._rows.experiments.put(
            Experiment(
                id=self._rows.accession("E"), project=home, label=label, xsi_type=xsi_type,
                subject=session.subject, session=session.id,
                fields=_fields((), request.query), insert_user=request.user.name,
                insert_date=now, last_modified=now,
            )
        )  # fmt: skip
        return text(made.id, status=201)

    def delete_assessor(self, call: Call) -> Reply:
        """Remove an assessor with its files."""
        return self.delete_experiment(call)

    # Sharing

    def subject_projects(self, call: Call) -> Reply:
        """The projects that show a subject."""
        return self._homes(self._subject(call)[1], call.request)

    def experiment_projects(self, call: Call) -> Reply:
        """The projects that show an experiment."""
        return self._homes(self._experiment(call)[1], call.request)

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
        _project, row = self._subject(call)
        shares = self._shared(row, call)
        if self._rows.subject(call.variables["TO"], call.request.query.get("label") or row.label):
            raise Refusal(409, "Label is already in use.")
        self._rows.subjects.put(replace(row, shares=shares))
        return text("")

    def share_experiment(self, call: Call) -> Reply:
        """Show an experiment in another project, its subject with it (R§5.3)."""
        _project, row = self._experiment(call)
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
        self._need(call.request, "edit", target)
        self._need(call.request, "edit", self._rows.projects.get(row.project))
        if target.id == row.project or target.id in dict(row.shares):
            raise Refusal(409, f"Already assigned to project:{target.id}")
        return (*row.shares, (target.id, call.request.query.get("label") or row.label))

    def unshare_subject(self, call: Call) -> Reply:
        """Stop showing a subject in another project."""
        _project, row = self._subject(call)
        self._rows.subjects.put(replace(row, shares=self._unshared(row, call)))
        return text("")

    def unshare_experiment(self, call: Call) -> Reply:
        """Stop showing an experiment in another project."""
        _project, row = self._experiment(call)
        self._rows.experiments.put(replace(row, shares=self._unshared(row, call)))
        return text("")

    def _unshared(self, row: Subject | Experiment, call: Call) -> Pairs:
        target = call.variables["TO"]
        if target not in dict(row.shares):
            raise Refusal(404)
        self._need(call.request, "delete", self._rows.projects.get(target))
        return _without(row.shares, target)

    def _need(self, request: Request, verb: str, project: Project | None) -> None:
        if not self._site.rights.may(request.user, verb, project):
            raise Refusal(403, f"User account doesn't have permission to {verb} this item.")


def _without(shares: Pairs, project: str) -> Pairs:
    return tuple(pair for pair in shares if pair[0] != project)


def _created(request: Request, path: str) -> Reply:
    where = request.base + path
    return text(where, status=201).adding(("Location", where))


def _path_value(query: Query, ending: str) -> str:
    """The value of a data-model path like `xnat:mrScanData/type`, or of the bare name."""
    name = ending.removeprefix("/")
    return next((value for key, value in query.pairs if key == name or key.endswith(ending)), "")


def _fields(known: Pairs, query: Query) -> Pairs:
    """The object's further fields, with those of the query."""
    merged = dict(known)
    for key, value in query.pairs:
        name = key.partition("/")[2] if "/" in key else key
        if key not in _NOT_FIELDS and name not in ("label", "project", "date", "ID"):
            merged[name] = value
    return tuple(merged.items())
