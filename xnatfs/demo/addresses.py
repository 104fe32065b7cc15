"""From the variables of a URL to what it means, with XNAT's fall-through (R§1.4).

On GET an unknown session, scan, assessor or reconstruction is not an error: the next parent in
the URL answers. Every other verb wants exactly one match, else 404.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

from xnatfs.demo.calls import Call
from xnatfs.demo.objects import Holder, Object, Resource
from xnatfs.demo.wire import Refusal

PARTS = {"SCAN": "scan", "RECON": "reconstruction", "A": "assessor"}  # variable → kind
Pair = tuple[Holder, Resource]


def project(call: Call) -> Object | None:
    """The project of a URL, None if the URL has none. Raises Refusal 404."""
    if "P" not in call.variables:
        return None
    found = call.site.tables.project(call.variable("P"))
    if found is None or not call.site.sees(call.user, found):
        raise Refusal(404, "Unable to identify project.")
    return found


def subject(call: Call, home: Object | None) -> Object | None:
    """The subject of a URL, None if the URL has none. Raises Refusal 404."""
    if "S" not in call.variables:
        return None
    name, rows = call.variable("S"), call.site.tables
    found = rows.find("subject", home.id, name) if home else rows.objects.get(f"subject:{name}")
    if found is None or not call.site.reads(call.user, found):
        raise Refusal(404, "Unable to identify subject.")
    return found


def experiments(call: Call, home: Object | None) -> list[Object]:
    """The sessions (or assessors, by accession) of a comma list; unknown ones are dropped."""
    found: dict[str, Object] = {}
    for name in call.variable("E").split(","):
        row = call.site.tables.find("experiment", home.id, name) if home else None
        by_id = call.site.tables.experiment(name)
        if row is None and by_id and (home is None or by_id.kind == "assessor"):
            row = by_id
        if row is not None and call.site.reads(call.user, row):
            found[row.key] = row
    return list(found.values())


def _parts(call: Call, name: str, sessions: Iterable[Object], home: Object | None) -> list[Object]:
    """The scans, reconstructions or assessors of a comma list of ids, labels or scan types.

    `ALL` and `*` are all, `NULL` is no type, `[COMMA]` a comma in one.
    """
    text = call.variable(name) if name == "A" else call.decoded(name)
    tokens = {
        {"*": "ALL", "NULL": ""}.get(it, it.replace("[COMMA]", ",")) for it in text.split(",")
    }
    found = []
    for session in sessions:
        for it in call.site.tables.of(PARTS[name], session.key):
            names = {"ALL", it.label_in(home.id if home else session.project)}
            names |= {it.id} if name == "A" else {it.field("type")} if name == "SCAN" else set()
            if names & tokens and (name != "A" or call.site.reads(call.user, it)):
                found.append(it)
    return found


def one(call: Call) -> tuple[Object | None, Object]:
    """The project of a URL, and the one object that its last variable means. Raises Refusal 404."""
    home = project(call)
    person = subject(call, home)
    if "E" not in call.variables:
        found = [it for it in (person or home,) if it is not None]
    else:
        found = experiments(call, home)
        name = next((it for it in PARTS if it in call.variables), "")
        if len(found) == 1 and name == "A":
            found = _parts(call, name, found, home)
        elif len(found) == 1 and name:  # by the plain id (R§12.4)
            parts = call.site.tables.of(PARTS[name], found[0].key)
            found = [it for it in parts if it.label == call.variable(name)]
    if len(found) != 1:
        raise Refusal(404, "Unable to find the specified object.")
    return home, found[0]


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL means: the holders on its own level, and what `all=true` would make of them.

    `base` is the address of that level with ids instead of labels (R§2.6); "" when several
    holders are meant, which then show their canonical addresses.
    """

    holders: list[Holder]
    everything: list[Holder]
    base: str


def target(call: Call, *, strict: bool) -> Target:
    """The holders that a URL means; `strict` wants exactly one. Raises Refusal 404."""
    rows, base, level = call.site.tables, "/data", list[Holder]()
    home = project(call)
    for it in (home, subject(call, home)):
        if it is not None:
            base, level = f"{base}/{it.kind}s/{it.id}", [rows.holder(it)]
    if "E" in call.variables:
        sessions = experiments(call, home)
        name = next((it for it in PARTS if it in call.variables), "")
        found = _parts(call, name, sessions, home) if name else sessions
        if strict and (len(sessions) != 1 or len(found) != 1):
            raise Refusal(404, "Unable to identify experiment.")
        shown = f"/{call.variables['TYPE']}" if "TYPE" in call.variables else ""
        if found:
            level = [_in_role(call, it) for it in found]
            address = level[0].uri.removesuffix(f"/{level[0].role}").removeprefix("/data") + shown
            if not name:
                address = f"/experiments/{found[0].id}"
            base = base + address if len(found) == 1 else ""
        if found and not name:
            wide = [it for row in sessions for it in _whole(call, row)]
            return Target(level, sorted(wide, key=_anyhow), base)
    if strict and len(level) != 1:
        raise Refusal(404)
    return Target(level, level, base)


def _in_role(call: Call, row: Object) -> Holder:
    """An object in the role that the URL names; parts that have `out` mean that (R§1.2)."""
    has_roles = row.kind in ("assessor", "reconstruction")
    return call.site.tables.holder(row, call.variables.get("TYPE", "out") if has_roles else "")


def _whole(call: Call, row: Object) -> list[Holder]:
    """All that `all=true` unites: the session, scans, what came out of parts, plain resources."""
    if row.kind == "assessor":
        return [_in_role(call, row)]
    return [it for it in call.site.tables.below(row) if it.role != "in"]


def _anyhow(holder: Holder) -> int:
    """The order of `all=true` listings, which is not defined: on no account a sensible one."""
    return zlib.crc32(holder.owner.encode())


def resources(call: Call, named: str, level: Iterable[Holder]) -> list[Pair]:
    """The resources of a level; `named` is "" for all, else a comma list of labels and ids.

    A number is a database id wherever the resource hangs; one that does not exist, or is not
    readable, is a 404 (R§4.4). `NULL` is the unlabelled one.
    """
    rows = call.site.tables
    own = rows.resources_of(it for it in level if call.site.reads(call.user, it.guard))
    if not named:
        return own
    found: dict[str, Pair] = {}
    tokens = named.split(",")
    for token in filter(str.isdigit, tokens):
        resource = rows.resources.get(token)
        holder = rows.holder_of(resource) if resource else None
        if resource is None or holder is None or not call.site.reads(call.user, holder.guard):
            raise Refusal(404, "Unable to find specified resource.")
        found[resource.id] = (holder, resource)
    for holder, resource in own:
        if (resource.label or "NULL") in tokens:
            found.setdefault(resource.id, (holder, resource))
    return list(found.values())
