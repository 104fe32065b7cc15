"""One subject, session, or part of a session: made, changed, shared, removed (R§5.3)."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import replace

from xnatfs.demo import addresses, columns, items, tables
from xnatfs.demo.calls import Call
from xnatfs.demo.objects import Object, Pairs, timestamp
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Query, Refusal, Reply, text

# The variable of a URL that names an object of a kind.
_NAMES = {"subject": "S", "experiment": "E", "assessor": "A", "scan": "SCAN",
          "reconstruction": "RECON"}  # fmt: skip
# The data types that a kind may have; the others need no telling.
_TYPES: Mapping[str, Callable[[str], bool]] = {
    "experiment": columns.is_session_type,
    "assessor": bool,
    "scan": lambda it: it.endswith("ScanData") and it != "xnat:imageScanData",
}
_FIXED_TYPES = {"subject": "xnat:subjectData", "reconstruction": "xnat:reconstructedImageData"}
# Kinds that have accession ids, with their letter; the others have a row number.
_LETTERS = {"subject": "S", "experiment": "E", "assessor": "E"}
_NOT_FIELDS = {"xsiType", "label", "format", "event_reason", "event_comment", "event_type",
               "event_action", "event_id", "req_format", "activate", "quarantine", "_lock",
               "_unlock", "allowDataDeletion", "removeFiles", "XNAT_CSRF", "inbody"}  # fmt: skip


def get(call: Call) -> Reply:
    """The object as a document; an unknown sub-path gets it too (R§1.1)."""
    home, row = addresses.one(call)
    return items.reply(row, call, home.id if home else "")


def put(kind: str, call: Call) -> Reply:
    """Make (201), change or rename (200) an object; scans and reconstructions say nothing."""
    rows, query = call.site.tables, call.query
    with rows.lock:
        project, parent, known = _place(kind, call)
        if not project:
            raise Refusal(404)
        call.need("edit", project)
        _check_type(kind, query.get("xsiType"), known)
        if known is None:
            if parent is None:  # a session makes its subject
                parent = _made(call, "subject", project, f"project:{project}", call.variable("S"))
            label = call.variable(_NAMES[kind])
            row = _made(call, kind, project, parent.key, label, fields_of((), query))
        elif kind in _LETTERS and query.get("label") not in ("", known.label):
            _rename(call.site, known, query.get("label"))
            return text("")
        else:
            row = rows.objects.put(
                replace(
                    known, fields=fields_of(known.fields, query), last_modified=timestamp(),
                    quarantined=_in_quarantine(call, known),
                )
            )  # fmt: skip
    if kind not in _LETTERS:
        return text("")
    return text(row.id, status=200 if known else 201)


def _place(kind: str, call: Call) -> tuple[str, Object | None, Object | None]:
    """The project whose rights count ("" if the URL leads nowhere), the parent, the object."""
    rows, name = call.site.tables, call.variable(_NAMES[kind])
    if kind == "subject":
        home = addresses.project(call)
        found = rows.find(kind, home.id, name) if home else rows.objects.get(f"subject:{name}")
        known = found if found and call.site.reads(call.user, found) else None
        owner = known or home
        return owner.project if owner else "", home, known
    if kind == "experiment":
        home = addresses.project(call)
        known = next(iter(addresses.experiments(call, home)), None)
        if known or not home or "S" not in call.variables:
            return known.project if known else "", None, known
        return home.id, rows.find("subject", home.id, call.variable("S")), None
    outer = {key: it for key, it in call.variables.items() if key != _NAMES[kind]}
    home, session = addresses.one(replace(call, variables=outer))
    project = home.id if home and kind == "assessor" else session.project
    for it in rows.of(kind, session.key):
        if name in (it.label_in(project), it.id if kind == "assessor" else it.label):
            return it.project, session, it
    return project, session, None


def _in_quarantine(call: Call, row: Object) -> bool:
    """What `quarantine=true` and `activate=true` make of an object. Raises Refusal 403."""
    asked = [it for it in ("activate", "quarantine") if call.query.flag(it)]
    if asked:
        call.need("activate", row.project)
    return "quarantine" in asked if asked else row.quarantined


def _check_type(kind: str, xsi_type: str, known: Object | None) -> None:
    if kind not in _TYPES:
        return
    if known and kind == "scan" and xsi_type not in ("", known.xsi_type):
        raise Refusal(409, "Scan exists with another type.")
    if not known and not xsi_type:
        raise Refusal(417, "Need PUT Contents")
    if not known and not _TYPES[kind](xsi_type):
        raise Refusal(400, f"Unknown type {xsi_type}")


def _made(
    call: Call, kind: str, project: str, parent: str, label: str, fields: Pairs = ()
) -> Object:
    rows, now = call.site.tables, timestamp()
    if kind in ("subject", "experiment") and rows.find(kind, project, label) is not None:
        raise Refusal(409, f"{kind.capitalize()} {label} already exists.")
    return rows.objects.put(
        Object(
            kind=kind, label=label, project=project, parent=parent, fields=fields,
            id=rows.accession(_LETTERS[kind]) if kind in _LETTERS else rows.number(kind),
            xsi_type=_FIXED_TYPES.get(kind) or call.query.get("xsiType"),
            insert_user=call.user.name, insert_date=now, last_modified=now,
        )
    )  # fmt: skip


def fields_of(known: Pairs, query: Query) -> Pairs:
    """An object's fields with those of the query: `type`, or a path like `xnat:mrScanData/type`."""
    given = {key.partition("/")[2] or key: it for key, it in query.pairs if key not in _NOT_FIELDS}
    fixed = ("label", "project", "ID")
    return tuple((dict(known) | {key: it for key, it in given.items() if key not in fixed}).items())


def _rename(site: Site, row: Object, label: str) -> None:
    """Give another label, and move what lies on disk. Raises Refusal 409."""
    rows = site.tables
    if rows.find(row.kind, row.project, label) is not None:
        raise Refusal(409, "Specified label is already in use.")
    changed = replace(row, label=label, last_modified=timestamp())
    try:
        site.archive.move(rows.holder(row).folder, rows.holder(changed).folder, rows.below(row))
    except FileExistsError as taken:
        raise Refusal(409, str(taken)) from taken
    rows.objects.put(changed)


def post(kind: str, call: Call) -> Reply:
    """Make a subject or session from parameters; the reply says where it is."""
    home = addresses.project(call)
    parent = home if kind == "subject" else addresses.subject(call, home)
    label = call.query.get("label")
    if home is None or parent is None or not label:
        raise Refusal(400)
    call.need("edit", home.id)
    _check_type(kind, call.query.get("xsiType"), None)
    made = _made(call, kind, home.id, parent.key, label, fields_of((), call.query))
    where = f"{call.base}/data/{kind}s/{made.id}"
    return text(where, status=201).adding(("Location", where))


def delete(call: Call) -> Reply:
    """Remove an object; in a project that it is only shared into, end the sharing."""
    if call.tail.strip("/"):
        raise Refusal(400, "does not start with 'projects/'")
    home, row = addresses.one(call)
    if home is not None and home.id != row.project and row.kind in _LETTERS:
        call.need("delete", home.id)
        call.site.tables.objects.put(_without(row, home.id))
    else:
        call.need("delete", row.project)
        remove(call, row)
    return text("")


def remove(call: Call, row: Object) -> None:
    """Take an object out with everything below it; rights were asked before.

    What it has on disk stays there unless the query says `removeFiles=true` (R§5.3).
    """
    rows, doomed = call.site.tables, call.site.tables.below(row)
    lost = [resource for _holder, resource in rows.resources_of(doomed)]
    folders = [it.directory for it in lost]
    if row.kind in ("project", "experiment"):  # folders of their own, catalogs' stumps included
        folders.append(rows.holder(row).folder)
    for resource in lost:
        rows.resources.drop(resource.id)
    for it in doomed:
        rows.objects.drop(it.object.key)
    for folder in folders if call.query.flag("removeFiles") else ():
        shutil.rmtree(call.site.archive.root / folder, ignore_errors=True)


def homes(call: Call) -> Reply:
    """The projects that show it."""
    _home, row = addresses.one(call)
    found = (call.site.tables.project(name) for name in row.homes)
    cells = [
        (it.id, row.label_in(it.id), it.field("secondary_ID"), it.field("name"))
        for it in found
        if it is not None
    ]
    return tables.render(tables.counted(("ID", "label", "Secondary_ID", "Name"), cells), call)


def share(call: Call) -> Reply:
    """Show it in another project; the subject of an experiment goes with it."""
    rows, (_home, row) = call.site.tables, addresses.one(call)
    target = rows.project(call.variables["TO"])
    if target is None or not call.site.sees(call.user, target):
        raise Refusal(404)
    call.need("edit", target.id)
    call.need("edit", row.project)
    if target.id in row.homes:
        raise Refusal(409, f"Already assigned to project:{target.id}")
    label = call.query.get("label") or row.label
    if rows.find(row.kind, target.id, label):
        raise Refusal(409, "Label is already in use.")
    person = rows.parent(row) if row.kind == "experiment" else None
    if person is not None and target.id not in person.homes:
        rows.objects.put(replace(person, shares=(*person.shares, (target.id, person.label))))
    rows.objects.put(replace(row, shares=(*row.shares, (target.id, label))))
    return text("")


def unshare(call: Call) -> Reply:
    """Stop showing it in another project."""
    _home, row = addresses.one(call)
    target = call.variables["TO"]
    if target not in dict(row.shares):
        raise Refusal(404)
    call.need("delete", target)
    call.site.tables.objects.put(_without(row, target))
    return text("")


def _without(row: Object, project: str) -> Object:
    return replace(row, shares=tuple(pair for pair in row.shares if pair[0] != project))
