"""The data model as XML schemas: as much of it as clients need that build classes from it.

XNAT's own schemas describe hundreds of types; these are the ones that this archive can hold.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from xml.sax.saxutils import quoteattr

NAMES = ("xdat", "xnat")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Type:
    """A type: its base, attributes, plain elements, and elements that hold other types.

    In `holds` a name like `scans/scan` is a list inside an element of its own.
    """

    base: str = ""
    shown_by: str = ""
    attributes: tuple[str, ...] = ()
    elements: tuple[str, ...] = ()
    holds: tuple[tuple[str, str], ...] = ()


_TYPES: Mapping[str, _Type] = {
    "projectData": _Type(
        shown_by="ID",
        attributes=("ID", "secondary_ID", "active"),
        elements=("name", "description", "keywords"),
        holds=(("PI", "investigatorData"), ("resources/resource", "abstractResource")),
    ),
    "investigatorData": _Type(elements=("title", "firstname", "lastname", "institution", "email")),
    "subjectData": _Type(
        shown_by="label",
        attributes=("ID", "project", "label", "group", "src"),
        holds=(
            ("resources/resource", "abstractResource"),
            ("experiments/experiment", "subjectAssessorData"),
        ),
    ),
    "experimentData": _Type(
        shown_by="label",
        attributes=("ID", "project", "label", "visit_id"),
        elements=("date", "time", "note"),
        holds=(("resources/resource", "abstractResource"),),
    ),
    "subjectAssessorData": _Type(base="experimentData", elements=("subject_ID", "age")),
    "imageSessionData": _Type(
        base="subjectAssessorData",
        attributes=("UID", "modality"),
        elements=("session_type", "scanner"),
        holds=(
            ("scans/scan", "imageScanData"),
            ("reconstructions/reconstructedImage", "reconstructedImageData"),
            ("assessors/assessor", "imageAssessorData"),
        ),
    ),
    "derivedData": _Type(base="experimentData"),
    "imageAssessorData": _Type(
        base="derivedData",
        elements=("imageSession_ID",),
        holds=(("in/file", "abstractResource"), ("out/file", "abstractResource")),
    ),
    "qcManualAssessorData": _Type(base="imageAssessorData", elements=("rater", "pass")),
    "qcAssessmentData": _Type(base="imageAssessorData"),
    "reconstructedImageData": _Type(
        shown_by="ID",
        attributes=("ID", "type"),
        elements=("baseScanType", "image_session_ID"),
        holds=(("in/file", "abstractResource"), ("out/file", "abstractResource")),
    ),
    "imageScanData": _Type(
        shown_by="ID",
        attributes=("ID", "type", "UID", "project"),
        elements=("image_session_ID", "note", "quality", "series_description", "frames"),
        holds=(("file*", "abstractResource"),),
    ),
    "abstractResource": _Type(
        shown_by="label", attributes=("label", "file_count", "file_size"), elements=("note",)
    ),
    "resource": _Type(
        base="abstractResource", attributes=("URI", "format", "description", "content")
    ),
    "resourceCatalog": _Type(base="resource"),
}
_MODALITIES = ("mr", "ct", "pet", "us", "xa", "otherDicom")


def schema(name: str) -> str:
    """The schema of a name in `NAMES`."""
    types = _xnat_types() if name == "xnat" else {}
    body = "".join(_rendered(key, one) for key, one in types.items())
    elements = "".join(
        f'<xs:element name="{_spoken(key)}" type="xnat:{key}"/>'
        for key in types
        if key.endswith("Data")
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<xs:schema targetNamespace="http://nrg.wustl.edu/{name}" '
        'xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:xdat="http://nrg.wustl.edu/xdat" '
        'xmlns:xs="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified" '
        f'attributeFormDefault="unqualified">{elements}{body}</xs:schema>\n'
    )


def element_names() -> list[str]:
    """The types as `xnat:mrSessionData`."""
    return [f"xnat:{key}" for key in _xnat_types() if key.endswith("Data")]


def _xnat_types() -> dict[str, _Type]:
    found = dict(_TYPES)
    for kind in _MODALITIES:
        found[f"{kind}SessionData"] = _Type(base="imageSessionData")
        found[f"{kind}ScanData"] = _Type(base="imageScanData")
    return found


def _spoken(key: str) -> str:
    name = key.removesuffix("Data")
    for kind in _MODALITIES:
        if name.startswith(kind) and name[len(kind) :] in ("Session", "Scan"):
            return (kind.upper() if len(kind) < 4 else "OtherDicom") + name[len(kind) :]
    return name[:1].upper() + name[1:]


def _rendered(key: str, one: _Type) -> str:
    note = ""
    if one.shown_by:
        shown = f"<xdat:element displayIdentifiers={quoteattr(one.shown_by)}/>"
        note = f"<xs:annotation><xs:appinfo>{shown}</xs:appinfo></xs:annotation>"
    inner = "".join(
        f'<xs:element name="{it}" type="xs:string" minOccurs="0"/>' for it in one.elements
    )
    inner += "".join(_holding(name, kind) for name, kind in one.holds)
    body = f"<xs:sequence>{inner}</xs:sequence>" + "".join(
        f'<xs:attribute name="{it}" type="xs:string"/>' for it in one.attributes
    )
    if one.base:
        body = (
            f'<xs:complexContent><xs:extension base="xnat:{one.base}">{body}</xs:extension>'
            "</xs:complexContent>"
        )
    return f'<xs:complexType name="{key}">{note}{body}</xs:complexType>'


def _holding(name: str, kind: str) -> str:
    many = ' minOccurs="0" maxOccurs="unbounded"'
    outer, _, inner = name.rpartition("/")
    if not outer:
        plain = name.removesuffix("*")
        times = many if name.endswith("*") else ' minOccurs="0"'
        return f'<xs:element name="{plain}" type="xnat:{kind}"{times}/>'
    return (
        f'<xs:element name="{outer}" minOccurs="0"><xs:complexType><xs:sequence>'
        f'<xs:element name="{inner}" type="xnat:{kind}"{many}/>'
        "</xs:sequence></xs:complexType></xs:element>"
    )
