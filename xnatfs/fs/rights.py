"""May this user do this to this entry? One place, asked before anything is sent.

Three answers come together: what the server permits (a hint from its lists of projects, the
truth from a probe before the first write), what the mount's policy allows, and what this user
made through xnatfs (receipts).
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Protocol

from cachetools import TTLCache

from xnatfs.config import Settings
from xnatfs.errors import NotPermitted, Offline, Protected, ReadOnly
from xnatfs.model.entities import Item
from xnatfs.model.levels import Level
from xnatfs.model.versions import Version
from xnatfs.rest.archive import Archive
from xnatfs.tree.listings import Listings
from xnatfs.tree.node import Node
from xnatfs.upload.receipts import Receipts
from xnatfs.upload.spool import Spool
from xnatfs.waiting import Waiter

# Every look at a file asks for the hint; the lists of projects are looked at this often. Seconds.
_BELIEVED_S = 1.0


class Run(Protocol):
    """Does a request on a worker and waits for it (``Parts.run``)."""

    def __call__(self, work: Callable[[Waiter], bool], what: str, waiter: Waiter) -> bool:
        """Do ``work`` with a waiter of its own; ``what`` names it in errors."""


class Rights:
    """The rights of one user in one mount.

    Threading: ``_mu`` guards the memory of probes; no request is made under it. ``_sets`` is
    replaced entry by entry and may be made twice.
    """

    def __init__(
        self,
        settings: Settings,
        listings: Listings,
        archive: Archive,
        receipts: Receipts,
        spool: Spool,
        run: Run,
    ) -> None:
        self._policy = settings.policy
        self._offline = settings.offline
        self._listings = listings
        self._archive = archive
        self._receipts = receipts
        self._spool = spool
        self._run = run
        # Right → ids of projects, and until when (time.monotonic()) they are not asked for again.
        self._sets: dict[str, tuple[frozenset[str], float]] = {}
        self._believed_s = min(_BELIEVED_S, settings.limits.listing_ttl_s)
        self._mu = threading.Lock()
        self._editable: TTLCache[str, bool] = TTLCache(
            4096, max(settings.limits.metadata_ttl_s, 0.001)
        )

    def seems(self, right: str, node: Node, waiter: Waiter) -> bool:
        """The hint: whether the user has ``right`` ("edit", "delete") in the node's project."""
        if not node.chain or self._policy.read_only or node.item.read_only:
            return False
        known, now = self._sets.get(right), time.monotonic()
        if known is None or now >= known[1]:
            try:
                rows = self._listings.rights(right, waiter)
            except Offline:
                # Nobody asked while there was a network: the server will say.
                return right == "edit"
            known = self._sets[right] = (frozenset().union(*rows), now + self._believed_s)
        return node.chain[0].id in known[0]

    def require_create(self, node: Node, waiter: Waiter) -> None:
        """A new file or folder below ``node`` (a folder inside ``files``), or raise.

        Raises: ReadOnly, NotPermitted.
        """
        self.require_writable(node)
        resource = node.resource
        if self._offline:
            may = self.seems("edit", node, waiter)
        else:
            may = resource is None or self._may_edit(resource, waiter)
        if not may:
            self._deny("edit", node)

    def require_change(self, node: Node, version: Version, waiter: Waiter) -> None:
        """Change the content of a file that the server has, or raise.

        Raises: ReadOnly, NotPermitted, Protected.
        """
        self.require_create(node, waiter)
        if not self.may_change(version):
            raise Protected(
                f"{node.path} was not made by you through xnatfs: "
                "changing it needs --allow-overwrite"
            )

    def require_remove(self, node: Node, version: Version, waiter: Waiter) -> None:
        """Remove a file that the server has, or raise.

        Raises: ReadOnly, NotPermitted, Protected, Offline.
        """
        self.require_writable(node)
        if self._offline:
            raise Offline(f"{node.path}: nothing is removed from the server without a network")
        if not self.seems("delete", node, waiter):
            self._deny("delete", node)
        if not (self._policy.allow_delete or self.is_own(version)):
            raise Protected(
                f"{node.path} was not made by you through xnatfs: removing it needs --allow-delete"
            )

    def require_creation(self, level: Level, node: Node, name: str) -> None:
        """Our own policy lets objects of a level be made, or raise.

        Raises: Protected.
        """
        if not self._policy.allow_create:
            raise Protected(f"{node.path}/{name}: making a {level.name} needs --allow-create")

    def made(self, resource: Item) -> None:
        """Remember that this user made the resource: no probe is needed."""
        with self._mu:
            self._editable[resource.address] = True

    def may_change(self, version: Version) -> bool:
        """Whether our own policy lets a file that the server has be changed."""
        return self._policy.allow_overwrite or self.is_own(version)

    def is_own(self, version: Version) -> bool:
        """Whether the server still holds exactly what this user put there.

        What has just arrived is in the spool until its receipt is written: in this order.
        """
        return self._spool.holds(version) or self._receipts.holds(
            version.resource_id, version.path, version.digest, version.size, version.modified
        )

    def require_writable(self, node: Node) -> None:
        """Nothing on our side forbids a change there; the server has its own say.

        Raises: ReadOnly.
        """
        if self._policy.read_only:
            raise ReadOnly(f"{node.path}: the mount is read-only")
        if node.item.read_only:
            raise ReadOnly(f"{node.path}: what an assessor was made from is read-only")

    def _may_edit(self, resource: Item, waiter: Waiter) -> bool:
        with self._mu:
            known = self._editable.get(resource.address)
        if known is None:
            known = self._run(
                lambda worker: self._archive.may_edit(resource, worker),
                f"the rights in {resource.label or resource.id}",
                waiter,
            )
            with self._mu:
                self._editable[resource.address] = known
        return known

    def _deny(self, right: str, node: Node) -> None:
        project = node.chain[0].id if node.chain else "the archive"
        raise NotPermitted(f"{node.path}: the server does not let you {right} in project {project}")
