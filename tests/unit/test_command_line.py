from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import pytest

from xnatfs import errors
from xnatfs.cli import exits, main, shown
from xnatfs.cli.parting import say_farewell
from xnatfs.fuse.errnos import TABLE
from xnatfs.fuse.farewell import Farewell
from xnatfs.fuse.readiness import how_to_install, os_release

KINDS = [
    kind
    for _, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, errors.XnatfsError)
]


@pytest.mark.parametrize("kind", KINDS)
def test_every_error_has_an_errno(kind: type[errors.XnatfsError]) -> None:
    assert kind in TABLE
    assert TABLE[kind].errno > 0


@pytest.mark.parametrize(
    ("kind", "code"),
    [
        (errors.UsageError, 2),
        (errors.NotFound, 1),
        (errors.FolderNotEmpty, 1),
        (errors.InUse, 1),
        (errors.Unreachable, 3),
        (errors.NotXnat, 3),
        (errors.ServerBusy, 3),
        (errors.LoginRefused, 4),
        (errors.NotPermitted, 5),
        (errors.Protected, 5),
        (errors.FuseUnusable, 6),
        (errors.NoSpace, 1),
        (errors.Interrupted, 130),
    ],
)
def test_exit_codes(kind: type[errors.XnatfsError], code: int) -> None:
    assert exits.code_of(kind("why")) == code


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = main(words)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["frobnicate"], "xnatfs: unknown verb 'frobnicate'\n"),
        (["unmount"], "xnatfs: unknown verb 'unmount'; did you mean umount?\n"),
        (["fnid", "/projects/P"], "xnatfs: unknown verb 'fnid'; did you mean find?\n"),
        (["--server=x", "ls"],
         "xnatfs: unrecognized argument --server; options stand after the verb "
         "(see `xnatfs --help`)\n"),
        (["prefetch", ""], "xnatfs: a PATH is empty (a variable that is not set?); "
         'the whole archive is "/"\n'),
        (["ls", "/", "-s", "http://[x"],
         "xnatfs: the server's address is none: Invalid IPv6 URL\n"),
        (["find", "P", "extra"],
         "xnatfs: unrecognized argument extra (see `xnatfs find --help`)\n"),
        (["lab", "/x", "-orw,bogus"], "xnatfs: -o: unknown option 'bogus'\n"),
        (["umount"], "xnatfs: the following arguments are required: MOUNTPOINT "
         "(see `xnatfs umount --help`)\n"),
        (["ls", "--bogus"], "xnatfs: unrecognized argument --bogus (see `xnatfs ls --help`)\n"),
        (["mount", "https://a.b", "/x", "-o", "bogus"], "xnatfs: -o: unknown option 'bogus'\n"),
        (["https://a.b", "/x", "-o", "bogus"], "xnatfs: -o: unknown option 'bogus'\n"),
        (["umount", "/x", "--wait", "long"],
         "xnatfs: --wait: a time is given in seconds, or as 15m, 12h or 30d\n"),
        (["demo", "--port", "1"], "xnatfs: --port belongs to --serve\n"),
    ],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_2(
    capsys: pytest.CaptureFixture[str], words: list[str], line: str
) -> None:
    assert run(capsys, *words) == (2, "", line)


def test_a_mount_point_is_looked_at_before_any_server(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    missing = tmp_path / "none"
    code, _, err = run(capsys, "mount", "http://127.0.0.1:1", str(missing))
    assert (code, err.count("\n")) == (1, 1)
    assert f"{missing}: the mount point does not exist" in err


def test_nothing_heavy_is_imported_for_the_help() -> None:
    script = (
        "import sys, xnatfs.cli\n"
        "try:\n    xnatfs.cli.main(['--help'])\nexcept SystemExit: pass\n"
        "heavy = {'requests', 'urllib3', 'fuse', 'xnatfs.fs', 'cachetools'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    for verb in ("mount", "umount", "ls", "status", "uploads", "doctor", "demo"):
        assert f"  {verb} " in done.stdout


def test_a_reader_that_goes_away_is_no_error() -> None:
    command = [sys.executable, "-m", "xnatfs", "mount", "--help"]
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
    os.close(writing)
    assert done.stderr == b""


def test_a_farewell_with_nothing_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    assert say_farewell(Farewell(sent_files=2, sent_bytes=25_200_000)) == 0
    assert capsys.readouterr() == ("2 files arrived (25.2 MB)\n", "")


def test_a_farewell_names_what_could_not_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [{"path": f"/{name}", "reason": "broken", "time": 1.0} for name in "ab"]
    assert say_farewell(Farewell(read_failures=failures)) == 74
    err = capsys.readouterr().err
    assert err == "xnatfs: 2 files could not be read:\n  /a: broken\n  /b: broken\n"


def test_a_farewell_with_lost_uploads_counts_more(capsys: pytest.CaptureFixture[str]) -> None:
    failures = [{"path": "/a", "reason": "broken", "time": 1.0}]
    pending = [{"path": "/n.nii", "error": "no right"}]
    assert say_farewell(Farewell(pending=pending, read_failures=failures)) == 75
    err = capsys.readouterr().err
    assert "1 file did not arrive" in err
    assert "/n.nii: no right" in err


@pytest.mark.parametrize(
    ("release", "command"),
    [
        ({"ID": "debian", "VERSION_ID": "12"}, "apt install libfuse2 fuse3"),
        ({"ID": "debian", "VERSION_ID": "13"}, "apt install libfuse2t64 fuse3"),
        (
            {"ID": "ubuntu", "ID_LIKE": "debian", "VERSION_ID": "22.04"},
            "apt install libfuse2 fuse3",
        ),
        ({"ID": "ubuntu", "VERSION_ID": "24.04"}, "apt install libfuse2t64 fuse3"),
        ({"ID": "fedora", "VERSION_ID": "41"}, "dnf install fuse fuse-libs"),
        ({"ID": "rocky", "ID_LIKE": "rhel centos fedora"}, "dnf install fuse fuse-libs"),
        ({"ID": "opensuse-leap", "ID_LIKE": "suse opensuse"}, "zypper install libfuse2 fuse"),
    ],
)
def test_packages_by_distribution(release: dict[str, str], command: str) -> None:
    assert how_to_install(release) == command


def test_os_release(tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc/os-release").write_text('ID=debian\nPRETTY_NAME="Debian 12"\n# no\n')
    assert os_release(tmp_path) == {"ID": "debian", "PRETTY_NAME": "Debian 12"}
    assert os_release(tmp_path / "none") == {}


ROWS = [{"name": "a,b", "title": 'q"<&>'}, {"name": "bell\x07"}]


def test_formats() -> None:
    columns = ["name", "title"]
    assert shown.render(ROWS, columns, "table") == 'name   title\na,b    q"<&>\nbell?\n'
    assert shown.render(ROWS, columns, "csv") == 'name,title\n"a,b","q""<&>"\nbell\x07,\n'
    assert '"name": "a,b"' in shown.render(ROWS, columns, "json")
    assert "&lt;&amp;&gt;" in shown.render(ROWS, columns, "xml")
    assert "<td>q&quot;&lt;&amp;&gt;</td>" in shown.render(ROWS, columns, "html")


@pytest.mark.parametrize("form", shown.FORMATS)
def test_formats_of_nothing(form: str) -> None:
    assert shown.render([], ["name"], form)


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (130_200, "130.2 KB"), (25_165_824, "25.2 MB")]
)
def test_bytes(count: int, text: str) -> None:
    assert shown.bytes_text(count) == text
