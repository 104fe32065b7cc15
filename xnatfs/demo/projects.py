"""One project: GET, PUT, settings, DELETE (R§5.3)."""

from __future__ import annotations

import re
from dataclasses import replace

from xnatfs.demo import addresses, items, single, tables
from xnatfs.demo.calls import Call
from xnatfs.demo.objects import Object, timestamp
from xnatfs.demo.site import ROLES
from xnatfs.demo.wire import Refusal, Reply, text


def get(call: Call) -> Reply:
    """A project, its `accessibility` or its `users`; another tail behind it is 400 (R§1.1)."""
    project = addresses.project(call)
    if project is not None and call.tail.strip("/") == "accessibility":
        return text(project.field("access"))
    if project is not None and call.tail.strip("/") == "users":
        names = ("GROUP_ID", "displayname", "login", "firstname", "lastname", "email")
        cells = (
            (f"{project.id}_{role}", f"{role.capitalize()}s", name, name, name, f"{name}@localhost")
            for name, role in project.roles
        )
        return tables.render(tables.counted(names, cells), call)
    if call.tail.strip("/") or project is None:
        raise Refusal(400)
    return items.reply(project, call)


def put(call: Call) -> Reply:
    """Make or change a project; its maker becomes owner."""
    rows, query, name = call.site.tables, call.query, call.variable("P")
    if call.tail.strip("/"):
        return _set(call)
    if not re.fullmatch(r"[A-Za-z0-9_-]+", name):
        raise Refusal(417, "Invalid characters in project id.")
    if call.user.guest:
        raise Refusal(403)
    with rows.lock:
        known = rows.project(name)
        if known is not None:
            call.need("delete", known.id)
        elif rows.objects.is_dropped(f"project:{name}"):
            raise Refusal(403, "This id belonged to a project that was deleted.")
        about = (("name", name), ("secondary_ID", name), ("access", "private"))
        project = known or Object(
            kind="project", id=name, label=name, project=name, xsi_type="xnat:projectData",
            fields=about, roles=((call.user.name, "owner"),), insert_user=call.user.name,
            insert_date=timestamp(),
        )  # fmt: skip
        unique = {it: query.get(it) for it in ("name", "secondary_ID") if query.get(it)}
        claimed = {it for other in rows.of("project") if other != known for it in _names(other)}
        if claimed & {*unique.values(), query.get("alias")}:
            raise Refusal(409, "Another project has this name, secondary id or alias.")
        given = unique | {
            "description": query.get("description") or project.field("description"),
            "access": query.get("accessibility") or project.field("access"),
        }
        aliases = dict.fromkeys((*project.aliases, *filter(None, [query.get("alias")])))
        fields = tuple((dict(project.fields) | given).items())
        rows.objects.put(replace(project, fields=fields, aliases=tuple(aliases)))
    return text("")


def _names(project: Object) -> tuple[str, ...]:
    """What no other project may be called."""
    return (project.field("name"), project.field("secondary_ID"), *project.aliases)


def _set(call: Call) -> Reply:
    """`accessibility/LEVEL`, `users/GROUP/NAME` and `prearchive_code/N` below a project.

    A group goes by its id (`PROJECT_member`) or its name (`Members`).
    """
    project = addresses.project(call)
    kind, *rest = call.tail.strip("/").split("/")
    if project is None or not call.site.may(call.user, "delete", project.id):
        raise Refusal(403)
    if kind == "accessibility" and rest:
        fields = tuple((dict(project.fields) | {"access": rest[0]}).items())
        project = replace(project, fields=fields)
    elif kind == "users" and len(rest) == 2:
        role = rest[0].removeprefix(f"{project.id}_").lower().rstrip("s")
        if role not in ROLES:
            raise Refusal(404)
        kept = tuple(pair for pair in project.roles if pair[0] != rest[1])
        project = replace(project, roles=(*kept, (rest[1], role)))
    elif kind != "prearchive_code":
        raise Refusal(400)
    call.site.tables.objects.put(project)
    return text("")


def delete(call: Call) -> Reply:
    """Remove a project with everything in it."""
    project = call.site.tables.project(call.variable("P"))
    if call.tail.strip("/") or project is None:
        raise Refusal(400)
    call.need("delete", project.id)
    single.remove(call, project)
    return text("")
