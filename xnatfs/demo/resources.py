"""`…/resources` and `…/resources/R`: the list, the catalog, making and removing (R§2.6, R§5.1)."""

from __future__ import annotations

from dataclasses import replace

from xnatfs.demo import catalog, items, tables
from xnatfs.demo.addresses import Target, variable
from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Resource
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import Refusal, Reply, document, text

COLUMNS = (
    "xnat_abstractresource_id", "label", "element_name", "category", "cat_id", "cat_desc",
    "file_count", "file_size", "tags", "content", "format",
)  # fmt: skip


class Resources:
    """Answers for the list of resources and for one resource."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def _target(self, call: Call, *, strict: bool | None = None) -> Target:
        reading = call.request.verb == "GET"
        return self._site.addresses.target(
            call.variables, call.request.user, strict=not reading if strict is None else strict
        )

    def list(self, call: Call) -> Reply:
        """The table of resources; `all=true` adds everything below a session."""
        request = call.request
        target = self._target(call)
        if not target.holders:
            raise Refusal(404)
        wide = request.query.flag("all") and target.whole_session
        level = target.everything if wide else target.holders
        pairs = self._site.addresses.resources("", level, request.user)
        if request.query.flag("cache_file_stats"):
            pairs = [(holder, self._counted(resource)) for holder, resource in pairs]
        rows = tuple(_row(holder, resource, wide=wide) for holder, resource in pairs)
        properties = (("totalRecords", str(len(rows))), ("title", "Resources"))
        return tables.render(Table(COLUMNS, rows, properties), request)

    def _counted(self, resource: Resource) -> Resource:
        if not resource.file_count:
            self._site.archive.measure(resource)
        return self._site.tables.resources.get(resource.id) or resource

    def get(self, call: Call) -> Reply:
        """The catalog XML, or with `format=json` the resource as an item.

        A session's resource is searched on all levels; several matches are 404 (R§1.4).
        """
        request = call.request
        tables.accepted(request, ("text/xml",))
        target = self._target(call)
        level = target.everything if target.whole_session else target.holders
        named = variable(call.variables, "RES")
        pairs = self._site.addresses.resources(named, level, request.user)
        if len(pairs) != 1:
            raise Refusal(404, "Unable to find the specified resource.")
        resource = pairs[0][1]
        if request.query.get("format") == "json":
            return document(items.json_of(items.resource_item(resource)), "application/json")
        entries = self._site.archive.catalog(resource).entries
        return document(catalog.render(resource.label, entries).decode(), "text/xml")

    def put(self, call: Call) -> Reply:
        """Make an empty resource: 200, 409 when it exists, 403 without the right."""
        request = call.request
        if call.tail.strip("/"):
            raise Refusal(400)
        target = self._target(call, strict=True)
        if len(target.holders) != 1:
            raise Refusal(404)
        holder = target.holders[0]
        if not self._site.addresses.may(request.user, "edit", holder):
            raise Refusal(403, "User account doesn't have permission to modify this session.")
        named = variable(call.variables, "RES") or request.query.get("label")
        with self._site.tables.lock:
            own = self._site.tables.resources.of(holder.owner)
            if "RES" in call.variables and any(named in (it.label, it.id) for it in own):
                raise Refusal(409, "Specified resource already exists.")
            if named.isdigit():
                self._site.addresses.resources(named, (), request.user)
            made = self._make(holder, named, call)
        if "RES" in call.variables:
            return text("")
        return text(f"{request.base}{holder.uri}/resources/{made.id}")

    def _make(self, holder: Holder, label: str, call: Call) -> Resource:
        query = call.request.query
        made = self._site.archive.create(
            holder,
            label,
            call.request.user.name,
            content=query.get("content"),
            description=query.get("description"),
            tags=query.get("tags"),
        )
        wanted = query.get("format")
        # `format` of a folder PUT is also the reply's format; the list's verbs are not a format.
        return self._site.tables.resources.put(replace(made, format=wanted)) if wanted else made

    def delete(self, call: Call) -> Reply:
        """Remove resources with their files; an unknown label is 200 (R§5.1)."""
        request = call.request
        target = self._target(call, strict=True)
        named = variable(call.variables, "RES")
        pairs = self._site.addresses.resources(named, target.holders, request.user)
        for holder in {id(it): it for it in (*target.holders, *(h for h, _ in pairs))}.values():
            if not self._site.addresses.may(request.user, "delete", holder):
                raise Refusal(403, "User account doesn't have permission to delete this resource.")
        for _holder, resource in pairs:
            self._site.archive.remove(resource)
        return text("")


def _row(holder: Holder, resource: Resource, *, wide: bool) -> dict[str, str]:
    unnamed = wide and holder.category == "resources"
    fields = ("label", "file_count", "file_size", "tags", "content", "format")
    return {name: getattr(resource, name) for name in fields} | {
        "xnat_abstractresource_id": resource.id, "element_name": "xnat:resourceCatalog",
        "category": holder.category, "cat_id": "" if unnamed else holder.cat_id,
        "cat_desc": "" if unnamed else holder.cat_desc,
    }  # fmt: skip
