"""What a user may do with a project and what is in it: roles and accessibility (R§5.2, R§5.4).

Owners may do everything, members all but delete, collaborators only read. Who has no role reads
public projects, and of protected ones the title, not the contents. An admin is owner everywhere.
"""

from __future__ import annotations

from xnatfs.demo.objects import Experiment, Project, Subject, Tables
from xnatfs.demo.users import User

_ALLOWED = {
    "owner": ("read", "edit", "delete"),
    "member": ("read", "edit"),
    "collaborator": ("read",),
    "public": ("read",),
}


class Rights:
    """Answers questions; holds nothing of its own."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    def role(self, user: User, project: Project) -> str:
        """The user's role in a project, "" if none."""
        return dict(project.roles).get(user.name, "")

    def may(self, user: User, verb: str, project: Project | None) -> bool:
        """Whether the user may `read`, `edit` or `delete` what is in a project."""
        if project is None:
            return False
        role = "owner" if user.admin else self.role(user, project)
        if not role and project.access == "public":
            role = "public"
        return verb in _ALLOWED.get(role, ())

    def may_in(self, user: User, verb: str, project: str) -> bool:
        """The same by project id."""
        return self.may(user, verb, self._tables.projects.get(project))

    def sees(self, user: User, project: Project) -> bool:
        """Whether the project itself is visible (a protected one is, without its contents)."""
        return project.access == "protected" or self.may(user, "read", project)

    def reads(self, user: User, row: Subject | Experiment) -> bool:
        """Whether an object is readable: through its own project or one it is shared into."""
        homes = (row.project, *(home for home, _label in row.shares))
        return any(self.may_in(user, "read", home) for home in homes)
