"""What several objects hold, in one request (R§1.3, R§2.1).

For who walks through many of them. An object about which an answer leaves a doubt is left out of
what is returned: it is asked by itself.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from xnatfs.model.entities import Item
from xnatfs.model.levels import ASSESSOR, EXPERIMENT, RECONSTRUCTION, RESOURCE, SUBJECT, Level
from xnatfs.rest.listing import item_of, listing
from xnatfs.rest.session import Session
from xnatfs.waiting import Waiter

# In a filter "," separates, "*" and "%" are wild (R§2.1).
_PLAIN_ID = re.compile(r"[A-Za-z0-9_.-]+")


@dataclass(frozen=True, slots=True)
class _Question:
    """A query that tells of many objects what they hold."""

    # The address of the query, and what it is asked beside columns.
    listing: str
    params: Mapping[str, str] = field(default_factory=dict)
    # The column with the id of the object that holds, by which the query is filtered too.
    by: str = "ID"
    # A column that is empty where an object holds nothing: only that is believed. "": the rows
    # are what is held.
    none: str = ""


# By what is held, and what holds it.
_QUESTIONS = {
    (ASSESSOR.name, EXPERIMENT.name): _Question(
        "/experiments", {"xsiType": "xnat:imageAssessorData"}, by="session_ID"
    ),
    (RECONSTRUCTION.name, EXPERIMENT.name): _Question(
        "/experiments",
        {"xsiType": "xnat:imageSessionData"},
        none="xnat:imagesessiondata/reconstructions/reconstructedimage/id",
    ),
    (RESOURCE.name, SUBJECT.name): _Question(
        "/subjects", none="xnat:subjectdata/resources/resource/xnat_abstractresource_id"
    ),
}


def is_asked(level: Level, of: Level) -> bool:
    """Whether objects of a level are asked for many of those that hold them at once."""
    return (level.name, of.name) in _QUESTIONS


def held_by(
    session: Session, level: Level, holders: Sequence[Item], waiter: Waiter
) -> dict[str, list[Item]]:
    """What each of several objects holds of a level.

    Args:
        session: open.
        level: of what is held.
        holders: of one level; ``is_asked`` of both.
        waiter: limits of the wait.

    Returns: address of a holder → what a listing of its own would show; without those that are
        to be asked by themselves.

    Raises: BadReply and those of ``Session.request``.
    """
    known = {holder.id: holder for holder in holders if _PLAIN_ID.fullmatch(holder.id)}
    if not known:
        return {}
    question = _QUESTIONS[level.name, next(iter(known.values())).level.name]
    columns = (question.by, question.none) if question.none else (*level.columns, question.by)
    params = {
        **question.params,
        question.by: ",".join(known),
        "columns": ",".join(dict.fromkeys(columns)),
    }
    found = [
        (known[row[question.by]], row)
        for row in listing(session, question.listing, params, waiter)
        if row.get(question.by) in known
    ]
    if not question.none:
        held: dict[str, list[Item]] = {holder.address: [] for holder in known.values()}
        for holder, row in found:
            held[holder.address].append(item_of(level, holder, row, question.listing))
        return held
    # A column that the server does not know is not in its rows.
    some = {holder.address for holder, row in found if row.get(question.none) != ""}
    return {holder.address: [] for holder, _ in found if holder.address not in some}
