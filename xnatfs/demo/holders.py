"""Holders: what resources hang on, as rows of one table (project, subject, session, scan, …).

Differences between the levels (where on disk, which URI, which category) stand here and nowhere
else. Who may see a holder is asked of `rights.py`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from xnatfs.demo.objects import (
    Experiment,
    Project,
    Reconstruction,
    Resource,
    Scan,
    Subject,
    Tables,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Holder:
    """Something that has resources.

    `owner` is the key that its resources carry; `guard` the object whose rights count; `uri` its
    canonical address below /data (R§2.6); `folder` where its resources' directories lie below the
    archive's root (R§4.4); `entry` the start of the names in a bulk download (R§3.4), with
    `entry_suffix` added when the request went through `scans/`.
    """

    owner: str
    guard: Project | Subject | Experiment
    uri: str
    folder: str
    entry: str
    category: str = "resources"
    cat_id: str = ""
    cat_desc: str = ""
    entry_suffix: str = ""


def _on_disk(name: str) -> str:
    return name.replace("/", "_")


def subject_folder(subject: Subject) -> str:
    """Where a subject's resources lie."""
    return f"archive/{subject.project}/subjects/{_on_disk(subject.label)}"


def session_folder(session: Experiment) -> str:
    """Where everything of a session lies; assessors live in their session's folder."""
    return f"archive/{session.project}/arc001/{_on_disk(session.label)}"


def of_project(project: Project) -> Holder:
    """The holder of project-level resources."""
    return Holder(
        owner=f"project:{project.id}", guard=project, uri=f"/data/projects/{project.id}",
        folder=f"archive/{project.id}/resources", entry=project.id,
    )  # fmt: skip


def of_subject(subject: Subject) -> Holder:
    """The holder of subject-level resources."""
    return Holder(
        owner=f"subject:{subject.id}", guard=subject,
        uri=f"/data/projects/{subject.project}/subjects/{subject.id}",
        folder=subject_folder(subject), entry=subject.label,
    )  # fmt: skip


def of_session(session: Experiment) -> Holder:
    """The holder of session-level resources."""
    return Holder(
        owner=f"experiment:{session.id}", guard=session, uri=f"/data/experiments/{session.id}",
        folder=f"{session_folder(session)}/RESOURCES", entry=session.label,
        cat_id=session.id, cat_desc=" ",
    )  # fmt: skip


def of_scan(session: Experiment, scan: Scan) -> Holder:
    """The holder of a scan's resources."""
    kind = "".join(c if c.isalnum() or c in "_-" else "_" for c in scan.type)
    return _part(
        session, f"scan:{scan.key}", "scans", f"{scan.id}", f"SCANS/{_on_disk(scan.id)}",
        scan.id, scan.type, suffix=f"-{kind}" if kind else "",
    )  # fmt: skip


def of_reconstruction(session: Experiment, recon: Reconstruction, role: str) -> Holder:
    """The holder of a reconstruction's `in` or `out` resources."""
    where = "" if role == "out" else f"/{role}"
    return _part(
        session, f"recon:{recon.key}:{role}", "reconstructions", f"{recon.id}/{role}",
        f"PROCESSED/{_on_disk(recon.id)}{where}", recon.id, recon.type,
    )  # fmt: skip


def of_assessor(session: Experiment, assessor: Experiment, role: str) -> Holder:
    """The holder of an assessor's resources: `in`, `out`, or "" for plain ones (R§1.2)."""
    where = f"/{role}" if role else ""
    owner = f"assessor:{assessor.id}:{role}" if role else f"experiment:{assessor.id}"
    holder = _part(
        session, owner, "assessors", assessor.id + where,
        f"ASSESSORS/{_on_disk(assessor.label)}{where or '/RESOURCES'}",
        assessor.id, assessor.xsi_type,
    )  # fmt: skip
    entry = f"{session.label}/assessors/{assessor.label}{where}"
    return replace(holder, guard=assessor, entry=entry)


def _part(
    session: Experiment,
    owner: str,
    category: str,
    place: str,
    folder: str,
    cat_id: str,
    cat_desc: str,
    suffix: str = "",
) -> Holder:
    """A holder below a session; `place` is its address below the category, `folder` on disk."""
    return Holder(
        owner=owner, guard=session, uri=f"/data/experiments/{session.id}/{category}/{place}",
        folder=f"{session_folder(session)}/{folder}", category=category, cat_id=cat_id,
        cat_desc=cat_desc, entry=f"{session.label}/{category}/{place}", entry_suffix=suffix,
    )  # fmt: skip


def whole_session(tables: Tables, session: Experiment) -> list[Holder]:
    """Everything that `all=true` unites: session, scans, recons' and assessors' `out`, plain."""
    found = [of_session(session)]
    found += [of_scan(session, scan) for scan in tables.scans.of(session.id)]
    found += [of_reconstruction(session, it, "out") for it in tables.reconstructions.of(session.id)]
    assessors = tables.experiments.of(f"assessors-of:{session.id}")
    found += [of_assessor(session, assessor, "out") for assessor in assessors]
    found += [of_assessor(session, assessor, "") for assessor in assessors]
    return found


def below_session(tables: Tables, session: Experiment) -> list[Holder]:
    """A session with all its parts, `in` resources included."""
    found = whole_session(tables, session)
    found += [of_reconstruction(session, it, "in") for it in tables.reconstructions.of(session.id)]
    for assessor in tables.experiments.of(f"assessors-of:{session.id}"):
        found.append(of_assessor(session, assessor, "in"))
    return found


def holder_of(tables: Tables, resource: Resource) -> Holder | None:
    """What a resource hangs on; None when that is gone."""
    kind, key, role = (*resource.owner.split(":"), "")[:3]
    if kind == "project":
        project = tables.projects.get(key)
        return of_project(project) if project else None
    if kind == "subject":
        subject = tables.subjects.get(key)
        return of_subject(subject) if subject else None
    if kind == "scan":
        scan = tables.scans.get(key)
        session = tables.experiments.get(scan.session) if scan else None
        return of_scan(session, scan) if session and scan else None
    if kind == "recon":
        recon = tables.reconstructions.get(key)
        session = tables.experiments.get(recon.session) if recon else None
        return of_reconstruction(session, recon, role) if session and recon else None
    experiment = tables.experiments.get(key)
    if experiment is None:
        return None
    if not experiment.session:
        return of_session(experiment)
    session = tables.experiments.get(experiment.session)
    return of_assessor(session, experiment, role) if session else None
