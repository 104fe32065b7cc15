"""``--allow-create``: subjects, sessions and scans made by mkdir."""

from __future__ import annotations

import pytest

from tests.conftest import Connect
from tests.core.driver import SESSION, Driver, Rest, requests
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer
from xnatfs.errors import (
    AlreadyExists,
    BadName,
    NotPermitted,
    Protected,
    ReadOnly,
    ServerFault,
    XnatfsError,
)
from xnatfs.fs.filesystem import FileSystem
from xnatfs.waiting import Waiter

PROJECT = "/projects/PVT000"
SUBJECTS = f"{PROJECT}/subjects"


def changes(server: DemoServer) -> list[str]:
    return [line for line in requests(server) if not line.startswith(("GET", "HEAD"))]


def told(fs: FileSystem, path: str) -> dict[str, str]:
    return fs.search.cells(fs.search.node(path, Waiter(total_s=20)))


def test_a_scan_is_made_from_nothing(connect: Connect, server: DemoServer) -> None:
    drive = Driver(connect("member", allow_create=True))
    assert drive.names(SUBJECTS)
    place = f"{SUBJECTS}/NEW_1/experiments/NEW_1_MR-1/scans/7/resources/NIFTI"
    for depth in (4, 6, 8, 10):
        drive.mkdir("/".join(place.split("/")[: depth + 1]))
    drive.write(f"{place}/files/x.nii", b"image")
    assert drive.names(f"{SUBJECTS}/NEW_1/experiments/NEW_1_MR-1") == [
        "scans", "assessors", "reconstructions", "resources",
    ]  # fmt: skip
    assert drive.read(f"{place}/files/x.nii") == b"image"
    rest = Rest(server)
    (session,) = [
        row
        for row in rest.rows(
            f"/data{PROJECT}/experiments?format=json&columns=ID,label,xsiType,insert_user"
        )
        if row["label"] == "NEW_1_MR-1"
    ]
    assert session["xsiType"] == "xnat:mrSessionData"
    assert session["insert_user"] == "member"
    address = f"/data/experiments/{session['ID']}"
    (scan,) = rest.rows(f"{address}/scans?format=json")
    assert (scan["ID"], scan["xsiType"]) == ("7", "xnat:mrScanData")
    assert rest.files(f"/experiments/{session['ID']}/scans/7/resources/NIFTI") == {
        "x.nii": b"image"
    }
    # Another mount, which looks for itself, finds it.
    assert Driver(connect("member")).read(f"{place}/files/x.nii") == b"image"
    reasons = [line for line in requests(server) if line.startswith("PUT") and "xsiType" in line]
    assert len(reasons) == 2
    assert all("event_reason=xnatfs" in line for line in reasons)


def test_types_are_those_of_the_options(connect: Connect, server: DemoServer) -> None:
    drive = Driver(
        connect(allow_create=True, session_type="xnat:petSessionData", scan_type="xnat:petScanData")
    )
    session = f"{SUBJECTS}/Haofei01/experiments/PET_1"
    drive.mkdir(session)
    drive.mkdir(f"{session}/scans/1")
    assert told(drive.fs, session)["xsi_type"] == "xnat:petSessionData"
    found = told(drive.fs, f"{session}/scans/1")
    assert found["xsi_type"] == "xnat:petScanData"


def test_a_name_that_is_taken_is_left_alone(connect: Connect, server: DemoServer) -> None:
    """By the name shown, by an accession, by another subject; also by somebody a moment ago."""
    drive = Driver(connect(allow_create=True))
    drive.mkdir(f"{SUBJECTS}/OTHER")
    rest = Rest(server)
    drive.names(f"{SESSION}/scans")
    drive.names(f"{SUBJECTS}/Haofei01/experiments")
    project = "/data/projects/PVT000"
    rest.ask("PUT", f"{project}/subjects/Haofei01/experiments/NOW?xsiType=xnat:mrSessionData")
    rest.ask("PUT", f"{project}/subjects/THEN")
    rest.ask("PUT", "/data/experiments/XNAT_E00001/scans/99?xsiType=xnat:mrScanData")
    rows = f"{project}/experiments?format=json&columns=ID,label,subject_ID"
    before = rest.rows(rows)
    server.clear_log()
    for path in (
        f"{SUBJECTS}/THEN",
        f"{SUBJECTS}/Haofei01",
        f"{SUBJECTS}/OTHER/experiments/NOW",
        f"{SUBJECTS}/OTHER/experiments/Haofei01_MR1",
        f"{SUBJECTS}/OTHER/experiments/XNAT_E00001",
        f"{SUBJECTS}/Haofei01/experiments/NOW",
        f"{SESSION}/scans/99",
        f"{SESSION}/scans/4",
    ):
        with pytest.raises(AlreadyExists):
            drive.mkdir(path)
    assert changes(server) == []
    assert rest.rows(rows) == before


def test_what_is_not_made(
    connect: Connect, server: DemoServer, expected_warnings: list[str]
) -> None:
    plain, drive = Driver(connect()), Driver(connect(allow_create=True))
    server.clear_log()
    with pytest.raises(Protected, match="making a subject needs --allow-create"):
        plain.mkdir(f"{SUBJECTS}/NEW")
    with pytest.raises(ReadOnly):
        Driver(connect(allow_create=True, read_only=True)).mkdir(f"{SUBJECTS}/NEW")
    for path in (
        "/projects/NEW",
        "/experiments/NEW",
        f"{PROJECT}/experiments/NEW",
        f"{SESSION}/assessors/NEW",
        f"{SESSION}/reconstructions/NEW",
        f"{SESSION}/NEW",
    ):
        with pytest.raises(Protected):
            drive.mkdir(path)
    for name in ("a b", "a.b", "ä", "a%b", "a,b", "*", "ALL", "x" * 201):
        with pytest.raises(BadName):
            drive.mkdir(f"{SESSION}/scans/{name}")
    assert changes(server) == []
    drive.mkdir(f"{SUBJECTS}/STAYS")
    with pytest.raises(Protected):
        drive.fs.rmdir(f"{SUBJECTS}/STAYS", Waiter(total_s=20))
    assert "STAYS" in drive.names(SUBJECTS)


def test_what_the_server_refuses_is_an_error(
    connect: Connect, server: DemoServer, expected_warnings: list[str]
) -> None:
    with pytest.raises(NotPermitted):
        Driver(connect("reader", allow_create=True)).mkdir(f"{SUBJECTS}/NEW")
    odd = Driver(connect(allow_create=True, session_type="xnat:noSuchType"))
    with pytest.raises(XnatfsError, match="400"):
        odd.mkdir(f"{SUBJECTS}/Haofei01/experiments/ODD")
    server.faults.add(Fault(kind="status", path="/subjects/NEW", verb="PUT", code=500))
    drive = Driver(connect(allow_create=True))
    with pytest.raises(ServerFault):
        drive.mkdir(f"{SUBJECTS}/NEW")
    names = drive.names(SUBJECTS)
    assert not {"NEW", "ODD"} & set(names)
