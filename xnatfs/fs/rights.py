"""May this user do this to this entry? One place, asked before anything is sent.

Three answers come together: what the server permits (a hint from its lists of projects, the
truth from a probe before the first write), what the mount's policy allows, and what this user
made through xnatfs (receipts).
"""

from __future__ import annotations

import threading

from cachetools import TTLCache

from xnatfs.config import Limits, Policy
from xnatfs.errors import NotPermitted, Protected, ReadOnly
from xnatfs.model.entities import Item
from xnatfs.model.versions import Version
from xnatfs.rest.archive import Archive
from xnatfs.tree.listings import Listings
from xnatfs.tree.namespace import Node
from xnatfs.upload.receipts import Receipts
from xnatfs.waiting import Waiter, Workers


class Rights:
    """The rights of one user in one mount.

    Threading: ``_mu`` guards the memory of probes; no request is made under it.
    """

    def __init__(
        self,
        policy: Policy,
        listings: Listings,
        archive: Archive,
        receipts: Receipts,
        workers: Workers,
        limits: Limits,
    ) -> None:
        self._policy = policy
        self._listings = listings
        self._archive = archive
        self._receipts = receipts
        self._workers = workers
        self._mu = threading.Lock()
        self._editable: TTLCache[str, bool] = TTLCache(4096, max(limits.metadata_ttl_s, 0.001))

    def seems(self, right: str, node: Node, waiter: Waiter) -> bool:
        """The hint: whether the user has ``right`` ("edit", "delete") in the node's project."""
        if not node.chain or self._policy.read_only or node.item.read_only:
            return False
        return node.chain[0].id in self._listings.rights(right, waiter)

    def require_create(self, node: Node, waiter: Waiter) -> None:
        """A new file or folder below ``node`` (a folder inside ``files``), or raise.

        Raises: ReadOnly, NotPermitted.
        """
        self._require_writable(node)
        resource = node.resource
        if resource is not None and not self._may_edit(resource, waiter):
            self._deny("edit", node)

    def require_make_resource(self, node: Node, waiter: Waiter) -> None:
        """A new resource in ``node`` (a ``resources`` folder), or raise.

        The server's own answer to the folder PUT is the truth; this only spares the request
        where no listing leaves a doubt.
        """
        self._require_writable(node)

    def require_change(self, node: Node, version: Version, waiter: Waiter) -> None:
        """Change the content of a file that the server has, or raise.

        Raises: ReadOnly, NotPermitted, Protected.
        """
        self.require_create(node, waiter)
        if not (self._policy.allow_overwrite or self.is_own(version)):
            raise Protected(
                f"{node.path} was not made by you through xnatfs: "
                "changing it needs --allow-overwrite"
            )

    def require_remove(self, node: Node, version: Version, waiter: Waiter) -> None:
        """Remove a file that the server has, or raise.

        Raises: ReadOnly, NotPermitted, Protected.
        """
        self._require_writable(node)
        if not self.seems("delete", node, waiter):
            self._deny("delete", node)
        if not (self._policy.allow_delete or self.is_own(version)):
            raise Protected(
                f"{node.path} was not made by you through xnatfs: removing it needs --allow-delete"
            )

    def is_own(self, version: Version) -> bool:
        """Whether the server still holds exactly what this user put there."""
        return self._receipts.holds(
            version.resource_id, version.path, version.digest, version.size, version.modified
        )

    def _require_writable(self, node: Node) -> None:
        if self._policy.read_only:
            raise ReadOnly(f"{node.path}: the mount is read-only")
        if node.item.read_only:
            raise ReadOnly(f"{node.path}: what an assessor was made from is read-only")

    def _may_edit(self, resource: Item, waiter: Waiter) -> bool:
        with self._mu:
            known = self._editable.get(resource.address)
        if known is None:
            work = self._workers.submit(
                self._archive.may_edit, resource, Waiter(total_s=waiter.remaining())
            )
            known = waiter.result(work, f"the rights in {resource.label or resource.id}")
            with self._mu:
                self._editable[resource.address] = known
        return known

    def _deny(self, right: str, node: Node) -> None:
        project = node.chain[0].id if node.chain else "the archive"
        raise NotPermitted(f"{node.path}: the server does not let you {right} in project {project}")
