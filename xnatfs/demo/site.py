"""A site: the parts that every room behind the front shares, opened over one root directory."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from xnatfs.demo.addresses import Addresses
from xnatfs.demo.archive import Archive
from xnatfs.demo.database import Rows
from xnatfs.demo.objects import Tables
from xnatfs.demo.order import Order, Ordered
from xnatfs.demo.rights import Rights
from xnatfs.demo.users import TOKEN_LIFE_S, Accounts, Sessions


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
    # Seconds after which an alias token is said to end (R§6).
    token_life_s: float = TOKEN_LIFE_S
    # Seconds that reading a catalog takes per entry (R§3.3).
    entry_cost_s: float = 0.0
    # Everything answers with the maintenance page.
    maintenance: bool = False
    # Data that is there without having been stored; None: what the archive was opened with first.
    order: Order | None = None


@dataclass(frozen=True, slots=True)
class Site:
    """What all handlers work on."""

    options: SiteOptions
    tables: Tables
    rights: Rights
    archive: Archive
    addresses: Addresses
    accounts: Accounts
    sessions: Sessions

    def close(self) -> None:
        """Close the database."""
        self.tables.close()


def _ordered(tables: Tables, order: Order | None) -> Ordered | None:
    """The data on order, which stays that of the first time."""
    orders: Rows[Order] = Rows(tables.database, Order, "order", lambda _order: "order")
    kept = orders.get("order") or (order and orders.put(order))
    if order not in (None, kept):
        raise FileExistsError(f"this archive was made with another order: {kept}")
    if kept is None:
        return None
    ordered = Ordered(kept)
    ordered.plant(tables)
    return ordered


def open_site(root: Path, options: SiteOptions) -> Site:
    """Open the archive below `root`, empty if there is none. Raises OSError."""
    root.mkdir(parents=True, exist_ok=True)
    tables = Tables(root / "objects.sqlite")
    rights = Rights(tables)
    archive = Archive(
        root,
        tables,
        checksums=options.checksums,
        entry_cost_s=options.entry_cost_s,
        ordered=_ordered(tables, options.order),
    )
    return Site(
        options,
        tables,
        rights,
        archive,
        Addresses(tables, rights),
        Accounts(tables.database, options.token_life_s),
        Sessions(options.session_idle_s, options.max_sessions),
    )
