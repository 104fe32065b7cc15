"""`…/resources` and `…/resources/R`: the list, the catalog, making and removing (R§2.6, R§5.1)."""

from __future__ import annotations

from xnatfs.demo import addresses, catalog, items, tables
from xnatfs.demo.calls import Call
from xnatfs.demo.objects import Holder, Resource
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import Refusal, Reply, document, text

_COLUMNS = (
    "xnat_abstractresource_id", "label", "element_name", "category", "cat_id", "cat_desc",
    "file_count", "file_size", "tags", "content", "format",
)  # fmt: skip


def listing(call: Call) -> Reply:
    """The table of resources; `all=true` adds everything below a session."""
    target = addresses.target(call, strict=call.verb != "GET")
    if not target.holders:
        raise Refusal(404)
    wide = call.query.flag("all")
    pairs = addresses.resources(call, "", target.everything if wide else target.holders)
    if call.query.flag("cache_file_stats"):
        for _holder, resource in pairs:
            if not resource.file_count:
                call.site.archive.measure(resource)
        rows = call.site.tables.resources
        pairs = [(holder, rows.get(it.id) or it) for holder, it in pairs]
    cells = [_row(holder, resource, wide=wide) for holder, resource in pairs]
    properties = (("totalRecords", str(len(cells))), ("title", "Resources"))
    return tables.render(Table(_COLUMNS, cells, properties), call)


def _row(holder: Holder, resource: Resource, *, wide: bool) -> dict[str, str]:
    category = holder.level.category
    unnamed = wide and category == "resources"
    fields = ("label", "file_count", "file_size", "tags", "content", "format")
    return {name: getattr(resource, name) for name in fields} | {
        "xnat_abstractresource_id": resource.id, "element_name": "xnat:resourceCatalog",
        "category": category, "cat_id": "" if unnamed else holder.cat_id,
        "cat_desc": "" if unnamed else holder.cat_desc,
    }  # fmt: skip


def get(call: Call) -> Reply:
    """The catalog XML, or with `format=json` the resource as an item.

    A session's resource is searched on all levels; several matches are 404 (R§1.4).
    """
    tables.accepted(call, ("text/xml",))
    target = addresses.target(call, strict=call.verb != "GET")
    pairs = addresses.resources(call, call.variable("RES"), target.everything)
    if len(pairs) != 1:
        raise Refusal(404, "Unable to find the specified resource.")
    resource = pairs[0][1]
    if call.query.get("format") == "json":
        return items.json_of(items.resource_item(resource))
    entries = call.site.archive.catalog(resource).entries
    return document(catalog.render(resource.label, entries), "text/xml")


def put(call: Call) -> Reply:
    """Make an empty resource: 200, 409 when it exists, 403 without the right."""
    if call.tail.strip("/"):
        raise Refusal(400)
    query, rows, is_named = call.query, call.site.tables, "RES" in call.variables
    holder = addresses.target(call, strict=True).holders[0]
    if not call.may("edit", holder):
        raise Refusal(403, "User account doesn't have permission to modify this session.")
    label = call.variable("RES") or query.get("label")
    with rows.lock:
        own = rows.resources.of(holder.owner)
        if is_named and any(label in (it.label, it.id) for it in own):
            raise Refusal(409, "Specified resource already exists.")
        if label.isdigit():
            addresses.resources(call, label, ())
        details = {name: query.get(name) for name in ("content", "description", "tags", "format")}
        made = call.site.archive.create(holder, label, call.user.name, **details)
    return text("" if is_named else f"{call.base}{holder.uri}/resources/{made.id}")


def delete(call: Call) -> Reply:
    """Remove resources with their files; an unknown label is 200 (R§5.1)."""
    target = addresses.target(call, strict=True)
    pairs = addresses.resources(call, call.variable("RES"), target.holders)
    if not all(call.may("delete", it) for it in (*target.holders, *(it for it, _ in pairs))):
        raise Refusal(403, "User account doesn't have permission to delete this resource.")
    for _holder, resource in pairs:
        call.site.archive.remove(resource)
    return text("")
