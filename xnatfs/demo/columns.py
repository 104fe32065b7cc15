"""Which columns a listing has and what stands in them: XNAT's aliases and xml paths (R§1.3, R§2).

An unknown alias is ignored; a column with `/` is a path of the data model and comes back under
its lower-case name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime

from xnatfs.demo.objects import Experiment, Reconstruction, Scan, Subject, Tables, label_in
from xnatfs.demo.wire import Query

Row = dict[str, str]

_SESSION_TYPES = ("mr", "ct", "pet", "petmr", "us", "xa", "cr", "rt", "eeg", "meg", "dx", "mg",
                  "nm", "sr", "io", "otherDicom", "esv", "hd", "xc", "opt")  # fmt: skip
_ASSESSOR_TYPES = ("xnat:qcManualAssessorData", "xnat:qcAssessmentData", "xnat:imageAssessorData",
                   "xnat:derivedData", "xnat:mrAssessorData", "xnat:petAssessorData",
                   "icr:roiCollectionData", "fs:fsData")  # fmt: skip
_ABSTRACT = ("xnat:experimentData", "xnat:subjectAssessorData", "xnat:imageSessionData",
             "xnat:imageAssessorData", "xnat:derivedData")  # fmt: skip
# Columns of image sessions: asking for one restricts the rows to those (R§1.3).
SESSION_ONLY = {"scanner", "modality", "uid", "studyinstanceuid", "fieldstrength", "session_id"}
_RANGE = re.compile(r"(\d\d/\d\d/\d{4})-(\d\d/\d\d/\d{4})$")


def is_known_type(xsi_type: str) -> bool:
    """Whether the data model has such experiments; asking for others breaks the query (R§2.1)."""
    return is_session_type(xsi_type) or xsi_type in _ASSESSOR_TYPES or xsi_type in _ABSTRACT


def is_session_type(xsi_type: str) -> bool:
    """Whether these are image sessions."""
    return any(xsi_type == f"xnat:{kind}SessionData" for kind in (*_SESSION_TYPES, "image"))


def is_a(xsi_type: str, wanted: str) -> bool:
    """Whether a type is the wanted one or derives from it."""
    if wanted in ("", xsi_type, "xnat:experimentData"):
        return True
    if wanted in ("xnat:imageSessionData", "xnat:subjectAssessorData"):
        return is_session_type(xsi_type) or wanted == xsi_type
    if wanted in ("xnat:imageAssessorData", "xnat:derivedData"):
        return not is_session_type(xsi_type) and xsi_type != "xnat:subjectAssessorData"
    return False


def cells(row: object, *names: str) -> Row:
    """The fields of a row that are called like their columns."""
    return {name: getattr(row, name) for name in names}


def experiment_values(rows: Tables, row: Experiment, project: str) -> Row:
    """All values of an experiment by lower-case alias, as seen in a project ("" = its own)."""
    home = project or row.project
    subject = rows.subjects.get(row.subject)
    session = rows.experiments.get(row.session) if row.session else None
    last_modified = row.last_modified or row.insert_date
    shared = bool(project) and project in dict(row.shares)
    values = {"note": ""} | {key.lower(): value for key, value in row.fields}
    return dict.fromkeys(SESSION_ONLY, "") | values | {
        **cells(row, "id", "date", "time", "insert_date", "insert_user"),
        "label": label_in(row, home), "project": project if shared else row.project,
        "xsitype": row.xsi_type, "last_modified": last_modified,
        "subject_id": row.subject, "subject_label": label_in(subject, home) if subject else "",
        "session_id": row.session, "session_label": label_in(session, home) if session else "",
        "meta/insert_date": row.insert_date, "meta/last_modified": last_modified,
        "sharing/share/project": ",".join(home for home, _ in row.shares),
        "sharing/share/label": ",".join(label for _, label in row.shares),
    }  # fmt: skip


def subject_values(row: Subject, project: str) -> Row:
    """All values of a subject by lower-case alias."""
    names = ("gender", "dob", "yob", "group", "src", "handedness", "gender_text")
    values = {key.lower(): value for key, value in row.fields}
    return dict.fromkeys(names, "") | values | {
        **cells(row, "id", "project", "insert_date", "insert_user"),
        "label": label_in(row, project or row.project), "xsitype": "xnat:subjectData",
        "last_modified": row.last_modified or row.insert_date,
    }  # fmt: skip


def scan_values(row: Scan) -> Row:
    """All values of a scan by lower-case alias."""
    names = ("uid", "frames", "modality", "scantime", "scanner", "documentation")
    values = {key.lower(): value for key, value in row.fields}
    return dict.fromkeys(names, "") | values | {
        **cells(row, "id", "type", "quality", "note", "series_description", "insert_date",
                "insert_user"),
        "xnat_imagescandata_id": row.key, "xsitype": row.xsi_type,
        "last_modified": row.insert_date,
    }  # fmt: skip


def reconstruction_values(row: Reconstruction) -> Row:
    """All values of a reconstruction by lower-case alias."""
    return cells(row, "id", "type", "insert_date") | {
        "xnat_reconstructedimagedata_id": row.key, "basescantype": row.base_scan_type,
        "xsitype": "xnat:reconstructedImageData",
    }  # fmt: skip


def value_of(values: Mapping[str, str], column: str) -> str | None:
    """The value of a column, by alias or by the last parts of a path; None if unknown."""
    name = column.lower()
    if name in values:
        return values[name]
    return values.get(name.partition("/")[2]) if "/" in name else None


def chosen(query: Query, defaults: Sequence[str], known: Mapping[str, str] | None) -> list[str]:
    """The columns of a listing: those asked for, as far as they exist, else the defaults.

    `known` are the values of any row; without rows every alias counts as known.
    """
    asked = [name for text in query.all("columns") for name in text.split(",") if name]
    if not asked:
        return list(defaults)
    kept = [
        name for name in asked if known is None or "/" in name or value_of(known, name) is not None
    ]
    return [name.lower() if "/" in name else name for name in dict.fromkeys(kept)]


def passes(values: Mapping[str, str], query: Query, known: Iterable[str]) -> bool:
    """Whether a row meets the filters in the query: any alias or path as a parameter (R§2.1)."""
    aliases = set(known)
    for name, wish in query.pairs:
        key = name.lower()
        if name in _RESERVED or not wish or not (key in aliases or ("/" in key and ":" in key)):
            continue
        value = value_of(values, name) or ""
        if not any(_meets(value, one) for one in wish.split(",")):
            return False
    return True


_RESERVED = {"format", "columns", "sortBy", "sortOrder", "limit", "offset", "xsiType"}


def _meets(value: str, wish: str) -> bool:
    span = _RANGE.match(wish)
    if span is not None:
        first, last = (
            datetime.strptime(it, "%m/%d/%Y").strftime("%Y-%m-%d") for it in span.groups()
        )
        return first <= value[:10] <= last
    if "*" in wish or "%" in wish:
        pattern = ".*".join(re.escape(part) for part in re.split(r"[*%]", wish))
        return re.fullmatch(pattern, value, re.IGNORECASE) is not None
    return value == wish
