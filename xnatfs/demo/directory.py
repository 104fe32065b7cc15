"""`…/DIR`: the session's directory as it is on disk (R§3.4)."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from xnatfs.demo import holders, tables
from xnatfs.demo.files import file_reply
from xnatfs.demo.objects import Experiment
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.tables import Table
from xnatfs.demo.wire import Refusal, Reply

COLUMNS = ("Name", "DIR", "Size", "URI")


class Directory:
    """Answers GET below `DIR`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def get(self, call: Call) -> Reply:
        """A listing of a folder (`recursive=true` for everything below), or a file."""
        request = call.request
        if request.user.guest:
            raise Refusal(401)
        project = self._site.addresses.project(call.variables, request.user)
        found = self._site.addresses.experiments(call.variables, request.user, project)
        if not found:
            raise Refusal(404)
        session = found[0]
        top = self._site.archive.root / holders.session_folder(session)
        path = unquote(call.tail.strip("/"))
        if ".." in path.split("/"):
            raise Refusal(400)
        for holder in holders.whole_session(self._site.tables, session):
            for resource in self._site.tables.resources.of(holder.owner):
                self._site.archive.settle(resource)
        if not top.is_dir():
            raise Refusal(404)
        matches = sorted(top.glob(path)) if path else [top]
        if len(matches) == 1 and matches[0].is_file():
            return file_reply(matches[0], matches[0].name)
        if not matches:
            raise Refusal(404)
        deep = request.query.flag("recursive")
        rows = [row for it in matches for row in _rows(it, top, session, deep=deep)]
        return tables.render(Table(COLUMNS, tuple(rows)), request)


def _rows(place: Path, top: Path, session: Experiment, *, deep: bool) -> list[dict[str, str]]:
    if place.is_file():
        return [_row(place, place.parent, top, session)]
    inside = place.rglob("*") if deep else place.iterdir()
    return [_row(it, place, top, session) for it in sorted(inside) if it.is_file() or not deep]


def _row(place: Path, listed: Path, top: Path, session: Experiment) -> dict[str, str]:
    is_folder = place.is_dir()
    return {
        "Name": str(place.relative_to(listed)),
        "DIR": "true" if is_folder else "false",
        "Size": "" if is_folder else str(place.stat().st_size),
        "URI": f"/data/experiments/{session.id}/DIR/{place.relative_to(top)}",
    }
