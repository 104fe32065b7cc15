"""From the variables of a URL to the holders it means, with XNAT's fall-through (R§1.4).

On GET an unknown session, scan, assessor or reconstruction is not an error: the next parent in
the URL answers. Every other verb wants exactly one match, else 404.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sized
from dataclasses import dataclass
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from xnatfs.demo import holders
from xnatfs.demo.holders import Holder
from xnatfs.demo.objects import Experiment, Project, Reconstruction, Resource, Scan, Subject, Tables
from xnatfs.demo.rights import Rights
from xnatfs.demo.users import User
from xnatfs.demo.wire import Refusal

Variables = Mapping[str, str]
_QUOTES = {"'": "&apos;", '"': "&quot;"}


def variable(variables: Variables, name: str) -> str:
    """A path variable as XNAT's code sees it: still percent-encoded, XML-escaped (R§1.1)."""
    return escape(variables.get(name, ""), _QUOTES)


def decoded(variables: Variables, name: str) -> str:
    """SCAN and RECON below the scan: URL-decoded, `[SLASH]` is `/` (R§1.1, R§12.4)."""
    return unquote_plus(variables.get(name, "")).replace("[SLASH]", "/")


@dataclass(frozen=True, slots=True)
class Target:
    """What a URL means: the holders on its own level, and what `all=true` would add.

    `base` is the address of that level with ids instead of labels (R§2.6); "" when several
    holders are meant, which then show their canonical addresses.
    """

    holders: tuple[Holder, ...]
    everything: tuple[Holder, ...]
    base: str
    whole_session: bool = False


class Addresses:
    """Resolves URLs for one user at a time; holds nothing of its own."""

    def __init__(self, tables: Tables, rights: Rights) -> None:
        self._tables = tables
        self._rights = rights

    def project(self, variables: Variables, user: User) -> Project | None:
        """The project of a URL, None if the URL has none. Raises Refusal 404."""
        if "P" not in variables:
            return None
        project = self._tables.project(variable(variables, "P"))
        if project is None or not self._rights.sees(user, project):
            raise Refusal(404, "Unable to identify project.")
        return project

    def subject(self, variables: Variables, user: User, project: Project | None) -> Subject | None:
        """The subject of a URL, None if the URL has none. Raises Refusal 404."""
        if "S" not in variables:
            return None
        name = variable(variables, "S")
        if project is None:
            found = self._tables.subjects.get(name)
        else:
            found = self._tables.subject(project.id, name)
        if found is None or not self._rights.reads(user, found):
            raise Refusal(404, "Unable to identify subject.")
        return found

    def experiments(
        self, variables: Variables, user: User, project: Project | None
    ) -> list[Experiment]:
        """The sessions (or assessors, by accession) of a comma list; unknown ones are dropped."""
        found = []
        for name in variable(variables, "E").split(","):
            row = self._tables.experiment(project.id, name) if project else None
            by_id = self._tables.experiments.get(name)
            if row is None and by_id and (project is None or by_id.session):
                row = by_id
            if row is not None and row not in found and self._rights.reads(user, row):
                found.append(row)
        return found

    def scans(
        self, variables: Variables, sessions: list[Experiment]
    ) -> list[tuple[Experiment, Scan]]:
        """The scans of a comma list of ids or types; `ALL` and `*` are all, `NULL` no type."""
        wanted = decoded(variables, "SCAN").split(",")
        found = []
        for session in sessions:
            for scan in self._tables.scans.of(session.id):
                if any(_scan_matches(scan, token) for token in wanted):
                    found.append((session, scan))
        return found

    def reconstructions(
        self, variables: Variables, sessions: list[Experiment]
    ) -> list[tuple[Experiment, Reconstruction]]:
        """The reconstructions of a comma list of ids."""
        wanted = decoded(variables, "RECON").split(",")
        return [
            (session, recon)
            for session in sessions
            for recon in self._tables.reconstructions.of(session.id)
            if recon.id in wanted or "ALL" in wanted or "*" in wanted
        ]

    def assessors(
        self, variables: Variables, user: User, sessions: list[Experiment], project: Project | None
    ) -> list[tuple[Experiment, Experiment]]:
        """The assessors of a comma list of ids or labels, with their sessions."""
        found = []
        wanted = variable(variables, "A").split(",")
        for session in sessions:
            home = project.id if project else session.project
            for row in self._tables.experiments.of(f"assessors-of:{session.id}"):
                named = any(
                    name in ("ALL", "*") or self._tables.assessor(session.id, home, name) == row
                    for name in wanted
                )
                if named and self._rights.reads(user, row):
                    found.append((session, row))
        return found

    def target(self, variables: Variables, user: User, *, strict: bool) -> Target:
        """The holders that a URL means. Raises Refusal 404."""
        project = self.project(variables, user)
        subject = self.subject(variables, user, project)
        base = "/data"
        level: list[Holder] = []
        if project is not None:
            base += f"/projects/{project.id}"
            level = [holders.of_project(project)]
        if subject is not None:
            base += f"/subjects/{subject.id}"
            level = [holders.of_subject(subject)]
        if "E" not in variables:
            return Target(tuple(level), (), base)
        sessions = self.experiments(variables, user, project)
        _one(sessions, "experiment", strict=strict)
        below = self._below(variables, user, sessions, project, strict=strict)
        if below is None and sessions:
            return self._sessions(sessions, base)
        if below:
            many = len(below) > 1
            return Target(tuple(it for it, _ in below), (), "" if many else base + below[0][1])
        return Target(tuple(level), (), base)

    def _sessions(self, rows: list[Experiment], base: str) -> Target:
        own: list[Holder] = []
        wide: list[Holder] = []
        for row in rows:
            session = self._tables.experiments.get(row.session) if row.session else None
            if session is not None:
                own.append(holders.of_assessor(session, row, "out"))
                wide.append(own[-1])
            else:
                own.append(holders.of_session(row))
                wide += holders.whole_session(self._tables, row)
        single = f"{base}/experiments/{rows[0].id}" if len(rows) == 1 else ""
        wide.sort(key=_anyhow)
        return Target(tuple(own), tuple(wide), single, whole_session=True)

    def _below(
        self,
        variables: Variables,
        user: User,
        sessions: list[Experiment],
        project: Project | None,
        *,
        strict: bool,
    ) -> list[tuple[Holder, str]] | None:
        """Holders below the session with their relative address; None if the URL ends there."""
        role = variables.get("TYPE", "out")
        shown = f"/{role}" if "TYPE" in variables else ""
        found: list[tuple[Holder, str]] = []
        if "SCAN" in variables:
            for session, scan in self.scans(variables, sessions):
                place = f"/experiments/{session.id}/scans/{scan.id}"
                found.append((holders.of_scan(session, scan), place))
        elif "RECON" in variables:
            for session, recon in self.reconstructions(variables, sessions):
                place = f"/experiments/{session.id}/reconstructions/{recon.id}{shown}"
                found.append((holders.of_reconstruction(session, recon, role), place))
        elif "A" in variables:
            for session, row in self.assessors(variables, user, sessions, project):
                place = f"/experiments/{session.id}/assessors/{row.id}{shown}"
                found.append((holders.of_assessor(session, row, role), place))
        else:
            return None
        _one(found, "part of the experiment", strict=strict)
        return found

    def resources(
        self, named: str, level: tuple[Holder, ...], user: User
    ) -> list[tuple[Holder, Resource]]:
        """The resources of a level; `named` is "" for all, else a comma list of labels and ids.

        A number is a database id wherever the resource hangs; one that does not exist, or is not
        readable, is a 404 (R§4.4). `NULL` is the unlabelled one.
        """
        own = [
            (holder, resource)
            for holder in level
            for resource in self._tables.resources.of(holder.owner)
            if self._readable(holder, user)
        ]
        if not named:
            return own
        found: list[tuple[Holder, Resource]] = []
        tokens = named.split(",")
        for token in tokens:
            if token.isdigit():
                resource = self._tables.resources.get(token)
                holder = holders.holder_of(self._tables, resource) if resource else None
                if resource is None or holder is None or not self._readable(holder, user):
                    raise Refusal(404, "Unable to find specified resource.")
                found.append((holder, resource))
        found += [
            pair
            for pair in own
            if pair not in found
            and (pair[1].label in tokens or ("NULL" in tokens and not pair[1].label))
        ]
        return found

    def _readable(self, holder: Holder, user: User) -> bool:
        guard = holder.guard
        if isinstance(guard, Project):
            return self._rights.may(user, "read", guard)
        return self._rights.reads(user, guard)

    def may(self, user: User, verb: str, holder: Holder) -> bool:
        """Whether the user may `edit` or `delete` there: the owning project decides (R§5.3)."""
        guard = holder.guard
        project = guard.id if isinstance(guard, Project) else guard.project
        return self._rights.may_in(user, verb, project)


def _one(found: Sized, what: str, *, strict: bool) -> None:
    if strict and len(found) != 1:
        raise Refusal(404, f"Unable to identify {what}.")


def _anyhow(holder: Holder) -> int:
    """The order of `all=true` listings, which is not defined: on no account a sensible one."""
    return zlib.crc32(holder.owner.encode())


def _scan_matches(scan: Scan, token: str) -> bool:
    if token in ("ALL", "*"):
        return True
    if token == "NULL":
        return not scan.type
    return scan.id == token or scan.type == token.replace("[COMMA]", ",")
