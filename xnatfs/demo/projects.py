"""One project: GET, PUT, settings, DELETE (R§5.3)."""

from __future__ import annotations

import shutil
from dataclasses import replace

from xnatfs.demo import holders, items, tables
from xnatfs.demo.addresses import variable
from xnatfs.demo.objects import Project, timestamp
from xnatfs.demo.removal import Removal
from xnatfs.demo.routes import Call
from xnatfs.demo.single import Single
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Refusal, Reply, Request, text


class Projects:
    """Answers for `/projects/P`."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._rows = site.tables
        self._single = Single(site)
        self._removal = Removal(site)

    def get(self, call: Call) -> Reply:
        """A project; a tail behind it is 400 (R§1.1)."""
        project = self._site.addresses.project(call.variables, call.request.user)
        if project is not None and call.tail.strip("/") == "users":
            return self._users(project, call.request)
        if call.tail.strip("/") or project is None:
            raise Refusal(400)
        return items.reply(items.project_item(project), call.request)

    def _users(self, project: Project, request: Request) -> Reply:
        """The project's users with their groups."""
        names = ("GROUP_ID", "displayname", "login", "firstname", "lastname", "email")
        cells = (
            (f"{project.id}_{role}", f"{role.capitalize()}s", name, name, name, f"{name}@localhost")
            for name, role in project.roles
        )
        rows = (dict(zip(names, them, strict=True)) for them in cells)
        return tables.render(tables.counted(names, rows), request)

    def put(self, call: Call) -> Reply:
        """Make or change a project; its maker becomes owner."""
        request, query = call.request, call.request.query
        if call.tail.strip("/"):
            return self._project_setting(call)
        name = variable(call.variables, "P")
        if not name.replace("_", "").replace("-", "").isalnum() or not name.isascii():
            raise Refusal(417, "Invalid characters in project id.")
        if request.user.guest:
            raise Refusal(403)
        with self._rows.lock:
            known = self._rows.project(name)
            if known is not None and not self._site.rights.may(request.user, "delete", known):
                raise Refusal(403)
            project = known or Project(
                id=name, name=name, secondary_id=name, insert_user=request.user.name,
                insert_date=timestamp(), roles=((request.user.name, "owner"),),
            )  # fmt: skip
            alias = query.get("alias")
            self._rows.projects.put(
                replace(
                    project,
                    name=query.get("name") or project.name,
                    description=query.get("description") or project.description,
                    access=query.get("accessibility") or project.access,
                    aliases=tuple(dict.fromkeys((*project.aliases, *([alias] if alias else ())))),
                )
            )
        return text("")

    def _project_setting(self, call: Call) -> Reply:
        """`accessibility/LEVEL`, `users/ROLE/NAME` and `prearchive_code/N` below a project."""
        project = self._site.addresses.project(call.variables, call.request.user)
        kind, *rest = call.tail.strip("/").split("/")
        if project is None or not self._site.rights.may(call.request.user, "delete", project):
            raise Refusal(403)
        if kind == "accessibility" and rest:
            self._rows.projects.put(replace(project, access=rest[0]))
        elif kind == "users" and len(rest) == 2:
            role = rest[0].lower().rstrip("s")
            kept = tuple(pair for pair in project.roles if pair[0] != rest[1])
            self._rows.projects.put(replace(project, roles=(*kept, (rest[1], role))))
        elif kind != "prearchive_code":
            raise Refusal(400)
        return text("")

    def delete(self, call: Call) -> Reply:
        """Remove a project with everything in it."""
        user = call.request.user
        project = self._rows.project(variable(call.variables, "P"))
        if call.tail.strip("/") or project is None:
            raise Refusal(400)
        if not self._site.rights.may(user, "delete", project):
            raise Refusal(403)
        for subject in self._rows.subjects.of(f"in:{project.id}"):
            if subject.project == project.id:
                self._removal.subject(subject)
        self._site.archive.remove_holders([holders.of_project(project)])
        shutil.rmtree(self._site.archive.root / f"archive/{project.id}", ignore_errors=True)
        self._rows.projects.drop(project.id)
        return text("")
