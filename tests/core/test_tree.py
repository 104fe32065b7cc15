"""What the archive looks like as files, and what it costs to look."""

from __future__ import annotations

import time

import pytest

from tests.core.driver import NAMES, SCAN4, SESSION, Driver, Rest, requests, soon
from xnatfs.config import Limits, View
from xnatfs.errors import NotAFolder, NotFound
from xnatfs.fs.values import Kind


def test_every_level_is_there(connect) -> None:
    drive = Driver(connect())
    assert drive.names("/") == ["projects", "experiments"]
    assert drive.names("/projects/PVT000") == ["subjects", "experiments", "resources"]
    assert {"scans", "assessors", "reconstructions", "resources"} == set(drive.names(SESSION))
    assert set(drive.names(SESSION + "/scans")) >= {"1", "4", "5_b", "1-MR1"}
    assert drive.names(SESSION + "/scans/5_b/resources") == []
    assert drive.names(SESSION + "/resources/EMPTY/files") == []
    assert drive.read(SESSION + "/assessors/Haofei01_QC1/resources/RESULT/files/result.txt")
    assert drive.read(SESSION + "/reconstructions/R1/resources/MPR/files/mpr.txt")
    assert drive.read("/projects/PVT000/resources/PROTOCOL/files/protocol.txt")
    assert drive.read("/projects/PVT000/subjects/Haofei01/resources/CONSENT/files/consent.pdf")


def test_every_name_is_readable_byte_for_byte(connect, server) -> None:
    drive = Driver(connect())
    held = Rest(server).files("/experiments/XNAT_E00001/resources/NAMES")
    shown = {}
    everything = drive.walk(NAMES)
    everything.remove(NAMES + "/gone.txt")  # in the catalog only
    for path in everything:
        if drive.stat(path).kind is Kind.FILE:
            shown[path.removeprefix(NAMES + "/")] = drive.read(path)
    shown["x"] = shown.pop("x~file")
    assert shown == held
    assert "größe.nii" in shown
    assert "a/b/c.txt" in shown


def test_clashing_labels_are_told_apart(connect) -> None:
    names = Driver(connect()).names(SESSION + "/resources")
    twice = sorted(name for name in names if name.startswith("TWICE"))
    assert len(twice) == 2
    assert twice[0] == "TWICE"
    assert twice[1].startswith("TWICE~")
    assert any(name.isdigit() for name in names)  # the one without a label


def test_sessions_have_one_place_and_links_to_it(connect) -> None:
    fs = connect()
    drive = Driver(fs)
    link = "/projects/PVT000/experiments/Haofei01_MR1"
    assert drive.stat(link).kind is Kind.LINK
    assert fs.readlink(link, soon()) == "../subjects/Haofei01/experiments/Haofei01_MR1"
    target = fs.readlink("/experiments/XNAT_E00001", soon())
    assert target == "../projects/PVT000/subjects/Haofei01/experiments/Haofei01_MR1"


def test_a_shared_session_is_a_folder_in_every_project(connect) -> None:
    drive = Driver(connect())
    shared = "/projects/SHARED00/subjects/Haofei_shared/experiments/Shared_MR1"
    file = drive.walk(shared + "/scans/4/resources/DICOM/files")[0]
    own = file.replace(shared, SESSION)
    assert drive.stat(file).ino == drive.stat(own).ino
    assert drive.read(file) == drive.read(own)


def test_scans_by_id_and_type_resolve_both_ways(connect) -> None:
    drive = Driver(connect(view=View(scan_names="id-type")))
    assert "4-Ax_3D_T1" in drive.names(SESSION + "/scans")
    for name in ("4", "4-Ax_3D_T1"):
        assert drive.names(f"{SESSION}/scans/{name}/resources")
    assert Driver(connect()).names(SESSION + "/scans/4-Ax_3D_T1/resources")


def test_what_an_assessor_was_made_from_is_there_by_name(connect) -> None:
    drive = Driver(connect())
    resources = SESSION + "/assessors/Haofei01_QC1/resources"
    files = drive.walk(resources + "/INPUT~in/files")
    assert files
    assert drive.read(files[0])


def test_a_subtree_can_be_the_root(connect) -> None:
    drive = Driver(connect(view=View(path=SESSION)))
    assert "4" in drive.names("/scans")


def test_names_that_are_not_there_stay_away(connect) -> None:
    drive = Driver(connect())
    for path in (
        "/nope",
        "/projects/NOPE",
        SESSION + "X",
        SCAN4 + "/files",
        SESSION + "/scans/NOPE/resources",
        SCAN4 + "/resources/NOPE/files",
    ):
        with pytest.raises(NotFound):
            drive.stat(path)
    with pytest.raises(NotAFolder):
        drive.stat(NAMES + "/plain.txt/x")


def test_names_are_case_sensitive(connect) -> None:
    assert not Driver(connect()).exists("/projects/pvt000")


def test_desktops_names_cost_no_request(connect, server) -> None:
    drive = Driver(connect())
    server.clear_log()
    for name in (".DS_Store", "._x", ".Trash-1000", ".hidden", "autorun.inf"):
        assert not drive.exists(f"/projects/PVT000/{name}")
    assert requests(server) == []


def test_find_over_a_session_needs_five_requests(connect, server) -> None:
    drive = Driver(connect())
    above = SESSION.rpartition("/")[0]
    drive.stat(above)
    drive.names(above)
    server.clear_log()
    assert len(drive.walk(SESSION)) > 60
    asked = requests(server)
    assert len(asked) == 5, asked
    drive.walk(SESSION)
    assert len(requests(server)) == 5


def test_others_changes_show_after_the_time_to_live(connect, server) -> None:
    drive = Driver(connect(limits=Limits(metadata_ttl_s=0.4, io_timeout_s=20, negative_ttl_s=0.1)))
    new = NAMES + "/new.txt"
    assert not drive.exists(new)
    Rest(server).ask(
        "PUT", "/data/experiments/XNAT_E00001/resources/NAMES/files/new.txt?inbody=true", b"new"
    )
    time.sleep(0.5)
    assert drive.read(new) == b"new"


def test_a_missing_name_is_asked_again_soon(connect, server) -> None:
    drive = Driver(connect(limits=Limits(io_timeout_s=20, negative_ttl_s=0.1)))
    assert not drive.exists(NAMES + "/late.txt")
    server.clear_log()
    assert not drive.exists(NAMES + "/late.txt")
    Rest(server).ask(
        "PUT", "/data/experiments/XNAT_E00001/resources/NAMES/files/late.txt?inbody=true", b"late"
    )
    time.sleep(0.2)
    assert drive.exists(NAMES + "/late.txt")


def test_attributes_tell_rights_and_dates(connect) -> None:
    owner, reader = Driver(connect("admin")), Driver(connect("reader"))
    assert owner.stat(SCAN4).mode == 0o755
    assert reader.stat(SCAN4).mode == 0o555
    assert reader.stat(NAMES + "/plain.txt").mode == 0o444
    assert Driver(connect("member")).stat(SCAN4).mode == 0o755
    assert owner.stat(SCAN4).mtime == owner.stat(SESSION).mtime
    assert owner.stat(SCAN4).links == 1


def test_people_see_what_the_server_lets_them_see(connect) -> None:
    assert "PVT000" not in Driver(connect("nobody")).names("/projects")
    assert set(Driver(connect("member")).names("/projects")) >= {"PVT000", "SHARED00"}


def test_extended_attributes(connect) -> None:
    fs = connect()

    def value(path: str, name: str) -> str:
        return fs.getxattr(path, f"user.xnat.{name}", soon()).decode()

    assert value(SCAN4, "type") == "Ax_3D_T1"
    assert value(SCAN4, "uri") == "/data/experiments/XNAT_E00001/scans/4"
    assert value(SESSION, "id") == "XNAT_E00001"
    assert value(SESSION, "xsi_type") == "xnat:mrSessionData"
    assert len(value(NAMES + "/plain.txt", "digest")) == 32
    assert "user.xnat.type" in fs.listxattr(SCAN4, soon())
