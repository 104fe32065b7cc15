"""The server's listings, cached: asked once, shared by all who wait, corrected by our own changes.

Those who wait are threads of this process, and by the records on disk (``Shelf``) the processes
of one account. ``namespace`` builds names from them. Nothing here knows file names or FUSE.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from typing import cast

from xnatfs.config import Limits
from xnatfs.errors import BadReply
from xnatfs.model.entities import Item, RemoteFile
from xnatfs.model.levels import BY_COLLECTION, PROJECT, RESOURCE, Level
from xnatfs.rest import many
from xnatfs.rest.archive import Archive
from xnatfs.tree.asking import Asking, Question
from xnatfs.tree.catalog import file_count
from xnatfs.tree.held import FileListing, Listing
from xnatfs.tree.sharing import Key, Sharing, Told
from xnatfs.tree.sheets import FILES, RIGHTS, SESSION
from xnatfs.waiting import Waiter, Workers

log = logging.getLogger(__name__)

# A session with at most this many files is listed whole in one request (R§1.3). The server reads
# every catalog of the session for it, so beyond that each resource is asked on its own.
WHOLE_SESSION_FILES = 20_000

# On what a right may be; each is a listing (R§10.7).
_RIGHTS_ON = ("projects", "sessions")


class Listings:
    """Cached listings of one archive.

    Args:
        archive: whom to ask.
        workers: the threads that ask.
        limits: ages and patience.
        sharing: with the other processes of the account.

    Threading: holds no state of its own.
    """

    def __init__(
        self, archive: Archive, workers: Workers, limits: Limits, sharing: Sharing
    ) -> None:
        self._archive = archive
        self._sharing = sharing
        self._asking = Asking(workers, limits, sharing)
        self._held = self._asking.held

    @property
    def changes(self) -> int:
        """Grows with every listing that comes or is forgotten."""
        return self._held.changes

    # -- what can be asked

    def items(
        self, level: Level, at: Item | None, waiter: Waiter, not_before: float = 0.0
    ) -> Listing[Item]:
        """All objects of ``level`` in the listing of ``at`` (the row's ``listed_at`` object).

        Args:
            level: the row of the levels table.
            at: the object asked; None for the archive.
            waiter: the limits of the caller's wait.
            not_before: time.monotonic() at which the listing may have been asked at the earliest.
        """
        return self._listing(self._objects(level, at), waiter, not_before)

    def experiments(self, waiter: Waiter, not_before: float = 0.0) -> Listing[Item]:
        """Every session that the user may see, in all projects."""
        key = Key("experiments", "")
        question = Question(key, self._archive.experiments, "all experiments")
        return self._listing(question, waiter, not_before)

    def resources(self, at: Item, waiter: Waiter, not_before: float = 0.0) -> Listing[Item]:
        """The resources of ``at``; of a session with all that lies below it."""
        return self._listing(self._resources(at), waiter, not_before)

    def inputs(self, session: Item, owner: Item, waiter: Waiter) -> Listing[Item]:
        """The ``in`` resources of an assessor or reconstruction of a session."""
        question = Question(
            Key("inputs", owner.address),
            partial(self._archive.input_resources, session, owner.level, [owner.id]),
            f"the inputs of {owner.label or owner.id}",
        )
        return self._listing(question, waiter)

    def files(
        self,
        resource: Item,
        session: Item | None,
        waiter: Waiter,
        not_before: float = 0.0,
    ) -> FileListing:
        """The files of a resource.

        Args:
            resource: whose files.
            session: the session that it lies in, if any; its resources are then listed together
                as long as they are few.
            waiter: the limits of the caller's wait.
            not_before: as with ``items``.
        """
        key = Key(FILES, resource.address)
        ask = partial(self._archive.files, resource)
        question = Question(key, ask, f"the files of {resource.label or resource.id}")
        known = self._held.get(key)
        if isinstance(known, FileListing) and known.asked >= not_before:
            self._asking.renew(known, question)
            return known
        # Offline a resource's own listing may know more than the session's.
        alone = self._sharing.offline and self._sharing.has(key)
        if not not_before and session is not None and not alone:
            resources = self.resources(session, waiter).rows
            if file_count(resources) <= WHOLE_SESSION_FILES and resource in resources:
                whole = self._session(session)
                try:
                    self._asking.get(whole, waiter)
                except BadReply as error:
                    log.info("%s cannot be listed at once: %s", whole.what, error)
        return cast("FileListing", self._asking.get(question, waiter, not_before))

    def rights(self, right: str, waiter: Waiter) -> tuple[tuple[str, ...], ...]:
        """Ids of the projects where the user has ``right`` ("edit" or "delete"): a hint.

        The same tuples as long as they are the same listings.
        """
        questions = [self._rights(right, on) for on in _RIGHTS_ON]
        asked = [self._asking.begin(question) for question in questions]
        return tuple(self._asking.wait(one, waiter, "the rights").rows for one in asked)

    # -- ahead of who will want it; nothing here waits

    def warm_up(self) -> None:
        """Ask for what the first look at anything needs."""
        for question in (
            self._objects(PROJECT, None),
            *(self._rights("edit", on) for on in _RIGHTS_ON),
        ):
            self._asking.begin(question)

    def foresee(self, item: Item) -> None:
        """Ask for what is asked next when a path leads through ``item``."""
        for collection in item.level.walked:
            self._asking.begin(self._question(collection, item))

    def foresee_files(self, session: Item) -> None:
        """Ask for the files of a session, of which nobody knows yet how many there are."""
        self._asking.begin(self._session(session))

    def foresee_many(self, collection: str, objects: Sequence[Item]) -> None:
        """Ask for what several objects of one level hold.

        In one request where the answer leaves no doubt whose everything is (R§1.3).

        Args:
            collection: as in ``Level.holds``; FILES: the files of sessions, as far as their
                resources are known and have few files.
            objects: in the order in which they will be wanted.
        """
        questions = [self._question(collection, item) for item in objects]
        level = BY_COLLECTION.get(collection)
        if level is None:
            self._foresee_sessions(objects)
        elif many.is_asked(level, objects[0].level):
            held_by = partial(self._archive.held_by, level, objects)
            self._asking.begin_many(questions, held_by)
        else:
            for question in questions:
                self._asking.begin(question)

    def _foresee_sessions(self, sessions: Sequence[Item]) -> None:
        left = WHOLE_SESSION_FILES
        asked: dict[str, tuple[Item, Sequence[Item]]] = {}
        for session in sessions:
            resources = self._held.get(Key("resources", session.address))
            if isinstance(resources, Listing) and (files := file_count(resources.rows)) <= left:
                left -= files
                asked[session.address] = (session, resources.rows)
        ask = partial(self._whole_sessions, asked)
        self._asking.begin_many([self._session(session) for session, _ in asked.values()], ask)

    def missing(self, collection: str, objects: Sequence[Item]) -> list[Item]:
        """Those of which a collection is not known, nor on its way, and can be asked for."""
        found = [
            item
            for item in objects
            if not self._asking.is_begun(self._question(collection, item).key)
        ]
        if collection == FILES:
            # How many files there are is told by the resources.
            found = [item for item in found if self._few_files(item)]
        return found

    def _few_files(self, session: Item) -> bool:
        """Whether it is known that all files of a session can be asked for at once."""
        resources = self._held.get(Key("resources", session.address))
        return isinstance(resources, Listing) and file_count(resources.rows) <= WHOLE_SESSION_FILES

    def peek(self, level: Level, at: Item | None) -> Listing[Item] | None:
        """The objects of ``level`` if they are known without asking."""
        return cast("Listing[Item] | None", self._held.get(self._objects(level, at).key))

    # -- our own changes, and what else is known

    def put_files(self, resource: Item, rows: Sequence[RemoteFile], asked: float) -> None:
        """A fresh listing of a resource, asked for because we changed something there."""
        self._held.take(Key(FILES, resource.address), Told(rows, asked))
        self._sharing.void(resource.address)

    def own_file(self, resource: Item, path: str, row: RemoteFile | None) -> None:
        """Remember our own change at once: ``row`` stands there now, or nothing (None).

        A listing that was asked for before the change is corrected when it arrives, and what
        other processes find on disk is outdated.
        """
        self._held.own_file(resource.address, path, row)
        self._sharing.void(resource.address)

    def latest(self, resource: Item, row: RemoteFile) -> RemoteFile:
        """A row as it is known by now: since it was looked up our own change may have come."""
        held = self._held.get(Key(FILES, resource.address))
        known = held.catalog.get(row.path) if isinstance(held, FileListing) else None
        return known or row

    def learned(self, resource: Item, row: RemoteFile) -> None:
        """The server was asked about one file: what the listing did not tell of it."""
        self._held.learned(resource.address, row)

    def keep(self, resource: Item, waiter: Waiter) -> None:
        """Write down what is known of a resource's files, with what was learned of each."""
        listing = self.files(resource, None, waiter)
        rows = self._held.completed(resource.address, listing.catalog.rows())
        self._sharing.keep(Key(FILES, resource.address), Told(rows, listing.asked))

    def forget(self, item: Item | None) -> None:
        """Forget what lies at or below ``item`` (None: everything)."""
        address = item.address if item is not None else ""
        self._held.forget(address)
        self._sharing.void(address)

    # -- the questions

    def _question(self, collection: str, item: Item) -> Question:
        """How an object is asked for one of its collections; for FILES: a session for all."""
        level = BY_COLLECTION.get(collection)
        if level is None:
            return self._session(item)
        return self._resources(item) if level is RESOURCE else self._objects(level, item)

    def _objects(self, level: Level, at: Item | None) -> Question:
        return Question(
            Key(level.name, at.address if at else ""),
            partial(self._archive.items, level, at),
            f"the {level.collection} of {at.label or at.id if at else 'the archive'}",
        )

    def _resources(self, at: Item) -> Question:
        ask = partial(self._archive.resources, at)
        return Question(Key("resources", at.address), ask, f"the resources of {at.label or at.id}")

    def _session(self, session: Item) -> Question:
        what = f"the files of {session.label or session.id}"
        return Question(Key(SESSION, session.address), partial(self._whole_session, session), what)

    def _rights(self, right: str, on: str) -> Question:
        ask = partial(self._archive.projects_where, right, on)
        return Question(Key(f"{RIGHTS}{right}-{on}", ""), ask, "the rights")

    def _whole_session(self, session: Item, worker: Waiter) -> dict[str, list[RemoteFile]]:
        """The files of all resources of a session, by the resources' addresses."""
        rows = self._archive.session_files([session], worker)
        return _sorted(rows, self.resources(session, worker).rows)

    def _whole_sessions(
        self, sessions: Mapping[str, tuple[Item, Sequence[Item]]], worker: Waiter
    ) -> dict[str, dict[str, list[RemoteFile]]]:
        """As ``_whole_session`` of several, by address; each is given with its resources.

        The server leaves out a session that is gone as if it had no files: of one without any
        nothing is said.
        """
        rows = self._archive.session_files([session for session, _ in sessions.values()], worker)
        sorted_ = {
            address: _sorted(rows, resources) for address, (_, resources) in sessions.items()
        }
        return {address: files for address, files in sorted_.items() if any(files.values())}

    def _listing(
        self, question: Question, waiter: Waiter, not_before: float = 0.0
    ) -> Listing[Item]:
        return cast("Listing[Item]", self._asking.get(question, waiter, not_before))


def _sorted(rows: Sequence[RemoteFile], resources: Sequence[Item]) -> dict[str, list[RemoteFile]]:
    """Files by the address of their resource, for these resources."""
    addresses = {item.id: item.address for item in resources}
    found: dict[str, list[RemoteFile]] = {address: [] for address in addresses.values()}
    for row in rows:
        if row.resource_id in addresses:
            found[addresses[row.resource_id]].append(row)
    return found
