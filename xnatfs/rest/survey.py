"""All scans of a project, and which resources each has, in one request (R§1.3)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from xnatfs.rest.listing import listing
from xnatfs.rest.session import Session
from xnatfs.waiting import Waiter

_TYPE = "xnat:imageSessionData"
_SHARED = "xnat:imagesessiondata/sharing/share/project"
# Our name of a scan's column → the path that joins it to its session's row.
_SCAN_COLUMNS = {
    "ID": "xnat:imagescandata/id",
    "type": "xnat:imagescandata/type",
    "quality": "xnat:imagescandata/quality",
    "series_description": "xnat:imagescandata/series_description",
}
_RESOURCE = "xnat:imagescandata/file/label"


@dataclass(frozen=True, slots=True)
class ScanRow:
    """One scan."""

    # As the row of a session's listing of scans has them.
    cells: Mapping[str, str]
    # Labels of its resources.
    resources: list[str]


def scans(
    session: Session, project: str, waiter: Waiter, *, shared: bool
) -> dict[str, list[ScanRow]]:
    """The scans of the image sessions of a project.

    Args:
        session: open.
        project: its id.
        waiter: limits of the wait.
        shared: those of the sessions that other projects share with it, in place of its own.

    Returns: accession of each session, with or without scans → its scans in the server's order.

    Raises: BadReply and those of ``Session.request``.
    """
    columns = ["ID", "project", *_SCAN_COLUMNS.values(), _RESOURCE]
    params = {
        "xsiType": _TYPE,
        _SHARED if shared else "project": project,
        "columns": ",".join(columns),
    }
    return _merged(listing(session, "/experiments", params, waiter))


def _merged(rows: Iterable[Mapping[str, str]]) -> dict[str, list[ScanRow]]:
    """A row for each scan out of one for each scan and resource."""
    sessions: dict[str, dict[str, ScanRow]] = {}
    for row in rows:
        scans = sessions.setdefault(row.get("ID", ""), {})
        cells = {name: row.get(path, "") for name, path in _SCAN_COLUMNS.items()}
        if cells["ID"]:  # else a session without scans
            known = scans.setdefault(cells["ID"], ScanRow(cells, []))
            label = row.get(_RESOURCE, "")
            if label and label not in known.resources:
                known.resources.append(label)
    return {id_: list(scans.values()) for id_, scans in sessions.items() if id_}
