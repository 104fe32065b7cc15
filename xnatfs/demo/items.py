"""One object as a document: item JSON, XML or HTML (R§2.7, recorded bodies).

Values keep their JSON types here; lists do not (`tables.py`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from html import escape as html_escape
from xml.sax.saxutils import escape, quoteattr

from xnatfs.demo import holders, tables
from xnatfs.demo.objects import (
    Experiment,
    Pairs,
    Project,
    Reconstruction,
    Resource,
    Scan,
    Subject,
    Tables,
    label_in,
)
from xnatfs.demo.wire import Reply, Request, document

Value = str | int | float
VARIANTS = ("text/html", "text/xml")
_NAMESPACES = (
    ' xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"'
)
_ATTRIBUTES = {"ID", "project", "label", "type", "UID", "format", "content", "file_count",
               "file_size", "URI", "secondary_ID"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Item:
    """A node of the document: fields, and children by the field that they stand in."""

    xsi_type: str
    fields: dict[str, Value]
    inserted: str = ""
    children: dict[str, list[Item]] = field(default_factory=dict)


def _spoken_date(stamp: str) -> str:
    """A timestamp as `java.util.Date` prints it: `Thu Apr 08 19:28:45 UTC 2021`."""
    try:
        moment = datetime.strptime(stamp[:19], "%Y-%m-%d %H:%M:%S")
    except ValueError:
        moment = datetime(2021, 4, 8, 19, 28, 45)
    return f"{moment:%a %b %d %H:%M:%S} UTC {moment:%Y}"


def _plain(item: Item) -> dict[str, object]:
    node: dict[str, object] = {
        "children": [
            {"field": name, "items": [_plain(child) for child in found]}
            for name, found in item.children.items()
            if found
        ],
        "meta": {
            "create_event_id": 1,
            "xsi:type": item.xsi_type,
            "isHistory": False,
            "start_date": _spoken_date(item.inserted),
        },
        "data_fields": {key: item.fields[key] for key in tables.java_order(item.fields)},
    }
    return node


def json_of(item: Item) -> str:
    """The item's JSON."""
    return tables.json_text({"items": [_plain(item)]})


def _element(xsi_type: str) -> str:
    prefix, _, name = xsi_type.partition(":")
    name = name.removesuffix("Data")
    short = {"mr": "MR", "pet": "PET", "ct": "CT", "qc": "QC"}
    start = next(
        (key for key in short if name.startswith(key) and name[len(key) :][:1].isupper()), ""
    )
    spelled = short[start] + name[len(start) :] if start else name[:1].upper() + name[1:]
    return f"{prefix}:{spelled}"


def xml_of(item: Item) -> str:
    """The item's XML."""
    name = _element(item.xsi_type)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + _xml(item, name, _NAMESPACES)


def _xml(item: Item, name: str, extra: str) -> str:
    shown = {key: str(value) for key, value in item.fields.items() if str(value)}
    attributes = "".join(
        f" {key}={quoteattr(value)}" for key, value in shown.items() if key in _ATTRIBUTES
    )
    inner = "".join(
        f"<xnat:{key}>{escape(value)}</xnat:{key}>"
        for key, value in shown.items()
        if key not in _ATTRIBUTES and key != "id" and "/" not in key
    )
    for path, found in item.children.items():
        if not found:
            continue
        outer, _, last = path.rpartition("/")
        body = "".join(
            _xml(child, f"xnat:{last}", f' xsi:type="{child.xsi_type}"') for child in found
        )
        inner += f"<xnat:{outer}>{body}</xnat:{outer}>" if outer else body
    return f"<{name}{extra}{attributes}>{inner}</{name}>"


def html_of(item: Item) -> str:
    """A page about the item: what a request without `format` gets."""
    rows = "".join(
        f"<tr><td>{html_escape(key)}</td><td>{html_escape(str(value))}</td></tr>"
        for key, value in item.fields.items()
    )
    return f"<html><body><h1>{html_escape(item.xsi_type)}</h1><table>{rows}</table></body></html>"


def reply(item: Item, request: Request) -> Reply:
    """The reply for one object. Raises Refusal 406."""
    variant = tables.accepted(request, VARIANTS)
    wish = request.query.get("format").lower()
    if wish == "json":
        return document(json_of(item), "application/json")
    if wish == "xml" or (not wish and variant == "text/xml"):
        return document(xml_of(item), "text/xml")
    return document(html_of(item), "text/html")


def _with(fields: dict[str, Value], more: Pairs) -> dict[str, Value]:
    return {key: value for key, value in (*fields.items(), *more) if value != ""}


def _number(text: str) -> Value:
    return int(text) if text.isdigit() else text


def project_item(project: Project) -> Item:
    """A project."""
    fields: dict[str, Value] = {
        "ID": project.id, "secondary_ID": project.secondary_id, "name": project.name,
        "description": project.description, "keywords": project.keywords, "active": 1,
    }  # fmt: skip
    children = {}
    if project.pi_lastname:
        names: dict[str, Value] = {
            "firstname": project.pi_firstname,
            "lastname": project.pi_lastname,
        }
        children["PI"] = [Item("xnat:investigatorData", names)]
    aliases = [Item("xnat:projectData_alias", {"alias": it}) for it in project.aliases]
    children["aliases/alias"] = aliases
    return Item("xnat:projectData", _with(fields, ()), project.insert_date, children)


def subject_item(rows: Tables, subject: Subject, project: str) -> Item:
    """A subject with its experiments."""
    fields: dict[str, Value] = {
        "ID": subject.id, "project": subject.project, "label": label_in(subject, project),
    }  # fmt: skip
    children = {
        "sharing/share": _shares("xnat:projectParticipant", subject.shares),
        "experiments/experiment": [
            experiment_item(rows, it, project)
            for it in rows.experiments.of(f"subject:{subject.id}")
        ],
    }
    return Item("xnat:subjectData", _with(fields, subject.fields), subject.insert_date, children)


def _shares(xsi_type: str, shares: Pairs) -> list[Item]:
    return [Item(xsi_type, {"project": home, "label": label}) for home, label in shares]


def experiment_item(rows: Tables, row: Experiment, project: str) -> Item:
    """A session with scans, reconstructions, assessors and resources; or an assessor."""
    fields: dict[str, Value] = {
        "ID": row.id, "id": row.id, "project": row.project, "label": label_in(row, project),
        "date": row.date, "time": row.time,
    }  # fmt: skip
    if row.session:
        fields["imageSession_ID"] = row.session
        session = rows.experiments.get(row.session)
        children = {}
        if session is not None:
            for role in ("in", "out"):
                owner = holders.of_assessor(session, row, role).owner
                children[f"{role}/file"] = _files(rows, owner)
        return Item(row.xsi_type, _with(fields, row.fields), row.insert_date, children)
    fields["subject_ID"] = row.subject
    children = {
        "sharing/share": _shares("xnat:experimentData_share", row.shares),
        "resources/resource": _files(rows, f"experiment:{row.id}"),
        "scans/scan": [scan_item(rows, it) for it in rows.scans.of(row.id)],
        "reconstructions/reconstructedImage": [
            reconstruction_item(rows, it) for it in rows.reconstructions.of(row.id)
        ],
        "assessors/assessor": [
            experiment_item(rows, it, project)
            for it in rows.experiments.of(f"assessors-of:{row.id}")
        ],
    }
    return Item(row.xsi_type, _with(fields, row.fields), row.insert_date, children)


def scan_item(rows: Tables, scan: Scan) -> Item:
    """A scan with its resources."""
    fields: dict[str, Value] = {
        "ID": scan.id, "image_session_ID": scan.session, "type": scan.type,
        "quality": scan.quality, "note": scan.note, "series_description": scan.series_description,
        "xnat_imagescandata_id": int(scan.key),
    }  # fmt: skip
    children = {"file": _files(rows, f"scan:{scan.key}")}
    return Item(scan.xsi_type, _with(fields, scan.fields), scan.insert_date, children)


def reconstruction_item(rows: Tables, recon: Reconstruction) -> Item:
    """A reconstruction with its resources."""
    fields: dict[str, Value] = {
        "ID": recon.id, "image_session_ID": recon.session, "type": recon.type,
        "baseScanType": recon.base_scan_type, "xnat_reconstructedimagedata_id": int(recon.key),
    }  # fmt: skip
    children = {f"{it}/file": _files(rows, f"recon:{recon.key}:{it}") for it in ("in", "out")}
    return Item(
        "xnat:reconstructedImageData", _with(fields, recon.fields), recon.insert_date, children
    )


def _files(rows: Tables, owner: str) -> list[Item]:
    return [resource_item(resource) for resource in rows.resources.of(owner)]


def resource_item(resource: Resource) -> Item:
    """A resource: its catalog's place on the server, count and size."""
    name = f"{resource.label or resource.id}_catalog.xml"
    fields: dict[str, Value] = {
        "label": resource.label, "URI": f"/{resource.directory}/{name}",
        "format": resource.format, "content": resource.content,
        "description": resource.description, "file_count": _number(resource.file_count),
        "file_size": _number(resource.file_size),
        "xnat_abstractresource_id": int(resource.id),
    }  # fmt: skip
    return Item("xnat:resourceCatalog", _with(fields, ()), resource.insert_date)
