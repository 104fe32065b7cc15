"""The archive: what it holds, level by level, and the small changes (folders, deletes).

Every address and column comes from ``model.levels``; every listing is checked before it is
believed (R§1.4, R§2). File contents travel in ``transfer``.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from urllib.parse import unquote

from xnatfs.errors import AlreadyExists, BadName, BadReply, NotFound, NotPermitted
from xnatfs.model.entities import Head, Item, RemoteFile
from xnatfs.model.levels import EXPERIMENT, LEVELS, PROJECT, RESOURCE, Level
from xnatfs.rest import addresses, deletes, many, replies
from xnatfs.rest.listing import item_of, listing, made
from xnatfs.rest.repeats import failed
from xnatfs.rest.session import Expects, Session
from xnatfs.waiting import Waiter

log = logging.getLogger(__name__)

# Characters of ids in one comma list; with the rest it stays below 8 KB of headers (R§12.12).
ID_LIST_MAX = 3000

# Bytes that the files of a session may take as one listing: some 40,000 of them.
_MOST_AT_ONCE = 16 << 20

_CATEGORIES = {level.category: level for level in LEVELS if level.category}


class Archive:
    """Listings and small changes of one archive.

    Args:
        session: an open session.
        reason: ``event_reason`` of every change; hospitals refuse changes without one.

    Threading: holds no state that changes; any number of threads.
    """

    def __init__(self, session: Session, reason: str) -> None:
        self._session = session
        self._reason = reason

    # -- listings --------------------------------------------------------------------------

    def items(self, level: Level, parent: Item | None, waiter: Waiter) -> list[Item]:
        """All objects of a level, as one listing shows them, in its order.

        Args:
            level: which level; not the resource's (``resources``).
            parent: the object at ``level.listed_at``; None for projects.
            waiter: limits of the wait.

        Returns:
            the items; for experiments all of the project's, whose ``parent_column`` tells
            the subject.

        Raises: NotFound, BadReply and those of ``Session.request``.
        """
        address = (parent.address if parent is not None else "") + level.listing
        rows = self._rows(address, _columns(level), waiter)
        return [item_of(level, parent, row, address) for row in rows]

    def experiments(self, waiter: Waiter) -> list[Item]:
        """Every session that this user can see, in whatever project (not the assessors)."""
        # The archive's list of experiments has the assessors too; the type leaves them out.
        params = {**_columns(EXPERIMENT), "xsiType": "xnat:subjectAssessorData"}
        rows = self._rows(EXPERIMENT.listing, params, waiter)
        mine = [row for row in rows if row.get(EXPERIMENT.parent_column)]
        return [item_of(EXPERIMENT, None, row, EXPERIMENT.listing) for row in mine]

    def held_by(
        self, level: Level, holders: Sequence[Item], waiter: Waiter
    ) -> dict[str, list[Item]]:
        """As ``many.held_by``."""
        return many.held_by(self._session, level, holders, waiter)

    def resources(self, parent: Item, waiter: Waiter) -> list[Item]:
        """The resources of an object, in the order of the listing.

        Args:
            parent: a project or subject (its own resources), or an experiment (all below it in
                one request; ``category`` and ``cat_id`` of the cells tell whose each is, R§2.6).
            waiter: limits of the wait.

        Raises: NotFound, BadReply and those of ``Session.request``.
        """
        address = parent.address + RESOURCE.listing
        all_levels = any(
            level.resources_at == parent.level.name and level is not parent.level
            for level in LEVELS
        )
        params = {"all": "true"} if all_levels else {}
        items = []
        for row in self._rows(address, params, waiter):
            owner = self._owner(parent, row, address) if all_levels else parent.address
            if owner:
                items.append(self._resource(owner, row, address))
        return items

    def _owner(self, parent: Item, row: Mapping[str, str], what: str) -> str:
        """The address of the object that a row of ``resources?all=true`` belongs to."""
        category, id_ = row.get("category", ""), row.get("cat_id", "")
        level = _CATEGORIES.get(category)
        if level is None and not category:
            level = parent.level
        if level is None:
            log.warning("GET %s: resources of an unknown kind are left out: %r", what, category)
            return ""
        if level is parent.level:
            return parent.address
        if not id_:
            raise BadReply(f"GET {what}: a resource of {category} without an id")
        return addresses.object_address(level, id_, parent.address)

    def _resource(self, owner: str, row: Mapping[str, str], what: str) -> Item:
        id_ = row.get(RESOURCE.key, "")
        if not id_.isdecimal():
            raise BadReply(f"GET {what}: a resource without a number")
        return Item(
            level=RESOURCE,
            id=id_,
            label=row.get(RESOURCE.label, ""),
            address=addresses.object_address(RESOURCE, id_, owner),
            cells=row,
        )

    def input_resources(
        self, session: Item, level: Level, ids: Sequence[str], waiter: Waiter
    ) -> list[Item]:
        """The ``in`` resources of assessors or reconstructions, which are read only.

        Args:
            session: the experiment.
            level: ASSESSOR or RECONSTRUCTION.
            ids: of the objects; those that no address carries are left out.
            waiter: limits of the wait.

        Returns:
            the resources; ``cat_id`` of the cells tells whose each is.

        Raises: BadReply and those of ``Session.request``.
        """
        items = []
        for listed in _comma_lists(ids):
            many = ",".join(addresses.segment(id_) for id_ in listed)
            address = f"{session.address}/{level.collection}/{many}/in{RESOURCE.listing}"
            try:
                rows = self._rows(address, {}, waiter)
            except NotFound:
                # All of them are gone; the next listing of the session shows it.
                continue
            for row in rows:
                # R§1.4: for ids that are gone the rows of the session come instead.
                if row.get("category") != level.category:
                    continue
                id_ = row.get("cat_id", "") or (listed[0] if len(listed) == 1 else "")
                if id_ not in listed:
                    raise BadReply(f"GET {address}: the listing has resources of {id_!r}")
                owner = addresses.object_address(level, id_, session.address)
                items.append(self._resource(f"{owner}/in", row, address))
        return items

    def files(self, resource: Item, waiter: Waiter) -> list[RemoteFile]:
        """All files of a resource, in the order of its catalog.

        Raises: NotFound, BadReply and those of ``Session.request``.
        """
        address = f"{resource.address}/files"
        owner = resource.address.removesuffix(f"{RESOURCE.listing}/{resource.id}")
        owner = owner.removesuffix("/in").rsplit("/", 1)[-1]
        owner_id = unquote(owner, errors="surrogatepass").replace("[SLASH]", "/")
        return self._files(address, {}, resource.id, owner_id, waiter)

    def session_files(self, experiments: Sequence[Item], waiter: Waiter) -> list[RemoteFile]:
        """All files of all resources of sessions in one request, except ``in`` ones (R§1.3).

        Of several sessions the server leaves out those that are gone without a word.

        Raises: NotFound, BadReply (also when there are too many for one request) and those of
            ``Session.request``.
        """
        ids = ",".join(addresses.segment(experiment.id) for experiment in experiments)
        address = f"{EXPERIMENT.address.replace('{id}', ids)}/files"
        return self._files(address, {"all": "true"}, "", "", waiter, _MOST_AT_ONCE)

    def _files(
        self,
        address: str,
        params: Mapping[str, str],
        resource_id: str,
        owner: str,
        waiter: Waiter,
        most: int | None = None,
    ) -> list[RemoteFile]:
        what = f"GET {address}"

        def make(cells: replies.Cells) -> RemoteFile:
            return replies.remote_file(cells, resource_id, owner, what)

        return made(self._session, address, params, waiter, RemoteFile, make, most)

    def head(self, resource: Item, path: str, waiter: Waiter) -> Head:
        """Size and Last-Modified of one file, by HEAD.

        Raises: NotFound, BadName, BadReply and those of ``Session.request``.
        """
        address = f"{resource.address}/files/{addresses.readable(path)}"
        reply = self._session.request("HEAD", address, waiter=waiter, expects=Expects.FILE)
        if reply.status != 200:
            raise failed(reply)
        if replies.is_html(reply.header("Content-Type"), b"") and not reply.header(
            "Content-Disposition"
        ):
            raise BadReply(f"HEAD {address}: a web page instead of a file")
        length = reply.header("Content-Length")
        return Head(
            size=int(length) if length.isdecimal() else None,
            modified=reply.header("Last-Modified"),
        )

    def _rows(
        self, address: str, params: Mapping[str, str], waiter: Waiter
    ) -> list[dict[str, str]]:
        return listing(self._session, address, params, waiter)

    # -- rights ----------------------------------------------------------------------------

    def projects_where(self, right: str, on: str, waiter: Waiter) -> list[str]:
        """Ids of the projects in which this user has a right (R§10.7).

        Args:
            right: ``edit`` or ``delete``.
            on: ``projects``: on the project itself, which only owners have; ``sessions``: on
                sessions in it, which members have too.
            waiter: limits of the wait.
        """
        query = {
            "projects": {"restrict": right},
            "sessions": {"permissions": right, "dataType": "xnat:mrSessionData"},
        }[on]
        rows = self._rows(PROJECT.listing, query, waiter)
        return sorted({row[PROJECT.key] for row in rows if row.get(PROJECT.key)})

    def may_edit(self, resource: Item, waiter: Waiter) -> bool:
        """Whether the server lets this user write into a resource; changes nothing.

        PUT of a folder that exists is 409 for who may edit and 403 for who may not (R§10.7). By
        its label; by its number where the label cannot be sent, or is not the only one.

        Raises: NotFound when it is gone, and those of ``Session.request``.
        """
        # PUT of a label that is gone would make the folder again, in the place of a question.
        self.files(resource, waiter)
        by_label = f"{resource.address.rpartition('/')[0]}/{resource.label}"
        try:
            addresses.check_new_label(resource.label)
        except BadName:
            tries = [resource.address]
        else:
            tries = [by_label, resource.address]
        for address in tries:
            reply = self._session.request("PUT", address, waiter=waiter)
            if reply.status in (403, 409):
                return reply.status == 409
            if reply.status != 404:
                break
        raise failed(reply)

    # -- changes ---------------------------------------------------------------------------

    def create_resource(self, parent: Item, label: str, waiter: Waiter) -> None:
        """Make a resource folder (R§5.1).

        Raises: BadName before anything is sent; AlreadyExists, NotPermitted, NotFound;
            TransferBroken, TimedOut, ServerFault, ServerBusy: it may have been made.
        """
        addresses.check_new_label(label)
        address = f"{parent.address}{RESOURCE.listing}/{label}"
        reply = self._session.request("PUT", address, params=self._event(), waiter=waiter)
        if reply.status == 409:
            raise AlreadyExists(f"{label}: there is such a resource already")
        if reply.status not in (200, 201):
            raise failed(reply)

    def create(
        self, level: Level, label: str, parent: Item, project: Item, type_: str, waiter: Waiter
    ) -> None:
        """Make a subject, session or scan; the caller has seen that there is none (R§5.3).

        A scan has its id as ``label``; ``type_`` is "" where the level has but one data type.

        Raises: as ``create_resource``.
        """
        addresses.check_new_object(label)
        address = addresses.new_address(level, label, project.address, parent.address)
        params = {**({"xsiType": type_} if type_ else {}), **self._event()}
        reply = self._session.request("PUT", address, params=params, waiter=waiter)
        # Subjects and sessions: 201 when it is new. Scans: 200 always, 409 for one of another
        # type.
        if reply.status == 409 or (reply.status == 200 and reply.content.strip()):
            raise AlreadyExists(f"{label}: there is such a {level.name} already")
        if reply.status not in (200, 201):
            raise failed(reply)

    def delete_file(
        self, resource: Item, path: str, listing: Sequence[RemoteFile], waiter: Waiter
    ) -> None:
        """Delete exactly one file; the caller looks into a listing afterwards.

        Args:
            resource: whose file.
            path: as the listing has it.
            listing: a fresh listing of the resource, all of it.
            waiter: limits of the wait.

        Raises: NotFound; BadName when no request selects exactly this file (R§5.2);
            NotPermitted; TransferBroken, TimedOut, ServerFault, ServerBusy: it may be gone.
        """
        keys = [row.path for row in listing if row.resource_id == resource.id]
        address = f"{resource.address}/files/{deletes.selector(path, keys)}"
        self._delete(address, waiter)

    def delete_resource(self, resource: Item, waiter: Waiter) -> None:
        """Delete a resource with all its files.

        Raises: NotPermitted, NotFound, those of ``Session.request``; ServerFault when the
            server says that it did not work in whole (R§5.1).
        """
        self._delete(resource.address, waiter)

    def _delete(self, address: str, waiter: Waiter) -> None:
        reply = self._session.request("DELETE", address, params=self._event(), waiter=waiter)
        if reply.status == 400:
            raise NotFound(f"{reply.what}: the resource is not there any more")
        if reply.status == 403:
            raise NotPermitted(
                f"{unquote(address)}: user {self._session.user!r} may not delete here"
            )
        if reply.status != 200:
            raise failed(reply)

    def _event(self) -> dict[str, str]:
        return event(self._session, self._reason)


def event(session: Session, reason: str) -> dict[str, str]:
    """The parameters that tell the server's record why and from where a change was made."""
    return {"event_reason": reason, "event_comment": f"xnatfs on {session.place}"}


def _columns(level: Level) -> dict[str, str]:
    return {"columns": ",".join(level.columns)} if level.columns else {}


def _comma_lists(ids: Sequence[str]) -> Iterator[list[str]]:
    """Parts of the ids whose comma list fits into an address."""
    part: list[str] = []
    length = 0
    for id_ in ids:
        encoded = addresses.segment(id_)
        if not addresses.is_sendable(encoded):
            continue
        if part and length + len(encoded) > ID_LIST_MAX:
            yield part
            part, length = [], 0
        part.append(id_)
        length += len(encoded) + 1
    if part:
        yield part
