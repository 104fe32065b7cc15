"""One object as a document: item JSON, XML or HTML (R§2.7, recorded bodies).

Values keep their JSON types here; lists do not (`tables.py`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from html import escape as html_escape
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from xnatfs.demo.calls import Call
from xnatfs.demo.objects import Object, Pairs, Resource, Tables
from xnatfs.demo.tables import accepted, java_order, json_text
from xnatfs.demo.wire import Reply, document

Item = dict[str, Any]

_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'
_NAMESPACES = (
    ' xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
_ATTRIBUTES = {"ID", "project", "label", "type", "UID", "format", "content", "file_count",
               "file_size", "URI", "secondary_ID"}  # fmt: skip
# Where the children of a kind stand in their parent, and the resources of a kind and role.
_CHILDREN = {
    "experiment": "experiments/experiment", "scan": "scans/scan",
    "reconstruction": "reconstructions/reconstructedImage", "assessor": "assessors/assessor",
}  # fmt: skip
_FILES: Mapping[str, Mapping[str, str]] = {
    "experiment": {"": "resources/resource"}, "scan": {"": "file"},
    "reconstruction": {"in": "in/file", "out": "out/file"},
    "assessor": {"in": "in/file", "out": "out/file"},
}  # fmt: skip
_PARENT = {"experiment": "subject_ID", "assessor": "imageSession_ID", "scan": "image_session_ID",
           "reconstruction": "image_session_ID"}  # fmt: skip
_NUMBER = {"scan": "xnat_imagescandata_id", "reconstruction": "xnat_reconstructedimagedata_id"}
_SHARE = {"subject": "xnat:projectParticipant", "experiment": "xnat:experimentData_share"}


def _item(
    xsi_type: str,
    fields: Mapping[str, Any],
    inserted: str = "",
    children: Iterable[tuple[str, list[Item]]] = (),
) -> Item:
    """A node of a document; `children` by the field that they stand in."""
    try:
        moment = datetime.strptime(inserted[:19], "%Y-%m-%d %H:%M:%S")
    except ValueError:
        moment = datetime(2021, 4, 8, 19, 28, 45)
    known = {key: value for key, value in fields.items() if value != ""}
    return {
        "children": [{"field": name, "items": items} for name, items in children if items],
        "meta": {
            "create_event_id": 1, "xsi:type": xsi_type, "isHistory": False,
            # as `java.util.Date` prints it
            "start_date": f"{moment:%a %b %d %H:%M:%S} UTC {moment:%Y}",
        },
        "data_fields": {it: known[it] for it in java_order(known)},
    }  # fmt: skip


def _of(rows: Tables, row: Object, home: str) -> Item:
    """An object with all that is in it."""
    fields: dict[str, Any] = {"ID": row.label if row.kind in _NUMBER else row.id}
    if row.kind in _NUMBER:
        fields[_NUMBER[row.kind]] = int(row.id)
    elif row.kind != "project":
        fields |= {"project": row.project, "label": row.label_in(home)}
    if row.kind in ("experiment", "assessor"):
        fields["id"] = row.id
    if row.kind in _PARENT:
        fields[_PARENT[row.kind]] = row.parent.partition(":")[2]
    fields |= dict(row.fields)
    if row.kind == "project":
        return _project(row, fields)
    children = [
        (path, [resource_item(it) for _holder, it in rows.resources_of([rows.holder(row, role)])])
        for role, path in _FILES.get(row.kind, {}).items()
    ]
    share = _SHARE.get(row.kind, "")
    shares = [_item(share, {"project": to, "label": label}) for to, label in row.shares]
    below: dict[str, list[Item]] = {}
    for child in rows.children(row):
        below.setdefault(_CHILDREN[child.kind], []).append(_of(rows, child, home))
    parts = [("sharing/share", shares), *children, *below.items()]
    return _item(row.xsi_type, fields, row.insert_date, parts)


def _project(row: Object, fields: Mapping[str, Any]) -> Item:
    own = {key: it for key, it in fields.items() if key != "access" and not key.startswith("pi_")}
    leader = {key[3:]: it for key, it in fields.items() if key.startswith("pi_") and it}
    children = [
        ("PI", [_item("xnat:investigatorData", leader)] if leader else []),
        ("aliases/alias", [_item("xnat:projectData_alias", {"alias": it}) for it in row.aliases]),
    ]
    return _item("xnat:projectData", own | {"active": 1}, row.insert_date, children)


def resource_item(resource: Resource) -> Item:
    """A resource: its catalog's place on the server, count and size."""
    name = f"{resource.label or resource.id}_catalog.xml"
    numbers = ("file_count", "file_size")
    fields: dict[str, Any] = {
        "label": resource.label, "URI": f"/{resource.directory}/{name}",
        "format": resource.format, "content": resource.content,
        "description": resource.description, "xnat_abstractresource_id": int(resource.id),
    } | {it: int(text) if (text := getattr(resource, it)) else "" for it in numbers}  # fmt: skip
    return _item("xnat:resourceCatalog", fields, resource.insert_date)


def json_of(item: Item) -> Reply:
    """The item as JSON."""
    return document(json_text({"items": [item]}), "application/json")


def reply(row: Object, call: Call, home: str = "") -> Reply:
    """The reply for one object, as seen in a project. Raises Refusal 406."""
    variant = accepted(call, ("text/html", "text/xml"))
    wish = call.query.get("format").lower()
    item = _of(call.site.tables, row, home or row.project)
    if wish == "json":
        return json_of(item)
    if wish == "xml" or (not wish and variant == "text/xml"):
        return document(_HEAD + _xml(item, _element(row.xsi_type), _NAMESPACES), "text/xml")
    return document(_html(item), "text/html")


def _element(xsi_type: str) -> str:
    """The name of an element of a type: `xnat:mrSessionData` is an `xnat:MRSession`."""
    prefix, _, name = xsi_type.removesuffix("Data").partition(":")
    for start in ("mr", "pet", "ct", "qc"):
        if name.startswith(start) and name[len(start) :][:1].isupper():
            return f"{prefix}:{start.upper()}{name[len(start) :]}"
    return f"{prefix}:{name[:1].upper()}{name[1:]}"


def _xml(item: Item, name: str, extra: str) -> str:
    shown: Pairs = tuple((key, str(value)) for key, value in item["data_fields"].items())
    attributes = "".join(f" {key}={quoteattr(value)}" for key, value in shown if key in _ATTRIBUTES)
    inner = "".join(
        f"<xnat:{key}>{escape(value)}</xnat:{key}>"
        for key, value in shown
        if key not in _ATTRIBUTES and key != "id" and "/" not in key
    )
    for child in item["children"]:
        outer, _, last = child["field"].rpartition("/")
        body = "".join(
            _xml(it, f"xnat:{last}", f' xsi:type="{it["meta"]["xsi:type"]}"')
            for it in child["items"]
        )
        inner += f"<xnat:{outer}>{body}</xnat:{outer}>" if outer else body
    return f"<{name}{extra}{attributes}>{inner}</{name}>"


def _html(item: Item) -> str:
    """A page about the item: what a request without `format` gets."""
    rows = "".join(
        f"<tr><td>{html_escape(key)}</td><td>{html_escape(str(value))}</td></tr>"
        for key, value in item["data_fields"].items()
    )
    kind = html_escape(item["meta"]["xsi:type"])
    return f"<html><body><h1>{kind}</h1><table>{rows}</table></body></html>"
