"""Walks through a project: fewer requests, the same names, nothing for a look here and there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.core.driver import Driver, Rest, requests, soon
from xnatfs.config import Limits
from xnatfs.demo.order import Order
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.errors import XnatfsError
from xnatfs.model.levels import ASSESSOR, EXPERIMENT, RECONSTRUCTION, RESOURCE, SUBJECT
from xnatfs.rest import many
from xnatfs.tree import walks
from xnatfs.tree.sheets import FILES

SESSIONS = 40
SUBJECTS = "/projects/ORDER000/subjects"
DATA = f"/data{SUBJECTS}"
LONG = Limits(metadata_ttl_s=600, io_timeout_s=20)


@pytest.fixture
def ordered(tmp_path: Path) -> Iterator[DemoServer]:
    """A project of many sessions with one of everything somewhere."""
    order = Order(sessions=SESSIONS, scans=2, files=2, file_size=100)
    server = DemoServer(ServerOptions(root=tmp_path / "ordered", sample="none", order=order))
    server.start()
    rest, text = Rest(server), "?inbody=true"
    rest.ask("PUT", f"{DATA}/S00007/resources/NOTES/files/a.txt{text}", b"notes")
    rest.ask("PUT", f"{DATA}/S00008/resources/EMPTY")
    session = f"{DATA}/S00012/experiments/S00012_MR"
    rest.ask("PUT", f"{session}/reconstructions/R1?type=mean")
    rest.ask("PUT", f"{session}/reconstructions/R1/out/resources/NII/files/r.nii{text}", b"mean")
    session = f"{DATA}/S00015/experiments/S00015_MR"
    rest.ask("PUT", f"{session}/assessors/A1?xsiType=xnat:qcManualAssessorData")
    rest.ask("PUT", f"{session}/assessors/A1/out/resources/QC/files/q.csv{text}", b"1,2")
    rest.ask("PUT", f"{session}/resources/ALSO_EMPTY")
    rest.ask("PUT", f"{DATA}/S00020/experiments/S00020_PET?xsiType=xnat:petSessionData")
    yield server
    server.stop()


def seen(drive: Driver) -> list[tuple[str, int]]:
    return [(path, drive.stat(path).size) for path in drive.walk(SUBJECTS)]


def test_a_walk_shows_the_same_with_fewer_requests(connect, ordered, monkeypatch) -> None:
    monkeypatch.setattr(walks, "MOST_AHEAD", 0)
    alone = connect(url=ordered.url, limits=LONG)
    ordered.clear_log()
    expected = seen(Driver(alone))
    one_by_one = len(requests(ordered))
    assert one_by_one > 6 * SESSIONS
    assert len([path for path, _ in expected if path.endswith(".dcm")]) == 4 * SESSIONS
    for name in ("NOTES/files/a.txt", "R1/resources/NII/files/r.nii", "QC/files/q.csv"):
        assert any(path.endswith(name) for path, _ in expected)
    alone.refresh("/", soon())
    monkeypatch.undo()
    ordered.clear_log()
    assert seen(Driver(connect(url=ordered.url, limits=LONG))) == expected
    # Scans and resources of each session; a few for all the rest.
    assert len(requests(ordered)) < 4 * SESSIONS, requests(ordered)


def test_a_walk_by_name_backwards_or_at_random_is_no_worse(connect, ordered) -> None:
    for order in (range(SESSIONS, 0, -1), range(1, SESSIONS, 3)):
        fs = connect(url=ordered.url, limits=LONG)
        drive = Driver(fs)
        drive.names(SUBJECTS)
        fs.refresh("/", soon())
        drive.names(f"{SUBJECTS}/S00001/experiments")
        ordered.clear_log()
        looked = 0
        for number in order:
            drive.names(f"{SUBJECTS}/S{number:05}/experiments/S{number:05}_MR/scans")
            looked += 1
        asked = [line for line in requests(ordered) if "/scans?" in line]
        assert len(asked) == looked


def test_who_stays_long_with_each_session_gets_nothing_ahead(connect, ordered) -> None:
    """It would have to be asked for again when it is wanted."""
    drive = Driver(connect(url=ordered.url, limits=Limits(metadata_ttl_s=2, io_timeout_s=20)))
    drive.names(SUBJECTS)
    ordered.clear_log()
    for number in (1, 2, 3):
        drive.names(f"{SUBJECTS}/S{number:05}/experiments/S{number:05}_MR/scans")
        time.sleep(0.6)
    assert len([line for line in requests(ordered) if "/scans?" in line]) == 3


def test_a_session_that_goes_away_is_never_shown_as_empty(connect, ordered) -> None:
    """The server leaves it out of a list of sessions without a word (R§1.3)."""
    fs = connect(url=ordered.url, limits=LONG)
    listings = fs._parts.listings
    project = next(it for it in fs._parts.names.lookup(SUBJECTS, soon()).chain)
    sessions = listings.items(EXPERIMENT, project, soon()).rows[:4]
    resources = [listings.resources(session, soon()).rows for session in sessions]
    ordered.site.tables.objects.drop(f"experiment:{sessions[1].id}")
    ordered.clear_log()
    listings.foresee_many(FILES, sessions)
    for session, known in zip(sessions, resources, strict=True):
        assert known
        for resource in known:
            if session is sessions[1]:
                with pytest.raises(XnatfsError):
                    listings.files(resource, session, soon())
            else:
                assert len(listings.files(resource, session, soon()).catalog) == 2
    together = [line for line in requests(ordered) if "," in line and "/files" in line]
    assert len(together) == 1


def test_only_what_is_sure_is_told_of_many(connect, ordered, monkeypatch) -> None:
    fs = connect(url=ordered.url)
    listings, session = fs._parts.listings, fs._parts.session
    project = fs._parts.names.lookup(SUBJECTS, soon()).chain[0]
    experiments = listings.items(EXPERIMENT, project, soon()).rows
    by_label = {item.label: item for item in experiments}
    assessors = many.held_by(session, ASSESSOR, experiments, soon())
    assert set(assessors) == {item.address for item in experiments}
    assessed = by_label["S00015_MR"]
    assert {address for address, items in assessors.items() if items} == {assessed.address}
    assert assessors[assessed.address] == list(listings.items(ASSESSOR, assessed, soon()).rows)
    made = many.held_by(session, RECONSTRUCTION, experiments, soon())
    sure = {item.address for item in experiments} - {by_label["S00012_MR"].address}
    assert set(made) == sure
    assert not any(made.values())
    subjects = listings.items(SUBJECT, project, soon()).rows
    plain = {item.address for item in subjects if item.label not in ("S00007", "S00008")}
    assert set(many.held_by(session, RESOURCE, subjects, soon())) == plain
    # An id that a filter would take for something else; a column that the server does not know.
    odd = [replace(subjects[0], id=id_) for id_ in ("a,b", "*", "")]
    assert many.held_by(session, RESOURCE, odd, soon()) == {}
    key = (RESOURCE.name, SUBJECT.name)
    monkeypatch.setitem(many._QUESTIONS, key, many._Question("/subjects", none="nonsense"))
    assert many.held_by(session, RESOURCE, subjects, soon()) == {}
