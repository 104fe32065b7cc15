"""Finding things: scans by what they are, PATH as an accession or as the browser has it."""

from __future__ import annotations

import os

import pytest

from tests.core.driver import Rest
from tests.mount.desk import SESSION, Desk, asked
from xnatfs.demo.server import DemoServer

SCANS = f"/{SESSION}/scans"
T1 = f"{SCANS}/4\n"


def out(desk: Desk, *words: str) -> str:
    done = desk.xnatfs(*words)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


@pytest.fixture
def at_home(desk: Desk) -> Desk:
    desk.variables["XNAT_HOST"] = desk.url
    return desk


def test_find(at_home: Desk, server: DemoServer) -> None:
    desk = at_home
    scans = ["1", "4", "5_b", "6", "1-MR1"]
    assert out(desk, "find", "PVT000") == "".join(f"{SCANS}/{name}\n" for name in scans)
    # One request for all scans of the project, and none for a session.
    assert len(asked(server, "GET", "imagescandata")) <= 2
    assert asked(server, "GET", "/data/experiments/XNAT") == []
    assert out(desk, "find", "PVT000", "--type", "Ax*", "--quality", "usable") == T1
    assert out(desk, "find", "PVT000", "--quality", "questionable,unusable") == (
        f"{SCANS}/5_b\n{SCANS}/1-MR1\n"
    )
    assert out(desk, "find", "PVT000", "--missing", "SNAPSHOTS", "--type", "Ax*") == (
        f"{SCANS}/5_b\n"
    )
    assert out(desk, "find", "PVT000", "--missing", "NIFTI", "--sessions") == f"/{SESSION}\n"
    assert out(desk, "find", "PVT000", "-0", "--quality", "unusable") == f"{SCANS}/1-MR1\0"
    assert out(desk, "find", "PVT000", "--type", "no-such-type") == ""
    head, line = out(desk, "find", "PVT000", "--tsv", "--type", "Ax_3D_T1").splitlines()
    assert head.split("\t")[:3] == ["path", "subject", "session"]
    assert line.split("\t") == [
        f"{SCANS}/4", "Haofei01", "Haofei01_MR1", "XNAT_E00001", "2021-04-08", "4", "Ax_3D_T1",
        "usable", "Ax_3D_T1", "DICOM,SNAPSHOTS",
    ]  # fmt: skip
    long = out(desk, "find", "PVT000", "--scan-names", "id-type", "--quality", "unusable,usable")
    assert f"{SCANS}/1-MR1-localizer_repeat\n" in long
    assert f"{SCANS}/6-WATER__T1_T2_0.8x0.8\n" in long


def test_what_is_found_is_there(at_home: Desk) -> None:
    """Every path is one of the mount, in its long form too."""
    for form in ("id", "id-type"):
        found = out(at_home, "find", "PVT000", "--scan-names", form).splitlines()
        with at_home.mounted("--scan-names", form) as point:
            assert all((point / path[1:] / "resources").is_dir() for path in found)
            assert os.listdir(point / SCANS[1:]) == [path.rpartition("/")[2] for path in found]


def test_find_in_a_project_that_borrows_its_session(at_home: Desk, server: DemoServer) -> None:
    shared = "/projects/SHARED00/subjects/Haofei_shared/experiments/Shared_MR1/scans"
    server.clear_log()
    assert f"{shared}/4\n" in out(at_home, "find", "SHARED00")
    assert len(asked(server, "GET", "imagescandata")) == 2


@pytest.mark.parametrize("project", ["/projects/PVT000", "{url}/data/projects/PVT000?format=html"])
def test_find_takes_a_path_and_an_address(at_home: Desk, project: str) -> None:
    del at_home.variables["XNAT_HOST"]
    words = ("find", project.format(url=at_home.url), "--type", "Ax_3D_T1")
    known = () if "{url}" in project else ("-s", at_home.url)
    assert out(at_home, *words, *known) == T1


def test_find_says_what_is_not_there(at_home: Desk) -> None:
    done = at_home.xnatfs("find", "PVT00")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "xnatfs: no PVT00 in /projects; did you mean PVT000?\n"
    done = at_home.xnatfs("find", f"/{SESSION}")
    assert done.returncode == 1
    assert "is not a project" in done.stderr


@pytest.mark.parametrize(
    "path",
    [
        "XNAT_E00001/scans",
        "/experiments/XNAT_E00001/scans",
        "/projects/PVT000/experiments/Haofei01_MR1/scans",
        "/projects/PVT000/experiments/XNAT_E00001/scans",
        "/projects/PVT000/subjects/XNAT_S00001/experiments/XNAT_E00001/scans",
        "{url}/data/experiments/XNAT_E00001/scans",
        "{url}/data/archive/projects/PVT000/subjects/XNAT_S00001/experiments/Haofei01_MR1/scans",
    ],
)
def test_ls_takes_ids_accessions_and_addresses(at_home: Desk, path: str) -> None:
    words = path.format(url=at_home.url)
    if "://" in words:
        del at_home.variables["XNAT_HOST"]
    assert out(at_home, "ls", words).split() == ["1", "4", "5_b", "6", "1-MR1"]


def test_ls_takes_a_page_of_the_browser(at_home: Desk) -> None:
    page = (
        f"{at_home.url}/app/action/DisplayItemAction/search_value/XNAT_E00001/search_element/"
        "xnat:mrSessionData/search_field/xnat:mrSessionData.ID/project/PVT000"
    )
    assert out(at_home, "ls", page).split() == [
        "scans", "assessors", "reconstructions", "resources",
    ]  # fmt: skip


def test_an_address_of_another_server_is_refused(at_home: Desk) -> None:
    done = at_home.xnatfs(
        "ls", "https://other.example.edu/data/projects/P", "-s", at_home.url
    )  # fmt: skip
    assert done.returncode == 2
    assert "https://other.example.edu" in done.stderr


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("XNAT_E0001", "no XNAT_E0001 in /experiments; did you mean XNAT_E00001?"),
        (f"/{SESSION}/scan", "did you mean scans?"),
        (f"/{SESSION}/resources/qc", "did you mean QC?"),
        ("/projects/PVT000/subjects/haofei1/experiments", "did you mean Haofei01?"),
        ("PVT000", "no PVT000 in /; did you mean /projects/PVT000?"),
        ("pvt00/subjects", "did you mean /projects/PVT000?"),
        ("project", "did you mean projects?"),
        ("/projects/PVT000/subjects/zzz", "no zzz in /projects/PVT000/subjects\n"),
    ],
)
def test_did_you_mean(at_home: Desk, path: str, said: str) -> None:
    done = at_home.xnatfs("ls", path)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert said in done.stderr


def test_ls_tells_scans_apart(at_home: Desk) -> None:
    lines = out(at_home, "ls", "-l", SCANS).splitlines()
    assert lines[0].split() == ["name", "type", "description", "quality", "files", "size"]
    assert lines[2].split()[:5] == ["4", "Ax_3D_T1", "Ax_3D_T1", "usable", "9"]
    named = out(at_home, "ls", "--scan-names", "id-type", SCANS).split()
    assert named[1] == "4-Ax_3D_T1"
    assert len(named) == 5
    # Either form is understood, whichever is shown.
    for name in ("4", "4-Ax_3D_T1"):
        for form in ("id", "id-type"):
            listed = out(at_home, "ls", "--scan-names", form, f"{SCANS}/{name}/resources")
            assert listed.split() == ["DICOM", "SNAPSHOTS"]


@pytest.mark.parametrize(
    ("words", "most"),
    [
        (["/"], 0),
        (["/projects"], 1),
        (["-l", "/projects"], 1),
        (["/projects/PVT000/subjects"], 2),
        (["-l", "/projects/PVT000/subjects"], 2),
        (["-l", f"/{SESSION.rpartition('/')[0]}"], 1),
        ([SCANS], 2),
        ([f"/{SESSION}/resources"], 2),
        # Counts and sizes are those of the resources.
        (["-l", SCANS], 3),
        ([f"{SCANS}/4/resources/DICOM/files"], 4),
    ],
)
def test_ls_asks_for_little(at_home: Desk, server: DemoServer, words: list[str], most: int) -> None:
    """One login, and what the folder needs; the way to it costs one listing of sessions."""
    out(at_home, "ls", *words)
    asked_for = [entry.path for entry in server.log if entry.path != "/data/auth"]
    assert len(server.log) == len(asked_for) + 1
    assert len(asked_for) <= most, asked_for


def test_the_short_way_is_no_other_way(at_home: Desk, server: DemoServer) -> None:
    """A project's alias is no name in a mount; a shared session has its names of there."""
    Rest(server).ask("PUT", "/data/projects/PVT000/subjects/NOBODY_YET", b"")
    done = at_home.xnatfs("ls", "/projects/private-zero/subjects/Haofei01/experiments")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no private-zero in /projects" in done.stderr
    shared = "/projects/SHARED00/subjects/Haofei_shared/experiments"
    assert out(at_home, "ls", shared) == "Shared_MR1\n"
    assert out(at_home, "ls", f"{shared}/Shared_MR1/scans").split() == [
        "1", "4", "5_b", "6", "1-MR1",
    ]  # fmt: skip
    done = at_home.xnatfs("ls", "/projects/PVT000/subjects/Haofei_shared/experiments")
    assert done.returncode == 1
    # A subject without sessions is found the long way.
    assert out(at_home, "ls", "/projects/PVT000/subjects/NOBODY_YET").split() == [
        "experiments", "resources",
    ]  # fmt: skip
