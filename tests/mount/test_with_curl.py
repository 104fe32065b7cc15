"""curl with the recipes of XNAT's manual beside a mount, against ``xnatfs demo --serve``."""

from __future__ import annotations

import csv
import io
import json
import subprocess
import time
import xml.etree.ElementTree as ET
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.mount.desk import SESSION, XNATFS, Desk, process

BASIC = ("-u", "admin:admin")


def curl(*words: str | Path) -> bytes:
    done = subprocess.run(
        ["curl", "--silent", "--show-error", "--fail", *map(str, words)],
        capture_output=True, check=False, timeout=30,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL that ``xnatfs demo --serve`` prints first; SIGTERM ends it well."""
    root = tmp_path_factory.mktemp("served") / "archive"
    with process(XNATFS, "demo", "--serve", "--sample", "small", "--root", root) as serving:
        assert serving.stdout is not None
        line = serving.stdout.readline()
        assert line.startswith("http://127.0.0.1:")
        logins = serving.stdout.readline()
        assert "admin/admin" in logins
        assert "nobody/nobody" in logins
        yield line.strip()
        serving.terminate()
        assert serving.wait(timeout=20) == 0
    assert (root / "archive").exists() or any(root.iterdir())


@pytest.fixture
def desk(open_a_desk: OpenDesk, url: str) -> Iterator[Desk]:
    desk = open_a_desk(url)
    with desk.mounted("--metadata-ttl", "0.2"):
        yield desk


def test_projects_in_every_format(url: str, desk: Desk) -> None:
    shown = set((desk.point / "projects").iterdir())
    names = {path.name for path in shown}
    where = f"{url}/data/projects"
    rows = json.loads(curl(*BASIC, f"{where}?format=json"))["ResultSet"]["Result"]
    assert {row["ID"] for row in rows} == names
    page = ET.fromstring(curl(*BASIC, f"{where}?format=xml"))
    assert names <= {cell.text for cell in page.iter("cell")}
    text = curl(*BASIC, f"{where}?format=csv").decode()
    assert {row["ID"] for row in csv.DictReader(io.StringIO(text))} == names
    html = curl(*BASIC, f"{where}?format=html").decode()
    assert "<table" in html.lower()
    assert all(name in html for name in names)


def test_files_of_an_experiment_are_those_of_the_mount(url: str, desk: Desk) -> None:
    listed = json.loads(
        curl(*BASIC, f"{url}/data/experiments/XNAT_E00001/scans/ALL/files?format=json")
    )["ResultSet"]["Result"]
    assert len(listed) > 8
    found = desk.works("cd scans && find . -type f -printf '%f\\n'").splitlines()
    assert sorted(row["Name"] for row in listed) == sorted(found)


def test_zip_of_a_scan_has_the_mount_s_bytes(url: str, desk: Desk) -> None:
    raw = curl(*BASIC, f"{url}/data/{SESSION}/scans/4/files?format=zip")
    with zipfile.ZipFile(io.BytesIO(raw)) as packed:
        held = {name.rpartition("/")[2]: packed.read(name) for name in packed.namelist()}
    shown = {
        path.name: path.read_bytes()
        for path in (desk.session / "scans/4/resources").rglob("*")
        if path.is_file()
    }
    assert held == shown


def test_multipart_into_a_folder_that_it_creates(url: str, desk: Desk, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_bytes(b"from curl\n" * 1000)
    target = f"{url}/data/{SESSION}/resources/CURLED/files/mine.txt"
    assert not (desk.session / "resources/CURLED").exists()
    curl(*BASIC, "-X", "PUT", "-F", f"file=@{tmp_path / 'mine.txt'}", target)
    time.sleep(0.4)
    assert (desk.session / "resources/CURLED/files/mine.txt").read_bytes() == (
        tmp_path / "mine.txt"
    ).read_bytes()


def test_put_of_a_folder_and_both_fill_it(url: str, desk: Desk, tmp_path: Path) -> None:
    folder = f"{url}/data/{SESSION}/scans/4/resources/BOTH"
    curl(*BASIC, "-X", "PUT", folder)
    shown = desk.session / "scans/4/resources/BOTH/files"
    assert list(shown.iterdir()) == []
    (shown / "mount.txt").write_bytes(b"from the mount\n")
    curl(*BASIC, "-T", "/etc/hostname", f"{folder}/files/curl.txt?inbody=true")
    time.sleep(0.4)
    assert curl(*BASIC, f"{folder}/files/mount.txt") == b"from the mount\n"
    assert (shown / "curl.txt").read_bytes() == Path("/etc/hostname").read_bytes()
    (shown / "sub").mkdir()
    (shown / "sub/größe 1.txt").write_bytes(b"below\n")
    assert curl(*BASIC, f"{folder}/files/sub/gr%C3%B6%C3%9Fe%201.txt") == b"below\n"
    assert sorted(path.name for path in shown.iterdir()) == ["curl.txt", "mount.txt", "sub"]


def test_a_folder_made_by_the_mount_is_there_for_curl(url: str, desk: Desk) -> None:
    (desk.session / "resources/BY_MOUNT").mkdir()
    rows = json.loads(curl(*BASIC, f"{url}/data/{SESSION}/resources?format=json"))
    assert "BY_MOUNT" in [row["label"] for row in rows["ResultSet"]["Result"]]


def test_a_session_is_opened_used_and_closed(url: str, desk: Desk) -> None:
    session = curl(*BASIC, f"{url}/data/JSESSION").decode().strip()
    cookie = ("--cookie", f"JSESSIONID={session}")
    rows = json.loads(curl(*cookie, f"{url}/data/projects?format=json"))["ResultSet"]["Result"]
    listed = desk.xnatfs("ls", "/projects", "-s", url, XNAT_JSESSION=session)
    assert (listed.returncode, listed.stderr) == (0, "")
    assert sorted(listed.stdout.split()) == sorted(row["ID"] for row in rows)
    # One that was given is not ours to end.
    curl(*cookie, f"{url}/data/projects")
    curl(*cookie, "-X", "DELETE", f"{url}/data/JSESSION")
    refused = subprocess.run(
        ["curl", "-s", *cookie, "-o", "/dev/null", "-w", "%{http_code}", f"{url}/data/projects"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert refused.stdout == "401"


def test_an_alias_token_is_a_user_and_password(
    url: str, desk: Desk, open_a_desk: OpenDesk, tmp_path: Path
) -> None:
    token = json.loads(curl("-u", "member:member", f"{url}/data/services/tokens/issue"))
    pair = f"{token['alias']}:{token['secret']}"
    assert b"PVT000" in curl("-u", pair, f"{url}/data/projects?format=csv")
    other = open_a_desk(url)
    other.variables |= {"XNAT_USER": token["alias"], "XNAT_PASS": token["secret"]}
    with other.mounted():
        assert other.status()["user"] == "member"
        (other.session / "resources/BY_TOKEN").mkdir()
        (other.session / "resources/BY_TOKEN/files/t.txt").write_bytes(b"by token\n")
    target = f"{url}/data/{SESSION}/resources/BY_TOKEN/files/t.txt"
    assert curl("-u", pair, target) == b"by token\n"
    assert token["secret"] not in other.log()
