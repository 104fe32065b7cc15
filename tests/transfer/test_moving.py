"""get, put, verify, prefetch, refresh, cache and url, as people type them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.core.driver import Rest
from tests.mount.desk import HELD, SESSION, XNATFS, Desk, asked, within
from xnatfs.cli import main
from xnatfs.demo.faults import Fault
from xnatfs.demo.order import PROJECT, Order
from xnatfs.demo.server import DemoServer, ServerOptions

SCAN4 = f"/{SESSION}/scans/4"
QC = f"/{SESSION}/resources/QC"
IN_ZIP = "Haofei01_MR1/scans/4-Ax_3D_T1/resources/DICOM/files"


@dataclass
class Done:
    """How a command ended."""

    returncode: int
    stdout: str
    stderr: str


Type = Callable[..., Done]


@pytest.fixture
def user(server: DemoServer, tmp_path: Path) -> Desk:
    return Desk(tmp_path / "desk", server.url, variables={"XNAT_HOST": server.url})


@pytest.fixture
def types(user: Desk, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Type:
    """Types a command, in this process; returns what it printed."""

    def works(*words: str | Path, code: int = 0, **variables: str) -> Done:
        with monkeypatch.context() as patch:
            for name, value in (user.variables | variables).items():
                patch.setenv(name, value)
            found = main([*map(str, words)])
        printed = capsys.readouterr()
        assert found == code, printed.err
        assert "Traceback" not in printed.err
        return Done(found, printed.out, printed.err)

    return works


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def complete(folder: Path) -> list[str]:
    return [name for name in tree(folder) if "-part-" not in name]


def downloads(server: DemoServer) -> list[str]:
    return [
        entry.path
        for entry in server.log
        if entry.verb == "GET"
        and ("/files/" in entry.path or "format=tar" in entry.path)
        and "format=json" not in entry.path
    ]


# get


def test_get_is_the_archive_s_own_zip_unpacked(types: Type, server, tmp_path) -> None:
    whole = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    out = tmp_path / "out"
    done = types("get", SCAN4 + "/resources/DICOM", out)
    assert done.stdout.startswith(f"{len(whole)} files (")
    assert tree(out) == {f"{IN_ZIP}/{name}": body for name, body in whole.items()}
    server.clear_log()
    again = types("get", SCAN4 + "/resources/DICOM", out)
    assert f"{len(whole)} of them before" in again.stdout
    assert downloads(server) == []


def test_get_repairs_what_was_changed_here(types: Type, server, tmp_path) -> None:
    out = tmp_path / "out"
    types("get", QC, out)
    (path,) = [path for path in out.rglob("*") if path.is_file()]
    right = path.read_bytes()
    path.write_bytes(right[:-1] + b"?")
    types("get", QC, out)
    assert path.read_bytes() == right
    # A file without a digest is known by size and date.
    names = f"/{SESSION}/resources/NAMES/files/no-digest.txt"
    types("get", names, out)
    server.clear_log()
    assert "1 of them before" in types("get", names, out).stdout
    (out / "no-digest.txt").write_bytes(b"x" * (out / "no-digest.txt").stat().st_size)
    assert "before" not in types("get", names, out).stdout


def test_get_of_a_session_has_every_name_that_can_be_read(types: Type, server, tmp_path) -> None:
    held = Rest(server).files(f"{HELD}/resources/NAMES")
    out = tmp_path / "out"
    done = types("get", f"/{SESSION}", out, code=1)
    assert "gone.txt" in done.stderr
    got = tree(out / "Haofei01_MR1/resources/NAMES/files")
    got["x"] = got.pop("x~file")
    assert got == held
    assert (out / "Haofei01_MR1/assessors/Haofei01_QC1/resources/RESULT/files/result.txt").exists()
    assert not list(out.rglob("*-part-*"))


def test_get_of_some_files(types: Type, tmp_path) -> None:
    some, out = ("--include", "*.1.dcm", "--include", "*.gif"), tmp_path / "out"
    done = types("get", *some, "XNAT_E00001/scans", out)
    names = [name.rpartition("/")[2] for name in tree(out)]
    assert f"{len(names)} files" in done.stdout
    assert {name.rpartition(".")[2] for name in names} == {"dcm", "gif"}
    assert all(name.endswith((".1.dcm", ".gif")) for name in names)
    done = types("get", "--include", "*.nii", "XNAT_E00001/scans", out, code=1)
    assert "no file *.nii there" in done.stderr


def test_flat_and_zip(types: Type, server, tmp_path) -> None:
    whole = Rest(server).files(f"{HELD}/scans/4/resources/DICOM")
    types("get", "--flat", SCAN4 + "/resources/DICOM", tmp_path / "flat")
    assert tree(tmp_path / "flat") == whole
    done = types("get", SCAN4 + "/resources/DICOM", tmp_path / "scan.zip", code=2)
    assert "--zip makes a zip" in done.stderr
    types("get", "--zip", SCAN4 + "/resources/DICOM", tmp_path / "scan.zip")
    with zipfile.ZipFile(tmp_path / "scan.zip") as archive:
        assert archive.testzip() is None
        packed = {name: archive.read(name) for name in archive.namelist()}
    assert packed == {f"{IN_ZIP}/{name}": body for name, body in whole.items()}
    shared = "/projects/SHARED00/subjects/Haofei_shared/experiments/Shared_MR1/scans/4"
    clash = types("get", "--flat", SCAN4, shared, tmp_path / "clash", code=2)
    assert "without --flat" in clash.stderr
    assert not (tmp_path / "clash").exists()


def test_get_by_accession_by_address_and_into_this_folder(
    types: Type, server, tmp_path, monkeypatch
) -> None:
    types("get", "XNAT_E00001/resources/QC", tmp_path / "one")
    types("get", f"{server.url}/data{HELD}/resources/QC", tmp_path / "two")
    assert tree(tmp_path / "one") == tree(tmp_path / "two") != {}
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    types("get", QC)
    assert tree(tmp_path / "here") == tree(tmp_path / "one")


def test_errors_say_what_and_where(types: Type, tmp_path) -> None:
    done = types("get", f"/{SESSION}X", tmp_path / "out", code=1)
    assert "did you mean Haofei01_MR1" in done.stderr
    done = types("get", QC, "/proc/nowhere/out", code=1)
    assert "/proc/nowhere/out" in done.stderr
    assert types("get", code=2).stderr.startswith("xnatfs: ")
    assert types("put", code=2).stderr.startswith("xnatfs: ")


def test_a_fault_that_stays_is_told_and_leaves_no_half_file(types: Type, server, tmp_path) -> None:
    server.faults.add(Fault(kind="reset", path="qc.csv", verb="GET"))
    done = types("get", "--io-timeout", "2", "--json", QC, tmp_path / "out", code=3)
    assert "qc.csv" in done.stderr
    summary = json.loads(done.stdout)
    assert (summary["files"], summary["done_files"]) == (1, 0)
    assert summary["failed"][0]["path"].endswith("qc.csv")
    assert tree(tmp_path / "out") == {}


@pytest.fixture
def large(tmp_path: Path) -> Iterator[DemoServer]:
    order = Order(sessions=1, scans=2, files=2, file_size=9 << 20)
    server = DemoServer(ServerOptions(root=tmp_path / "large", sample="small", order=order))
    server.start()
    yield server
    server.stop()


def test_an_interrupted_get_goes_on_where_it_was(user: Desk, large, tmp_path) -> None:
    path = f"/projects/{PROJECT}/subjects/S00001"
    words = [XNATFS, "get", "--json", path, str(tmp_path / "out")]
    variables = user.variables | {"XNAT_HOST": large.url}
    # It stops in the middle of the last file, for as long as nobody ends it.
    stalled = Fault(kind="stall", path="scans/2/", verb="GET", bytes=1 << 20, seconds=60)
    large.faults.add(stalled)
    with subprocess.Popen(
        words, env=variables, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as running:
        assert within(30, lambda: len(complete(tmp_path / "out")) >= 2)
        running.send_signal(signal.SIGINT)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert "the same command goes on from there" in errors
    assert complete(tmp_path / "out") == list(tree(tmp_path / "out"))
    large.faults.clear()
    large.clear_log()
    done = subprocess.run(words, env=variables, capture_output=True, text=True, check=True)
    summary = json.loads(done.stdout)
    assert summary["done_files"] == 4
    assert summary["here_files"] >= 2
    assert summary["fetched"] <= 2 * (9 << 20)
    assert {len(body) for body in tree(tmp_path / "out").values()} == {9 << 20}


def test_what_a_killed_get_left_goes_and_another_s_work_stays(
    user: Desk, large, types: Type, tmp_path
) -> None:
    path = f"/projects/{PROJECT}/subjects/S00001"
    out = tmp_path / "out"
    words = [XNATFS, "get", path, str(out)]
    large.faults.add(Fault(kind="stall", path="scans/2/", verb="GET", bytes=1 << 20, seconds=60))
    with subprocess.Popen(words, env=user.variables | {"XNAT_HOST": large.url}) as running:
        assert within(30, lambda: len(tree(out)) > len(complete(out)) >= 2)
        # Nobody takes away what somebody is at.
        types("get", "--io-timeout", "2", path, out, XNAT_HOST=large.url, code=3)
        assert running.poll() is None
        assert len(tree(out)) > len(complete(out))
        running.kill()
    large.faults.clear()
    types("get", path, out, XNAT_HOST=large.url)
    assert complete(out) == list(tree(out))
    assert {len(body) for body in tree(out).values()} == {9 << 20}


def test_a_full_disk_is_told_once(types: Type, server, tmp_path) -> None:
    """And nothing more is asked for."""
    tiny = tmp_path / "tiny"
    tiny.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "none", tiny], check=True)
    try:
        done = types("get", "--json", SCAN4, tiny / "out", code=1)
        files = json.loads(done.stdout)["files"]
        assert 0 < len(complete(tiny / "out")) < files
        assert complete(tiny / "out") == list(tree(tiny / "out"))
        first, *named = done.stderr.splitlines()
        assert first.startswith("xnatfs: 1 file failed, ")
        assert first.endswith(" files not tried:")
        (line,) = named
        assert "no space on the local disk" in line
    finally:
        subprocess.run(["umount", tiny], check=True)


def test_a_server_that_is_gone_is_not_asked_for_every_file(types: Type, tmp_path) -> None:
    order = Order(sessions=1, scans=1, files=60, file_size=1000)
    server = DemoServer(ServerOptions(root=tmp_path / "many", sample="none", order=order))
    server.start()
    try:
        server.faults.add(Fault(kind="status", code=503, path="scans/1/resources/"))
        words = ["get", "--io-timeout", "1", "--json", f"/projects/{PROJECT}", tmp_path / "out"]
        done = types(*words, XNAT_HOST=server.url, code=3)
    finally:
        server.stop()
    summary = json.loads(done.stdout)
    assert summary["files"] == 60
    assert 1 <= len(summary["failed"]) < 20
    untried = 60 - summary["done_files"] - len(summary["failed"])
    assert f"{untried} files not tried" in done.stderr


def test_a_machine_without_libfuse_will_do(user: Desk, server, tmp_path) -> None:
    """Importing fusepy fails, as it does without libfuse."""
    (tmp_path / "no-fuse").mkdir()
    (tmp_path / "no-fuse" / "fuse.py").write_text("raise OSError('Unable to find libfuse')\n")
    user.variables |= {"PYTHONPATH": str(tmp_path / "no-fuse")}
    done = user.xnatfs("get", QC, tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(tree(tmp_path / "out")) == 1


# prefetch


def test_prefetch_fetches_once_and_says_so(types: Type, server, tmp_path) -> None:
    done = types("prefetch", "--json", SCAN4, f"/{SESSION}/resources/QC")
    summary = json.loads(done.stdout)
    assert summary["files"] == summary["done_files"] > 3
    assert summary["here_files"] == 0
    assert summary["fetched"] >= summary["bytes"]
    server.clear_log()
    again = json.loads(types("prefetch", "--json", SCAN4).stdout)
    assert again["here_files"] == again["files"]
    assert again["fetched"] == 0
    assert downloads(server) == []


def test_prefetch_of_one_kind_of_resource(types: Type, server) -> None:
    types("prefetch", f"/{SESSION}", "--resource", "QC")
    assert len(downloads(server)) == 1
    # Listed is all, and read without a network is what was fetched.
    server.clear_log()
    done = types("ls", "--offline", "-R", f"/{SESSION}")
    assert "qc.csv" in done.stdout
    assert "scans/4/resources/DICOM/files" in done.stdout
    assert server.log == []


def test_prefetch_of_a_resource_that_is_not_there(types: Type, server) -> None:
    done = types("prefetch", f"/{SESSION}", "--resource", "DICM", code=1)
    (line,) = done.stderr.splitlines()
    assert "no files of resource DICM there; it has DICOM, " in line


def test_prefetch_that_does_not_fit_says_so_first(types: Type, server) -> None:
    done = types("prefetch", "--cache-size", "10K", SCAN4, code=1)
    assert "--cache-size" in done.stderr
    assert downloads(server) == []


def test_get_without_a_network_from_what_was_prefetched(types: Type, server, tmp_path) -> None:
    held = Rest(server).files(f"{HELD}/resources/QC")
    types("prefetch", QC)
    server.clear_log()
    types("get", "--offline", "--flat", QC, tmp_path / "out")
    assert tree(tmp_path / "out") == held
    done = types("get", "--offline", SCAN4, tmp_path / "out", code=3)
    assert "--offline" in done.stderr
    assert server.log == []


# put


def test_put_makes_the_resource_and_sends_once(types: Type, server, tmp_path) -> None:
    files = {"a.nii.gz": b"a" * 5000, "größe #1.txt": b"b", "empty": b""}
    for name, body in files.items():
        (tmp_path / name).write_bytes(body)
    to = SCAN4 + "/resources/OUT"
    done = types("put", *[tmp_path / name for name in files], to)
    assert done.stdout.startswith("3 files (")
    rest = Rest(server)
    rows = rest.rows(f"/data{HELD}/scans/4/resources?format=json")
    (number,) = [row["xnat_abstractresource_id"] for row in rows if row["label"] == "OUT"]
    assert rest.files(f"{HELD}/scans/4/resources/{number}") == files
    server.clear_log()
    assert "3 of them before" in types("put", *[tmp_path / name for name in files], to).stdout
    assert asked(server, "PUT", "/files") == asked(server, "POST", "/files") == []
    # A file of our own that was changed is replaced.
    (tmp_path / "a.nii.gz").write_bytes(b"other")
    types("put", tmp_path / "a.nii.gz", to + "/files")
    assert rest.files(f"{HELD}/scans/4/resources/{number}")["a.nii.gz"] == b"other"


def test_put_of_folders(types: Type, server, tmp_path) -> None:
    folder = tmp_path / "results"
    (folder / "sub").mkdir(parents=True)
    (folder / "a.txt").write_bytes(b"a")
    (folder / "sub" / "b.txt").write_bytes(b"b")
    (folder / "sub" / "b.log").write_bytes(b"not wanted")
    to = f"/{SESSION}/resources/RESULTS"
    assert "-r sends" in types("put", folder, to, code=2).stderr
    types("put", "-r", "--include", "*.txt", folder, to)
    wanted = {"results/a.txt": b"a", "results/sub/b.txt": b"b"}
    assert Rest(server).files(f"{HELD}/resources/RESULTS") == wanted
    (folder / "link.txt").symlink_to("a.txt")
    assert "--follow-links" in types("put", "-r", folder, to, code=2).stderr
    types("put", "-r", "--follow-links", "--include", "*.txt", folder, to)
    wanted["results/link.txt"] = b"a"
    assert Rest(server).files(f"{HELD}/resources/RESULTS") == wanted


def test_put_says_first_what_cannot_be_sent(types: Type, server, tmp_path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder in (one, two):
        folder.mkdir()
        (folder / "a.txt").write_bytes(folder.name.encode())
    to = f"/{SESSION}/resources/ODD"
    done = types("put", one / "a.txt", two / "a.txt", to, code=2)
    assert f"{one}/a.txt and {two}/a.txt would both be a.txt" in done.stderr
    assert types("put", one / "a.txt", one / "a.txt", QC).stdout.startswith("1 file (3 B)")
    server.clear_log()
    os.mkfifo(one / "pipe")
    for what in (one, one / "pipe"):
        done = types("put", "-r", what, to, code=2)
        assert "pipe is neither a file nor a folder" in done.stderr
    (one / "pipe").unlink()
    (one / "up").symlink_to("..")
    done = types("put", "-r", "--follow-links", one, to, code=2)
    assert "up is a link to a folder that it lies in" in done.stderr
    (one / "up").unlink()
    (one / "lost").symlink_to("nowhere")
    done = types("put", "-r", "--follow-links", one, to, code=1)
    assert "lost is a link that leads nowhere" in done.stderr
    (one / "lost").unlink()
    assert asked(server, "PUT") == []
    # What XNAT's addresses cannot hold fails alone, one line for each.
    (one / "two\nlines.txt").write_bytes(b"x")
    done = types("put", "-r", one, to, code=1)
    assert done.stdout.startswith("1 file (3 B)")
    assert done.stderr.count("\n") == 2
    assert "one/two?lines.txt: " in done.stderr
    assert Rest(server).files(f"{HELD}/resources/ODD") == {"one/a.txt": b"one"}


def test_put_by_accession_by_address_and_by_a_link(types: Type, server, tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a")
    owners = [
        "XNAT_E00001",
        f"{server.url}/data/experiments/XNAT_E00001",
        f"/projects/PVT000/experiments/{SESSION.rpartition('/')[2]}",
    ]
    for number, owner in enumerate(owners):
        done = types("put", tmp_path / "a.txt", f"{owner}/resources/OUT{number}")
        assert done.stdout == f"1 file (1 B) in /{SESSION}/resources/OUT{number}/files\n"
        assert Rest(server).files(f"{HELD}/resources/OUT{number}") == {"a.txt": b"a"}
    inside = f"/{SESSION}/resources/OUT0/files/resources/OUT1"
    assert f" in {inside}\n" in types("put", tmp_path / "a.txt", inside).stdout
    assert "resources/OUT1/a.txt" in Rest(server).files(f"{HELD}/resources/OUT0")
    done = types("put", tmp_path / "a.txt", "XNAT_E99999/resources/OUT", code=1)
    assert "no XNAT_E99999 in /experiments" in done.stderr


def test_put_replaces_nobody_elses_file(types: Type, server, tmp_path) -> None:
    (tmp_path / "qc.csv").write_bytes(b"mine")
    done = types("put", tmp_path / "qc.csv", QC, code=5)
    assert "--allow-overwrite" in done.stderr
    types("put", "--allow-overwrite", tmp_path / "qc.csv", QC)
    assert Rest(server).files(f"{HELD}/resources/QC")["qc.csv"] == b"mine"


def test_put_that_does_not_arrive_keeps_the_data(types: Type, server, tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a")
    server.faults.add(Fault(kind="status", path="/files", verb="PUT", code=503))
    server.faults.add(Fault(kind="status", path="/files", verb="POST", code=503))
    done = types("put", "--io-timeout", "1", tmp_path / "a.txt", QC, code=75)
    assert "xnatfs uploads" in done.stderr
    server.faults.clear()
    types("uploads", "send")
    assert Rest(server).files(f"{HELD}/resources/QC")["a.txt"] == b"a"


def test_put_where_one_may_not(types: Type, tmp_path) -> None:
    (tmp_path / "a.txt").write_bytes(b"a")
    reader = {"XNAT_USER": "reader", "XNAT_PASS": "reader"}
    types("put", tmp_path / "a.txt", QC, code=5, **reader)
    types("put", tmp_path / "a.txt", f"/{SESSION}", code=2)
    done = types("put", tmp_path / "a.txt", f"{QC}/files/../a", code=1)
    assert "'..' is no name here" in done.stderr


# verify


def test_verify_tells_missing_different_and_extra(types: Type, server, tmp_path) -> None:
    out = tmp_path / "out"
    types("get", SCAN4 + "/resources/DICOM", out)
    server.clear_log()
    files = sorted(path for path in out.rglob("*") if path.is_file())
    for folder in (out, out / "Haofei01_MR1", files[0].parent):
        assert types("verify", folder, SCAN4 + "/resources/DICOM").stdout.endswith("the same\n")
    flat = tmp_path / "flat"
    flat.mkdir()
    for path in files:
        os.link(path, flat / path.name)
    assert (
        f"{len(files)} files the same" in types("verify", flat, SCAN4 + "/resources/DICOM").stdout
    )
    assert downloads(server) == []
    (out / "notes.txt").write_text("mine")
    assert "extra      notes.txt" in types("verify", out, SCAN4 + "/resources/DICOM").stdout
    files[0].unlink()
    body = files[1].read_bytes()
    files[1].unlink()
    files[1].write_bytes(body[:-1] + bytes([body[-1] ^ 1]))
    done = types("verify", out, SCAN4 + "/resources/DICOM", code=1)
    assert f"missing    {files[0].relative_to(out)}" in done.stdout
    assert f"different  {files[1].relative_to(out)}" in done.stdout
    found = json.loads(types("verify", "--json", out, SCAN4 + "/resources/DICOM", code=1).stdout)
    assert (len(found["missing"]), len(found["different"])) == (1, 1)


# cache, refresh, url


def test_the_store_is_told_checked_and_emptied(user: Desk, types: Type, server) -> None:
    assert "nothing is kept" in types("cache").stdout
    types("prefetch", QC)
    (row,) = json.loads(types("cache", "info", "--json").stdout)
    assert (row["server"], row["account"]) == (server.url, "admin")
    assert row["files"] == 1
    assert "1 file, 0 damaged" in types("cache", "verify").stdout
    (content,) = (user.folder / "cache" / "xnatfs").glob("*/content/*/*")
    content.write_bytes(b"x" + content.read_bytes()[1:])
    assert "1 damaged" in types("cache", "verify", code=1).stdout
    types("get", QC, user.folder / "out")
    types("cache", "clear", "-s", "https://other.example.edu")
    assert json.loads(types("cache", "--json").stdout)[0]["files"] == 1
    types("cache", "clear")
    assert json.loads(types("cache", "--json").stdout)[0]["files"] == 0


def test_refresh_of_a_path_of_the_archive(types: Type, server) -> None:
    words = ("ls", "--metadata-ttl", "20m")
    types(*words, QC + "/files")
    types(*words, f"/{SESSION}/resources/NAMES/files")
    Rest(server).ask("PUT", f"/data{HELD}/resources/QC/files/new.csv?inbody=true", b"new")
    assert "new.csv" not in types(*words, QC + "/files").stdout
    types("refresh", "--metadata-ttl", "20m", QC)
    server.clear_log()
    assert "new.csv" in types(*words, QC + "/files").stdout
    types(*words, "/projects/PVT000/subjects")
    assert asked(server, "GET", "/subjects?") == []


def test_url(types: Type, server) -> None:
    base = f"{server.url}/data"
    for path, address in (
        (f"/{SESSION}", HELD),
        (SCAN4, f"{HELD}/scans/4"),
        (f"/{SESSION}/scans", f"{HELD}/scans"),
        (f"/{SESSION}/resources/QC/files/qc.csv", f"{HELD}/resources/6/files/qc.csv"),
        ("XNAT_E00001", HELD),
    ):
        assert types("url", path).stdout == f"{base}{address}\n"
    page = types("url", "--page", SCAN4).stdout.strip()
    assert page.startswith(f"{server.url}/app/action/DisplayItemAction/search_value/XNAT_E00001")
    # What it prints is understood again.
    assert types("ls", page).stdout == types("ls", f"/{SESSION}").stdout
    assert types("ls", types("url", QC).stdout.strip()).stdout == types("ls", QC).stdout
