"""The hierarchy of an XNAT archive, as a table.

One row for each level. No module asks "is this a scan?": it reads the row. Column names and
address forms are those of XNAT's REST interface (R§1.2, R§2, R§10.2).
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Level:
    """One level of the hierarchy."""

    # What a person calls an object of this level.
    name: str
    # The folder that holds the objects, which is the segment of the address too.
    collection: str
    # Address of one object below /data: "{id}" is its id, "{parent}" its parent's address.
    address: str
    # The object that is asked for the listing: itself a level name, or "" for the archive.
    listed_at: str
    # Address of that listing, below the address of the ``listed_at`` object.
    listing: str
    # Column that holds the id used in addresses.
    key: str
    # Column whose text is shown as the file name; when it is empty the id is shown.
    label: str
    # Columns to ask for with ``columns=``; empty: the listing takes none (R§2.6).
    columns: tuple[str, ...] = ()
    # Column that names the parent's id, where one listing holds the children of many parents.
    parent_column: str = ""
    # The collections in an object's folder, in the order shown.
    holds: tuple[str, ...] = ()
    # Those of them that are listed at once when a path through such an object is walked.
    walked: tuple[str, ...] = ()
    # Those of them that show links to the objects' one place elsewhere.
    links: tuple[str, ...] = ()
    # Columns of the long form of the name ("4-Ax_3D_T1"), which always resolves too.
    long_name: tuple[str, ...] = ()
    # ``category`` in the listing of resources by which this level's resources are told (R§2.6).
    category: str = ""
    # The object that is asked for the resources of an object of this level (R§1.3).
    resources_at: str = ""
    # Address at which an object is made, by PUT; as ``address``, with "{project}" the project's
    # address. Empty: objects are not made through a mount (R§5.3).
    made_at: str = ""
    # The setting (of ``config.Policy``) with the data type of a new object; "" where it has one.
    made_as: str = ""
    # Whether objects have ``in`` resources too: what they were made from (R§1.2).
    inputs: bool = False
    # Extended attributes: name below ``user.xnat.`` and the column it shows.
    attributes: dict[str, str] = field(default_factory=dict)
    # Column with the time of creation, shown as mtime; empty: the parent's (design: attributes).
    time_column: str = ""


PROJECT = Level(
    name="project",
    collection="projects",
    address="/projects/{id}",
    listed_at="",
    listing="/projects",
    key="ID",
    label="ID",
    holds=("subjects", "experiments", "resources"),
    walked=("subjects", "experiments"),
    links=("experiments",),
    resources_at="project",
    attributes={
        "title": "name",
        "secondary_id": "secondary_ID",
        "description": "description",
        "pi_firstname": "pi_firstname",
        "pi_lastname": "pi_lastname",
    },
)
SUBJECT = Level(
    name="subject",
    collection="subjects",
    address="/subjects/{id}",
    listed_at="project",
    listing="/subjects",
    key="ID",
    label="label",
    columns=("ID", "project", "label", "insert_date", "insert_user"),
    holds=("experiments", "resources"),
    resources_at="subject",
    made_at="{parent}/subjects/{id}",
    attributes={
        "project": "project",
        "insert_date": "insert_date",
        "insert_user": "insert_user",
    },
    time_column="insert_date",
)
EXPERIMENT = Level(
    name="experiment",
    collection="experiments",
    address="/experiments/{id}",
    listed_at="project",
    listing="/experiments",
    key="ID",
    label="label",
    columns=(
        "ID",
        "label",
        "project",
        "xsiType",
        "subject_ID",
        "subject_label",
        "date",
        "insert_date",
        "insert_user",
    ),
    parent_column="subject_ID",
    holds=("scans", "assessors", "reconstructions", "resources"),
    walked=("scans", "resources"),
    category="resources",
    resources_at="experiment",
    made_at="{project}{parent}/experiments/{id}",
    made_as="session_type",
    attributes={
        "xsi_type": "xsiType",
        "date": "date",
        "project": "project",
        "insert_user": "insert_user",
    },
    time_column="insert_date",
)
SCAN = Level(
    name="scan",
    collection="scans",
    address="{parent}/scans/{id}",
    listed_at="experiment",
    listing="/scans",
    key="ID",
    label="ID",
    columns=("ID", "type", "quality", "xsiType", "note", "series_description"),
    long_name=("ID", "type"),
    holds=("resources",),
    category="scans",
    resources_at="experiment",
    made_at="{parent}/scans/{id}",
    made_as="scan_type",
    attributes={
        "type": "type",
        "quality": "quality",
        "xsi_type": "xsiType",
        "series_description": "series_description",
        "note": "note",
    },
)
ASSESSOR = Level(
    name="assessor",
    collection="assessors",
    address="{parent}/assessors/{id}",
    listed_at="experiment",
    listing="/assessors",
    key="ID",
    label="label",
    columns=("ID", "label", "project", "xsiType", "date", "insert_date"),
    holds=("resources",),
    category="assessors",
    resources_at="experiment",
    inputs=True,
    attributes={"xsi_type": "xsiType", "date": "date"},
)
RECONSTRUCTION = Level(
    name="reconstruction",
    collection="reconstructions",
    address="{parent}/reconstructions/{id}",
    listed_at="experiment",
    listing="/reconstructions",
    key="ID",
    label="ID",
    holds=("resources",),
    category="reconstructions",
    resources_at="experiment",
    inputs=True,
    attributes={"type": "type", "base_scan_type": "baseScanType"},
)
RESOURCE = Level(
    name="resource",
    collection="resources",
    address="{parent}/resources/{id}",
    listed_at="",
    listing="/resources",
    key="xnat_abstractresource_id",
    label="label",
    holds=("files",),
    attributes={
        "format": "format",
        "content": "content",
        "tags": "tags",
        "file_count": "file_count",
        "file_size": "file_size",
    },
)

# The archive itself: the one object without a listing.
ARCHIVE = Level(
    name="archive",
    collection="",
    address="",
    listed_at="",
    listing="",
    key="",
    label="",
    holds=("projects", "experiments"),
    links=("experiments",),
)

LEVELS: tuple[Level, ...] = (
    PROJECT,
    SUBJECT,
    EXPERIMENT,
    SCAN,
    ASSESSOR,
    RECONSTRUCTION,
    RESOURCE,
)

BY_NAME = {level.name: level for level in LEVELS}
BY_COLLECTION = {level.collection: level for level in LEVELS}
