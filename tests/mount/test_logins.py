"""Logins for jobs: tokens in the place of passwords, kept, renewed, ended and revoked."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import OpenDesk
from tests.core.driver import Rest
from tests.mount.desk import HELD, PLAIN, SESSION, XNATFS, Desk, process, within
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.demo.users import AliasToken

LS = ("ls", f"/{SESSION}/resources/NAMES/files")


@pytest.fixture
def worker(open_a_desk: OpenDesk, server: DemoServer) -> Desk:
    """A member who has no password in the environment."""
    return without_password(open_a_desk(server.url, "member"))


def without_password(desk: Desk) -> Desk:
    del desk.variables["XNAT_USER"], desk.variables["XNAT_PASS"]
    desk.variables["XNAT_HOST"] = desk.url
    return desk


def typing(desk: Desk, text: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a command with lines on its standard input."""
    return subprocess.run(
        [XNATFS, *words], env=desk.variables, input=text, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip


def log_in(desk: Desk) -> AliasToken:
    done = typing(desk, "member\nmember\n", "login")
    assert (done.returncode, done.stderr) == (0, "")
    return kept_token(desk)


def login_file(desk: Desk) -> Path:
    (file,) = (desk.state / "login").glob("*.json")
    return file


def kept_token(desk: Desk) -> AliasToken:
    record = json.loads(login_file(desk).read_text())
    return AliasToken(record["user"], record["secret"], record["account"], 0, 0, 0)


def one_line(done: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for part in parts:
        assert part in done.stderr


def test_a_token_in_the_place_of_a_password(worker: Desk, server: DemoServer) -> None:
    one_line(worker.xnatfs(*LS), 2, "no login found", "xnatfs login")
    done = typing(worker, "member\nmember\n", "login")
    assert (done.returncode, done.stderr) == (0, "")
    assert f"logged in to {server.url} as member: it ends on " in done.stdout
    assert str(login_file(worker)) in done.stdout
    token = kept_token(worker)
    assert token.user == "member"
    known = server.site.accounts.tokens.get(token.alias)
    assert known is not None
    assert known.secret == token.secret
    # Only its owner reads it, and the password is nowhere.
    assert login_file(worker).stat().st_mode & 0o777 == 0o600
    assert login_file(worker).parent.stat().st_mode & 0o777 == 0o700
    assert token.secret not in done.stdout
    # Now everything works without a password, and says until when.
    assert "plain.txt" in worker.xnatfs(*LS).stdout
    assert worker.xnatfs(*LS, "-u", "member").returncode == 0
    one_line(worker.xnatfs(*LS, "-u", "admin"), 2, "no login found for 'admin'")
    assert f"stored login: {server.url} as member: it ends on " in worker.xnatfs("status").stdout
    (told,) = json.loads(worker.xnatfs("status", "--json").stdout)["logins"]
    assert (told["server"], told["user"]) == (server.url, "member")
    assert told["expires"] == known.expires / 1000
    doctor = worker.xnatfs("doctor").stdout
    assert f"{server.url} as member" in doctor
    assert "by the stored login: it ends on " in doctor
    with worker.mounted() as point:
        assert (point / PLAIN).read_text() == "plain\n"
        assert worker.status()["status"]["login"]["expires"] == told["expires"]  # type: ignore[index]


def test_the_environment_comes_before_the_stored_login(worker: Desk, server: DemoServer) -> None:
    log_in(worker)
    server.clear_log()
    done = worker.xnatfs(*LS, XNAT_USER="reader", XNAT_PASS="reader")
    assert done.returncode == 0
    assert {entry.user for entry in server.log} == {"reader"}


def test_logging_out_revokes_the_token(worker: Desk, server: DemoServer) -> None:
    token = log_in(worker)
    done = worker.xnatfs("logout")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"{server.url}: the token of member is revoked\n"
    assert server.site.accounts.tokens.get(token.alias) is None
    assert list((worker.state / "login").glob("*.json")) == []
    one_line(worker.xnatfs(*LS), 2, "no login found")
    one_line(worker.xnatfs("logout"), 1, "no login is stored")
    # One that had ended at the server is forgotten too.
    server.site.accounts.tokens.drop(log_in(worker).alias)
    server.expire_sessions()
    done = worker.xnatfs("logout")
    assert done.returncode == 0
    assert "was not valid any more" in done.stdout


def test_a_token_that_could_not_be_revoked_is_kept(worker: Desk, server: DemoServer) -> None:
    token = log_in(worker)
    server.stop()
    one_line(worker.xnatfs("logout", "--io-timeout", "3"), 3, "not revoked", "127.0.0.1")
    assert kept_token(worker) == token


def test_a_token_made_in_the_browser(worker: Desk, server: DemoServer) -> None:
    made = server.site.accounts.issue("member")
    wrong = typing(worker, f"{made.alias}\nnot-the-secret\n", "login", "--token")
    one_line(wrong, 4, "the token given", "refused")
    assert "not-the-secret" not in wrong.stderr
    assert not (worker.state / "login").exists()
    one_line(typing(worker, f"{made.alias}\n", "login", "--token"), 2, "standard input ended")
    done = typing(worker, f"{made.alias}\n{made.secret}\n", "login", "--token")
    assert (done.returncode, done.stderr) == (0, "")
    assert " as member: it ends on " in done.stdout
    record = json.loads(login_file(worker).read_text())
    assert (record["user"], record["account"]) == (made.alias, "member")
    assert record["expires"] == made.expires / 1000
    assert worker.xnatfs(*LS).returncode == 0


def test_a_wrong_password_stores_nothing(worker: Desk, server: DemoServer) -> None:
    one_line(typing(worker, "member\nguessed\n", "login"), 4, "'member'", "refused")
    assert [entry.status for entry in server.log] == [401]
    assert not (worker.state / "login").exists()
    one_line(typing(worker, "", "login"), 2, "standard input ended")
    log_in(worker)


def test_a_job_that_finds_its_token_ended_says_so(worker: Desk, server: DemoServer) -> None:
    log_in(worker)
    record = json.loads(login_file(worker).read_text())
    record |= {"expires": 1_700_000_000.0, "issued": 1_600_000_000.0}
    login_file(worker).write_text(json.dumps(record))
    server.site.accounts.tokens.drop(record["user"])
    mount = worker.xnatfs("mount", worker.url, worker.point)
    one_line(mount, 4, "the token of 'member'", "ended on 2023-11-", "xnatfs login")
    one_line(worker.xnatfs(*LS), 4, "ended on 2023-11-", "xnatfs login")
    assert record["secret"] not in mount.stderr
    assert "it ended on 2023-11-" in worker.xnatfs("status").stdout


def test_a_mount_lives_on_after_a_new_login(worker: Desk, server: DemoServer) -> None:
    """Its token was revoked; the next ``xnatfs login`` is its login too."""
    worker.expected.append("the token of 'member' (the stored login) is refused: it was revoked")
    log_in(worker)
    with worker.mounted("-o", "metadata_ttl=0") as point:
        server.site.accounts.tokens.drop(kept_token(worker).alias)
        server.expire_sessions()
        with pytest.raises(PermissionError):
            os.listdir(point / SESSION / "scans")
        assert "  login: 127.0.0.1:" in worker.xnatfs("status").stdout
        log_in(worker)
        assert "4" in os.listdir(point / SESSION / "scans")
        assert (point / PLAIN).read_text() == "plain\n"


@contextmanager
def short_lived(root: Path) -> Iterator[DemoServer]:
    server = DemoServer(ServerOptions(root=root, sample="small", token_life_s=15.0))
    server.start()
    yield server
    server.stop()


def test_a_token_is_renewed_before_it_ends(
    small_archive: Path, tmp_path: Path, open_a_desk: OpenDesk
) -> None:
    with short_lived(shutil.copytree(small_archive, tmp_path / "server")) as server:
        desk = without_password(open_a_desk(server.url, "member"))
        first = log_in(desk)
        with desk.mounted("-o", "metadata_ttl=0") as point:
            assert within(30, lambda: kept_token(desk).secret != first.secret)
            # The mount itself goes on with the new one.
            server.site.accounts.tokens.drop(first.alias)
            server.expire_sessions()
            assert "4" in os.listdir(point / SESSION / "scans")
            assert (point / PLAIN).read_text() == "plain\n"


def test_a_stored_login_that_others_can_read_is_refused(worker: Desk) -> None:
    log_in(worker)
    login_file(worker).chmod(0o644)
    one_line(worker.xnatfs(*LS), 2, "others may read it (mode 0644)", "chmod 600")
    doctor = worker.xnatfs("doctor")
    assert f"warning passwords       {login_file(worker)}: others may read it" in doctor.stdout
    # What is not needed does not stop anybody.
    assert worker.xnatfs(*LS, XNAT_USER="member", XNAT_PASS="member").returncode == 0


def test_doctor_warns_of_passwords_that_others_see(desk: Desk) -> None:
    quiet = desk.xnatfs("doctor").stdout
    assert "warning" not in quiet
    netrc = Path(desk.variables["HOME"]) / ".netrc"
    netrc.write_text("machine xnat.example.edu login ada password hunter2\n")
    netrc.chmod(0o640)
    done = desk.xnatfs("doctor", desk.url, PBS_JOBID="4711.server")
    assert done.returncode == 0
    assert f"{netrc}: others may read it (mode 0640); run: chmod 600 {netrc}" in done.stdout
    assert "qstat -f" in done.stdout
    assert "hunter2" not in done.stdout


@pytest.mark.parametrize(
    ("then", "status"),
    [
        # What was written before is kept and named.
        ("exec 9>&-", 75),
        # What needs the server now is an error.
        ("exec 9>&-; mkdir AGAIN", 1),
    ],
)
def test_a_login_that_ends_during_a_job_loses_nothing(
    worker: Desk, server: DemoServer, tmp_path: Path, then: str, status: int
) -> None:
    """`run` ends with the command's status, else with 75; with 125 if it ended before."""
    why = "the token of 'member' (the stored login) is refused"
    worker.expected.append(why)
    log_in(worker)
    gone = tmp_path / "gone"
    script = f"""
        cd "$XNATFS_MOUNT/{SESSION}/resources" && mkdir LATE
        exec 9>LATE/files/late.txt; echo late >&9
        touch {tmp_path}/up
        until [ -e {gone} ]; do sleep 0.1; done
        {then}
    """
    with process(XNATFS, "run", "--", "sh", "-euc", script, env=worker.variables) as job:
        assert within(30, (tmp_path / "up").exists)
        server.site.accounts.tokens.drop(kept_token(worker).alias)
        server.expire_sessions()
        gone.touch()
        _, said = job.communicate(timeout=60)
    assert job.returncode == status, said
    assert f"xnatfs: {server.url.removeprefix('http://')}: {why}" in said
    assert "1 file did not arrive; the data is kept, see `xnatfs uploads`" in said
    one_line(worker.xnatfs("run", "--", "true"), 125, why, "xnatfs login")
    log_in(worker)
    assert worker.xnatfs("uploads", "send").returncode == 0
    assert Rest(server).files(f"{HELD}/resources/LATE") == {"late.txt": b"late\n"}
