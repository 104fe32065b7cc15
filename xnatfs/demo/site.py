"""A site: the parts that every handler works on, opened over one directory, and its rights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xnatfs.demo.archive import Archive
from xnatfs.demo.objects import Object, Tables
from xnatfs.demo.order import Order, Ordered
from xnatfs.demo.rows import Rows
from xnatfs.demo.users import Accounts, Sessions, User


@dataclass(frozen=True, slots=True, kw_only=True)
class SiteOptions:
    """How a site behaves; the defaults are those of a stock XNAT."""

    # Without login: closed sites answer 401, open ones let a guest in (R§6).
    open_site: bool = False
    # Changes without `event_reason` are refused, as hospitals want it.
    require_reason: bool = False
    # MD5s are computed when a file is stored (site preference `checksums`, R§7).
    checksums: bool = True
    # Seconds after which an unused session is gone (R§6).
    session_idle_s: float = 900.0
    # Sessions that a user may have at once; more are refused with 401 (R§6).
    max_sessions: int = 1000
    # Seconds after which an alias token is said to end (site preference aliasTokenTimeout, R§6).
    token_life_s: float = 2 * 24 * 3600.0
    # Seconds that reading a catalog takes per entry (R§3.3).
    entry_cost_s: float = 0.0
    # Everything answers with the maintenance page.
    maintenance: bool = False
    # "" or a path like "/xnat" below which everything lies.
    context_path: str = ""
    # Data that is there without having been stored; None: what the archive was opened with first.
    order: Order | None = None


ROLES = ("owner", "member", "collaborator")
# What a role may do (R§5.2, R§5.4). Who has none reads public projects, and of protected ones
# the title, not the contents. An admin is owner everywhere.
_ALLOWED = {
    "owner": ("read", "edit", "delete", "activate"),
    "member": ("read", "edit"),
    "collaborator": ("read",),
    "public": ("read",),
}


@dataclass(frozen=True, slots=True)
class Site:
    """What all handlers work on."""

    options: SiteOptions
    tables: Tables
    archive: Archive
    accounts: Accounts
    sessions: Sessions

    def close(self) -> None:
        """Close the journal."""
        self.tables.journal.close()

    def may(self, user: User, verb: str, project_id: str) -> bool:
        """Whether the user may `read`, `edit`, `delete` or `activate` what is in a project."""
        project = self.tables.objects.get(f"project:{project_id}")
        if project is None:
            return False
        role = "owner" if user.admin else dict(project.roles).get(user.name)
        return verb in _ALLOWED.get(role or project.field("access"), ())

    def sees(self, user: User, project: Object) -> bool:
        """Whether the project itself is visible (a protected one is, without its contents)."""
        return project.field("access") == "protected" or self.may(user, "read", project.id)

    def reads(self, user: User, row: Object) -> bool:
        """Whether an object is readable: through its own project or one it is shared into.

        One in quarantine only is for those who may end that (R§5.3).
        """
        needed = "activate" if row.quarantined else "read"
        return any(self.may(user, needed, home) for home in row.homes)


def _ordered(tables: Tables, order: Order | None) -> Ordered | None:
    """The data on order, which stays that of the first time."""
    orders: Rows[Order] = Rows(tables.journal, Order, "order", lambda _order: "order")
    kept = orders.get("order") or (order and orders.put(order))
    if order not in (None, kept):
        tables.journal.close()
        raise FileExistsError(f"this archive was made with another order: {kept}")
    if kept is None:
        return None
    ordered = Ordered(kept)
    ordered.plant(tables)
    return ordered


def open_site(root: Path, options: SiteOptions) -> Site:
    """Open the archive below `root`, empty if there is none. Raises OSError."""
    root.mkdir(parents=True, exist_ok=True)
    tables = Tables(root / "objects.jsonl")
    archive = Archive(
        root, tables, checksums=options.checksums, entry_cost_s=options.entry_cost_s,
        ordered=_ordered(tables, options.order),
    )  # fmt: skip
    accounts = Accounts(tables.journal, options.token_life_s)
    sessions = Sessions(options.session_idle_s, options.max_sessions)
    return Site(options, tables, archive, accounts, sessions)
