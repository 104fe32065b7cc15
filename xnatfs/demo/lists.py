"""The listings of all kinds of objects (R§2.2-R§2.5)."""

from __future__ import annotations

from collections.abc import Iterable

from xnatfs.demo import addresses, columns, tables
from xnatfs.demo.calls import Call
from xnatfs.demo.columns import COLUMNS
from xnatfs.demo.objects import Object
from xnatfs.demo.site import ROLES
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import Query, Refusal, Reply

_SCAN_PATH = "xnat:imagescandata/"
_RECONSTRUCTION = "xnat:imagesessiondata/reconstructions/reconstructedimage/id"
_RESOURCE = "xnat:subjectdata/resources/resource/xnat_abstractresource_id"
_BY_ROLE = ("accessible", "data", "owner", "member", "collaborator", "recent", "favorite",
            "activeSince", "prearc_code")  # fmt: skip


def projects(call: Call) -> Reply:
    """The projects that the user sees."""
    query, site, user = call.query, call.site, call.user
    seen = [it for it in site.tables.of("project") if site.sees(user, it)]
    if any(query.has(name) for name in _BY_ROLE):
        return _projects_by_role(seen, call)
    wish = query.get("restrict") or query.get("permissions")
    if wish:
        verb = wish if wish in ("edit", "delete", "read") else "edit"
        seen = [it for it in seen if site.may(user, verb, it.id)]
    return _listing(call, [columns.values(site.tables, it) for it in seen], "project")


def _projects_by_role(seen: list[Object], call: Call) -> Reply:
    """Another query with other columns: what the user is in each project (R§2.2)."""
    query, user = call.query, call.user
    wanted = {role for role in ROLES if query.flag(role)}
    verb = {"writable": "edit", "readable": "read"}.get(query.get("data"), "")
    verb = verb or ("read" if query.flag("accessible") else "")
    names = (
        "id", "name", "description", "secondary_id", "pi", "project_invs", "project_access",
        "insert_date", "insert_user", f"role_{user.name}", "URI",
    )  # fmt: skip
    cells = []
    for it in seen:
        role = dict(it.roles).get(user.name, "")
        if (wanted and role not in wanted) or (verb and not call.site.may(user, verb, it.id)):
            continue
        leader = f"{it.field('pi_firstname')} {it.field('pi_lastname')}".strip()
        cells.append((
            it.id, it.field("name"), it.field("description"), it.field("secondary_ID"), leader, "",
            it.field("access"), it.insert_date, it.insert_user,
            f"{role.capitalize()}s" if role else "", f"/data/projects/{it.id}",
        ))  # fmt: skip
    return tables.render(tables.counted(names, cells), call)


def subjects(call: Call) -> Reply:
    """The subjects of a project, or all readable ones."""
    project, site = addresses.project(call), call.site
    if project is not None and not site.may(call.user, "read", project.id):
        raise Refusal(403, "Unable to read subjects")
    home = project.id if project else ""
    found = [it for it in site.tables.of("subject", home) if site.reads(call.user, it)]
    values = []
    for it in found:
        row = columns.values(site.tables, it, home)
        if _RESOURCE in _asked(call):
            held = site.tables.resources_of(site.tables.holders(it))
            values += _times(row, _RESOURCE, [resource.id for _holder, resource in held])
        else:
            values.append(row)
    return _listing(call, values, "subject", paged=True)


def _asked(call: Call) -> set[str]:
    return {name.lower() for name in call.query.words("columns")}


def _times(row: dict[str, str], path: str, found: list[str]) -> list[dict[str, str]]:
    """A row for each value of a path that may have many; one with a blank where it has none."""
    return [row | {path: it} for it in found or [""]]


def experiments(call: Call) -> Reply:
    """The sessions of a project or of a subject in it (never assessors)."""
    project = addresses.project(call)
    subject = addresses.subject(call, project)
    if project is None:
        raise Refusal(404)
    if not call.site.may(call.user, "read", project.id):
        raise Refusal(403, "Unable to read experiments")
    place = subject.key if subject else project.id
    found = [it for it in call.site.tables.of("experiment", place) if project.id in it.homes]
    return _experiments(call, found, project.id, "xnat:subjectAssessorData")


def all_experiments(call: Call) -> Reply:
    """Every readable experiment of the site, assessors included."""
    rows, homes = call.site.tables, call.query.words("project")
    found = rows.of("experiment") + rows.of("assessor")
    if call.query.has("project"):
        found = [it for it in found if it.project in homes]
    return _experiments(call, found, "", "xnat:experimentData")


def _experiments(call: Call, found: Iterable[Object], home: str, root: str) -> Reply:
    query, rows, types = call.query, call.site.tables, call.query.words("xsiType")
    if any(not columns.is_known_type(it) for it in types):
        return Reply(media_type="application/json", streamed=True)  # the query failed (R§2.1)
    asked = _asked(call)
    if home and asked & set(columns.SESSION_ONLY):
        root = "xnat:imageSessionData"
    extra: tuple[str, ...] = ()
    if types and not home:
        is_session = columns.is_session_type(types[0]) or types[0] == "xnat:subjectAssessorData"
        whose = "subject" if is_session else "session"
        extra = (f"{whose}_ID", f"{whose}_label")
    key = f"{query.get('xsiType') or root}/id".lower() if types or home else ""
    is_joined = any(name.startswith(_SCAN_PATH) for name in asked)
    values = []
    for it in found:
        if (
            call.site.reads(call.user, it)
            and columns.is_a(it.xsi_type, root)
            and (not types or any(columns.is_a(it.xsi_type, kind) for kind in types))
        ):
            row = columns.values(rows, it, home) | ({key: it.id} if key else {})
            if is_joined:
                values += _joined(call, it, row)
            elif _RECONSTRUCTION in asked:
                made = [part.label for part in rows.of("reconstruction", it.key)]
                values += _times(row, _RECONSTRUCTION, made)
            else:
                values.append(row)
    return _listing(call, values, "experiment", extra=extra, root_key=key, paged=True,
                    title="Matching experiments")  # fmt: skip


def _joined(call: Call, session: Object, base: dict[str, str]) -> list[dict[str, str]]:
    """One row for each scan and resource of a session; those that have none show blanks (R§1.3)."""
    rows, found = call.site.tables, []
    names = ("id", "type", "quality", "series_description", "note")
    scans: list[Object | None] = list(rows.of("scan", session.key))
    for scan in scans or [None]:
        known = columns.values(rows, scan) if scan else {}
        values = base | {_SCAN_PATH + name: known.get(name, "") for name in names}
        pairs = rows.resources_of(rows.holders(scan)) if scan else []
        for label in [resource.label for _holder, resource in pairs] or [""]:
            found.append(values | {f"{_SCAN_PATH}file/label": label})
    return found


def parts(kind: str, call: Call) -> Reply:
    """The scans, reconstructions or assessors of a session; filters do not touch scans (R§2.5)."""
    project = addresses.project(call)
    addresses.subject(call, project)
    found = addresses.experiments(call, project)
    if not found:
        raise Refusal(404 if project else 500)  # a null pointer (R§1.4)
    key = "xnat:imageassessordata/id" if kind == "assessor" else ""
    rows, home = call.site.tables, project.id if project else ""
    values = [
        columns.values(rows, it, home) | ({key: it.id} if key else {})
        for it in rows.of(kind, found[0].key)
        if not key or call.site.reads(call.user, it)
    ]
    return _listing(call, values, kind, root_key=key, filtered=kind != "scan")


def _listing(
    call: Call,
    values: list[dict[str, str]],
    kind: str,
    *,
    extra: tuple[str, ...] = (),
    root_key: str = "",
    paged: bool = False,
    filtered: bool = True,
    title: str = "",
) -> Reply:
    """The reply for rows of values by lower-case alias."""
    query, known = call.query, set[str]().union(*values)
    if filtered:
        values = [row for row in values if columns.passes(row, query, known)]
    names = columns.chosen(query, (*COLUMNS[kind].default, *extra), known)
    names = [it for it in names if it != "URI"]
    fixed = [root_key, "URI"] if root_key else ["URI"]
    rows = [
        {name: columns.value_of(row, name) or "" for name in names}
        | {name: row[name] for name in fixed}
        for row in values
    ]
    table = tables.ordered(Table([*names, *fixed], rows), query)
    if paged and (query.has("limit") or query.has("offset")):
        return tables.render(Table(table.columns, _page(table.rows, query)), call)
    properties = (("totalRecords", str(len(rows))), *([("title", title)] if title else []))
    return tables.render(Table(table.columns, table.rows, properties), call)


def _page(rows: tables.Rows, query: Query) -> tables.Rows:
    """The rows that `limit` and `offset` ask for (R§2.1)."""
    limit, offset = query.get("limit") or "100", query.get("offset")
    rows = rows[int(offset) if offset.isdigit() else 0 :]
    return rows if limit == "*" else rows[: int(limit) if limit.isdigit() else 100]
