"""Which columns a listing has and what stands in them: XNAT's aliases and xml paths (R§1.3, R§2).

An unknown alias is ignored; a column with `/` is a path of the data model and comes back under
its lower-case name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from xnatfs.demo.objects import Object, Tables
from xnatfs.demo.wire import Query

_SESSION_TYPES = {
    f"xnat:{kind}SessionData"
    for kind in ("mr", "ct", "pet", "petmr", "us", "xa", "cr", "rt", "eeg", "meg", "dx", "mg", "nm",
                 "sr", "io", "otherDicom", "esv", "hd", "xc", "opt", "image")
}  # fmt: skip
_ASSESSOR_TYPES = ("xnat:qcManualAssessorData", "xnat:qcAssessmentData", "xnat:imageAssessorData",
                   "xnat:derivedData", "xnat:mrAssessorData", "xnat:petAssessorData",
                   "icr:roiCollectionData", "fs:fsData")  # fmt: skip
_ROOT_TYPES = ("xnat:experimentData", "xnat:subjectAssessorData")
# Columns of image sessions: asking for one restricts the rows to those (R§1.3).
SESSION_ONLY = ("scanner", "modality", "uid", "studyinstanceuid", "fieldstrength", "session_id")
_RESERVED = {"format", "columns", "sortBy", "sortOrder", "limit", "offset", "xsiType"}
_RANGE = re.compile(r"(\d\d/\d\d/\d{4})-(\d\d/\d\d/\d{4})$")


def is_known_type(xsi_type: str) -> bool:
    """Whether the data model has such experiments; asking for others breaks the query (R§2.1)."""
    return is_session_type(xsi_type) or xsi_type in (*_ASSESSOR_TYPES, *_ROOT_TYPES)


def is_session_type(xsi_type: str) -> bool:
    """Whether these are image sessions."""
    return xsi_type in _SESSION_TYPES


def is_a(xsi_type: str, wanted: str) -> bool:
    """Whether a type is the wanted one or derives from it."""
    if wanted in ("xnat:imageSessionData", "xnat:subjectAssessorData"):
        return is_session_type(xsi_type)
    if wanted in ("xnat:imageAssessorData", "xnat:derivedData"):
        return not is_session_type(xsi_type)
    return wanted in (xsi_type, "xnat:experimentData")


@dataclass(frozen=True, slots=True)
class Columns:
    """The columns of a level: the default ones, and aliases that may be empty.

    `uri` is a template over the object `o` and its session's accession id `s`; `number` the name
    of the row number of objects that users know by another id.
    """

    default: tuple[str, ...]
    uri: str
    aliases: tuple[str, ...] = ()
    number: str = ""


_EXPERIMENT = ("ID", "project", "date", "xsiType", "label", "insert_date")
COLUMNS: Mapping[str, Columns] = {
    "project": Columns(
        ("ID", "secondary_ID", "name", "description", "pi_firstname", "pi_lastname"),
        "/data/projects/{o.id}", ("description", "keywords", "pi_firstname", "pi_lastname"),
    ),
    "subject": Columns(
        ("ID", "project", "label", "insert_date", "insert_user"), "/data/subjects/{o.id}",
        ("gender", "dob", "yob", "group", "src", "handedness", "gender_text"),
    ),
    "experiment": Columns(
        _EXPERIMENT, "/data/experiments/{o.id}",
        ("date", "time", "note", "session_label", *SESSION_ONLY),
    ),
    "assessor": Columns(
        ("ID", "project", "label", "date", "xsiType", "insert_date", "session_ID",
         "session_label"),
        "/data/experiments/{o.id}", ("date", "time", "note", *SESSION_ONLY),
    ),
    "scan": Columns(
        ("xnat_imagescandata_id", "ID", "type", "quality", "xsiType", "note",
         "series_description"),
        "/data/experiments/{s}/scans/{o.label}",
        ("type", "quality", "note", "series_description", "uid", "frames", "modality", "scantime",
         "scanner", "documentation"), "xnat_imagescandata_id",
    ),
    "reconstruction": Columns(
        ("xnat_reconstructedimagedata_id", "ID", "type", "baseScanType"),
        "/data/experiments/{s}/reconstructions/{o.label}", ("type", "basescantype"),
        "xnat_reconstructedimagedata_id",
    ),
}  # fmt: skip


def values(tables: Tables, row: Object, home: str = "") -> dict[str, str]:
    """All values of an object by lower-case alias, as seen in a project ("" = its own)."""
    columns, home = COLUMNS[row.kind], home or row.project
    found = dict.fromkeys(columns.aliases, "") | {key.lower(): value for key, value in row.fields}
    last_modified = row.last_modified or row.insert_date
    found |= {
        "xsitype": row.xsi_type, "meta/insert_date": row.insert_date,
        "meta/last_modified": last_modified,
        "sharing/share/project": ",".join(home for home, _ in row.shares),
        "sharing/share/label": ",".join(label for _, label in row.shares),
    }  # fmt: skip
    if columns.number:
        found |= {"id": row.label, columns.number: row.id}
    else:
        found |= {"id": row.id, "label": row.label_in(home)}
    if row.kind != "project":
        # Shared experiments show the project that they are seen in, subjects the owner (R§2.3).
        is_guest = row.kind == "experiment" and home in row.homes
        found |= {
            "project": home if is_guest else row.project, "insert_date": row.insert_date,
            "insert_user": row.insert_user, "last_modified": last_modified,
        }  # fmt: skip
    parent = tables.parent(row) if row.kind in ("experiment", "assessor") else None
    while parent is not None and parent.kind != "project":
        prefix = "session" if parent.kind == "experiment" else "subject"
        found |= {f"{prefix}_id": parent.id, f"{prefix}_label": parent.label_in(home)}
        parent = tables.parent(parent)
    session = row.parent.removeprefix("experiment:")
    return found | {"URI": columns.uri.format(o=row, s=session)}


def value_of(row: Mapping[str, str], column: str) -> str | None:
    """The value of a column, by alias or by the last parts of a path; None if unknown."""
    name = column.lower()
    return row.get(name, row.get(name.partition("/")[2]) if "/" in name else None)


def chosen(query: Query, defaults: Sequence[str], known: Collection[str]) -> list[str]:
    """The columns of a listing: those asked for, as far as they exist, else the defaults.

    `known` are the aliases of its rows; without rows every alias counts as known.
    """
    asked = [it for text in query.all("columns") for it in text.split(",") if it]
    kept = [it for it in asked if not known or "/" in it or it.lower() in known]
    return [it.lower() if "/" in it else it for it in dict.fromkeys(kept if asked else defaults)]


def passes(row: Mapping[str, str], query: Query, known: Collection[str]) -> bool:
    """Whether a row meets the filters in the query: any alias or path as a parameter (R§2.1)."""
    return all(
        any(_meets(value_of(row, name) or "", one) for one in wish.split(","))
        for name, wish in query.pairs
        if wish and name not in _RESERVED
        if name.lower() in known or ("/" in name and ":" in name)
    )


def _meets(value: str, wish: str) -> bool:
    span = _RANGE.match(wish)
    if span is not None:
        first, last = (
            datetime.strptime(it, "%m/%d/%Y").strftime("%Y-%m-%d") for it in span.groups()
        )
        return first <= value[:10] <= last
    pattern = ".*".join(re.escape(part) for part in re.split(r"[*%]", wish))
    return value == wish or (
        pattern != re.escape(wish) and re.fullmatch(pattern, value, re.IGNORECASE) is not None
    )
