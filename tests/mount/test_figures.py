"""What a mount tells of itself: its log, its figures for programs, and a report for strangers."""

from __future__ import annotations

import json
import logging
import os
import re
import stat
from pathlib import Path

import pytest

from tests.mount.desk import PLAIN, SESSION, Desk, within
from xnatfs import logs
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer

QC = f"/{SESSION}/resources/QC/files/qc.csv"

# What a program does, what it hears, and the one line of the log.
FAILURES = {
    "read": (
        "cat resources/NAMES/files/plain.txt", "Input/output error",
        r"ERROR .*: cannot read \S*/NAMES/files/plain.txt: .*500",
    ),
    "close": (
        "echo x > resources/QC/files/new", "",
        r"WARNING .*: flush '\S*/QC/files/new': .*500",
    ),
    "overwrite": (
        "echo x > resources/QC/files/qc.csv", "Operation not permitted",
        r"INFO .*: open '\S*/QC/files/qc.csv': .*--allow-overwrite",
    ),
    "remove": (
        "rm resources/QC/files/qc.csv", "Operation not permitted",
        r"INFO .*: unlink '\S*/QC/files/qc.csv': .*--allow-delete",
    ),
    "name": (
        "echo x > 'resources/QC/files/a;b'", "Invalid argument",
        r"WARNING .*: create '\S*/QC/files/a;b': .*';'",
    ),
}  # fmt: skip


def test_one_line_for_a_failed_operation(desk: Desk, server: DemoServer) -> None:
    """Path and cause, once; nothing for names that are not there."""
    desk.expected.append("")
    log = desk.folder / "logs" / "mount.log"
    server.faults.add(Fault(kind="status", path="/files/plain", code=500))
    server.faults.add(Fault(kind="status", verb="PUT", path="/files/new", code=500))
    desk.mount("--log-file", str(log), "--io-timeout", "5")
    desk.works("ls resources/QC/files; ls > /dev/null; test ! -e nothing")
    for command, heard, wanted in FAILURES.values():
        before = log.read_text()
        done = desk.shell(command)
        assert heard in done.stderr
        said = log.read_text().removeprefix(before).splitlines()
        found = [line for line in said if re.search(wanted, line)]
        loud = [line for line in said if " WARNING " in line or " ERROR " in line]
        # Attempts that are repeated are told of, too, but not as failures.
        assert len(found) == 1, (command, said)
        assert loud in ([], found)
    assert "nothing" not in log.read_text()
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    errors = desk.status()["status"]["errors"]  # type: ignore[index]
    assert errors["EPERM"] == 2
    assert errors["EINVAL"] == 1
    assert "ENOENT" not in errors
    server.faults.clear()
    desk.umount()


def test_a_log_that_was_open_to_others_is_closed(desk: Desk) -> None:
    log = desk.folder / "open.log"
    log.write_text("of before\n")
    log.chmod(0o644)
    desk.mount("-o", f"log_file={log}")
    assert stat.S_IMODE(log.stat().st_mode) == 0o600
    assert desk.umount().returncode == 0
    assert log.read_text().startswith("of before\n")
    assert "mounted" in log.read_text()


def test_a_log_is_rotated_and_stays_private(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logs, "MOST_BYTES", 2000)
    root = logging.getLogger("xnatfs")
    before = root.handlers[:], root.level, root.propagate
    try:
        logs.set_up("info", tmp_path / "x.log")
        for number in range(300):
            logging.getLogger("xnatfs.x").info("line %d", number)
    finally:
        for handler in root.handlers:
            handler.close()
        root.handlers[:], root.level, root.propagate = before
    files = sorted(tmp_path.iterdir())
    assert [file.name for file in files] == ["x.log", "x.log.1", "x.log.2", "x.log.3"]
    assert all(file.stat().st_size <= 2000 for file in files)
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}
    assert "line 299" in files[0].read_text()


def parsed(text: str) -> dict[str, float]:
    """The metrics by name, with the rules of the text format checked."""
    found: dict[str, float] = {}
    typed: set[str] = set()
    for line in text.splitlines():
        if match := re.fullmatch(r"# TYPE (\w+) (gauge|counter)", line):
            typed.add(match[1])
        elif not line.startswith("# HELP "):
            match = re.fullmatch(r"(\w+)\{(\w+=\"[^\"]*\",?)+\} (\S+)", line)
            assert match, line
            assert match[1] in typed, line
            found[match[1]] = found.get(match[1], 0.0) + float(match[3])
    return found


def test_figures_for_prometheus(desk: Desk, server: DemoServer) -> None:
    file = desk.folder / "xnatfs.prom"
    desk.mount("--metrics-file", str(file))
    first = file.read_text()
    assert f'server="{server.url}",mountpoint="{desk.point}"' in first
    assert parsed(first)["xnatfs_mounted"] == 1
    assert parsed(first)["xnatfs_fetched_bytes_total"] == 0
    desk.works("cat resources/NAMES/files/plain.txt; mkdir resources/M")
    desk.works("echo 12345 > resources/M/files/x")
    assert desk.shell("rm resources/QC/files/qc.csv").returncode == 1
    figures = desk.status()["status"]
    assert desk.umount().returncode == 0
    last = parsed(file.read_text())
    assert last["xnatfs_mounted"] == 0
    assert last["xnatfs_fetched_bytes_total"] == figures["downloads"]["fetched"] == 6  # type: ignore[index]
    assert (last["xnatfs_sent_files_total"], last["xnatfs_sent_bytes_total"]) == (1, 6)
    assert (last["xnatfs_pending_files"], last["xnatfs_failed_reads"]) == (0, 0)
    assert last["xnatfs_errors_total"] == 1
    # Whoever collects may read it; nothing of the archive is in it.
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert "PVT000" not in file.read_text()
    assert [path.name for path in desk.folder.glob(".xnatfs*")] == []


def test_figures_that_cannot_be_written_do_not_end_the_mount(desk: Desk) -> None:
    desk.expected.append("the metrics cannot be written")
    desk.mount("--metrics-file", "/proc/nowhere/x.prom")
    assert desk.works("ls scans")
    assert desk.umount().returncode == 0
    assert "/proc/nowhere/x.prom: the metrics cannot be written" in desk.log()


def test_a_report_has_no_names(desk: Desk, server: DemoServer) -> None:
    """Of users, hosts, servers, and objects of the archive; in findings, mounts and logs."""
    desk.expected.append("")
    server.site.accounts.add("lovelace", "hunter2", admin=True)
    desk.variables |= {"XNAT_USER": "lovelace", "XNAT_PASS": "hunter2"}
    server.faults.add(Fault(kind="status", path="/files/plain", code=500))
    desk.mount()
    assert desk.shell("cat resources/NAMES/files/plain.txt").returncode == 1
    assert desk.shell("rm resources/QC/files/qc.csv").returncode == 1
    descriptor = os.open(desk.session / "resources/QC/files/waits", os.O_WRONLY | os.O_CREAT)
    os.write(descriptor, b"x")
    done = desk.xnatfs("doctor", "--report", server.url)
    assert (done.returncode, done.stderr) == (0, "")
    wrong = desk.xnatfs("doctor", "--report", server.url, XNAT_PASS="guessed")
    assert wrong.returncode == 4
    os.close(descriptor)
    server.faults.clear()
    assert desk.umount().returncode == 74
    for text in (done.stdout, wrong.stdout):
        for name in ("lovelace", "hunter2", "guessed", "127.0.0.1", str(desk.point), "PVT000",
                     "Haofei", "XNAT_E0", "qc.csv", "plain.txt", os.uname().nodename,
                     desk.variables["HOME"]):  # fmt: skip
            assert not re.search(rf"(?<!\w){re.escape(name)}(?!\w)", text), (name, text)
    report = done.stdout
    assert "SERVER as USER, 3 projects" in report
    assert re.search(r"kernel +\S+", report)
    assert re.search(r"libfuse +version [23]: ", report)
    assert re.search(r"mount +live, process \d+", report)
    assert re.search(r"errors +.*EPERM 1", report)
    assert re.search(r"failed reads +1\n", report)
    assert re.search(r"log +1 x ERROR xnatfs.fs.tally", report)
    assert "XNAT_PASS" in report  # that it is set, not what it holds


def test_status_for_programs(desk: Desk, server: DemoServer) -> None:
    with desk.mounted() as point:
        assert (point / PLAIN).read_text() == "plain\n"
        told = json.loads(desk.xnatfs("status", "--json").stdout)
        (mount,) = told["mounts"]
        assert (mount["mountpoint"], mount["state"]) == (str(point), "live")
        login = {"source": "XNAT_USER", "expires": 0.0, "refused": ""}
        assert mount["status"]["login"] == login
        assert told["logins"] == []
    assert json.loads(desk.xnatfs("status", "--json").stdout)["mounts"] == []
    assert within(5, lambda: not list((desk.state / "mounts").glob("*.json")))
    assert server.log
