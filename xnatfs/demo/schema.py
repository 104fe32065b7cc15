"""The data model as XML schemas: as much of it as clients need that build classes from it.

XNAT's own schemas describe hundreds of types; these are the ones that this archive can hold.
"""

from __future__ import annotations

from collections.abc import Iterator

NAMES = ("xdat", "xnat")
_MODALITIES = {"mr": "MR", "ct": "CT", "pet": "PET", "us": "US", "xa": "XA",
               "otherDicom": "OtherDicom"}  # fmt: skip

# One type a line: name[<base][=what it is shown by], then its @attributes, plain elements, and
# elements that hold another type; `a/b:T` is a list of b in an element a, `b*:T` a bare list.
_TYPES = """
projectData=ID @ID @secondary_ID @active name description keywords PI:investigatorData resources/resource:abstractResource
investigatorData title firstname lastname institution email
subjectData=label @ID @project @label @group @src resources/resource:abstractResource experiments/experiment:subjectAssessorData
experimentData=label @ID @project @label @visit_id date time note resources/resource:abstractResource
subjectAssessorData<experimentData subject_ID age
imageSessionData<subjectAssessorData @UID @modality session_type scanner scans/scan:imageScanData reconstructions/reconstructedImage:reconstructedImageData assessors/assessor:imageAssessorData
derivedData<experimentData
imageAssessorData<derivedData imageSession_ID in/file:abstractResource out/file:abstractResource
qcManualAssessorData<imageAssessorData rater pass
qcAssessmentData<imageAssessorData
reconstructedImageData=ID @ID @type baseScanType image_session_ID in/file:abstractResource out/file:abstractResource
imageScanData=ID @ID @type @UID @project image_session_ID note quality series_description frames file*:abstractResource
abstractResource=label @label @file_count @file_size note
resource<abstractResource @URI @format @description @content
resourceCatalog<resource
"""  # noqa: E501


def _types() -> Iterator[tuple[str, str, str, list[str]]]:
    """Name, base, what it is shown by, and content of each type."""
    lines = _TYPES.strip().splitlines()
    lines += [
        f"{it}{kind}Data<image{kind}Data" for it in _MODALITIES for kind in ("Session", "Scan")
    ]
    for line in lines:
        head, *content = line.split()
        name, _, shown_by = head.partition("=")
        name, _, base = name.partition("<")
        yield name, base, shown_by, content


def element_names() -> list[str]:
    """The types as `xnat:mrSessionData`."""
    return [f"xnat:{name}" for name, *_ in _types() if name.endswith("Data")]


def schema(name: str) -> str:
    """The schema of a name in `NAMES`."""
    types = list(_types()) if name == "xnat" else []
    elements = "".join(
        f'<xs:element name="{_spoken(it)}" type="xnat:{it}"/>'
        for it, *_ in types
        if it.endswith("Data")
    )
    return (
        '<?xml version="1.0" encoding="UTF-8"?>\n'
        f'<xs:schema targetNamespace="http://nrg.wustl.edu/{name}" '
        'xmlns:xnat="http://nrg.wustl.edu/xnat" xmlns:xdat="http://nrg.wustl.edu/xdat" '
        'xmlns:xs="http://www.w3.org/2001/XMLSchema" elementFormDefault="qualified" '
        f'attributeFormDefault="unqualified">{elements}'
        + "".join(_rendered(*it) for it in types)
        + "</xs:schema>\n"
    )


def _spoken(name: str) -> str:
    name = name.removesuffix("Data")
    for kind, spoken in _MODALITIES.items():
        if name in (f"{kind}Session", f"{kind}Scan"):
            return spoken + name[len(kind) :]
    return name[:1].upper() + name[1:]


def _rendered(name: str, base: str, shown_by: str, content: list[str]) -> str:
    note = ""
    if shown_by:
        shown = f'<xdat:element displayIdentifiers="{shown_by}"/>'
        note = f"<xs:annotation><xs:appinfo>{shown}</xs:appinfo></xs:annotation>"
    elements = "".join(_element(it) for it in content if not it.startswith("@"))
    body = f"<xs:sequence>{elements}</xs:sequence>" + "".join(
        f'<xs:attribute name="{it[1:]}" type="xs:string"/>' for it in content if it.startswith("@")
    )
    if base:
        body = f'<xs:extension base="xnat:{base}">{body}</xs:extension>'
        body = f"<xs:complexContent>{body}</xs:complexContent>"
    return f'<xs:complexType name="{name}">{note}{body}</xs:complexType>'


def _element(told: str) -> str:
    path, _, kind = told.partition(":")
    outer, _, name = path.rpartition("/")
    times = ' minOccurs="0"' + (' maxOccurs="unbounded"' if outer or path.endswith("*") else "")
    data_type = f"xnat:{kind}" if kind else "xs:string"
    inner = f'<xs:element name="{name.removesuffix("*")}" type="{data_type}"{times}/>'
    if not outer:
        return inner
    inside = f"<xs:complexType><xs:sequence>{inner}</xs:sequence></xs:complexType>"
    return f'<xs:element name="{outer}" minOccurs="0">{inside}</xs:element>'
