"""The session over loopback: logins, expiry, retries, TLS, and who answers at all."""

import gc
import http.server
import logging
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import trustme

from xnatfs.config import Limits, ServerSettings
from xnatfs.demo.faults import Fault
from xnatfs.demo.server import DemoServer, LogEntry, ServerOptions
from xnatfs.errors import (
    BadName,
    BadReply,
    Interrupted,
    LoginRefused,
    NotXnat,
    ServerBusy,
    TimedOut,
    TransferBroken,
    Unreachable,
)
from xnatfs.model.levels import PROJECT
from xnatfs.rest.archive import Archive
from xnatfs.rest.login import Credentials
from xnatfs.rest.session import Expects, Session
from xnatfs.waiting import Waiter

PROJECTS = "/projects"


def wait() -> Waiter:
    return Waiter(total_s=20)


def logged(server: DemoServer) -> list[LogEntry]:
    """The server's log once it is quiet: a request is noted after its reply has left."""
    count = -1
    while count != len(server.log):
        count = len(server.log)
        time.sleep(0.05)
    return list(server.log)


def forget(server: DemoServer) -> None:
    logged(server)
    server.clear_log()


@contextmanager
def serving(root: Path, **options: object) -> Iterator[DemoServer]:
    server = DemoServer(
        replace(ServerOptions(root=root / "archive", sample="small"), **options)  # type: ignore[arg-type]
    )
    server.start()
    try:
        yield server
    finally:
        server.stop()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[DemoServer]:
    with serving(tmp_path) as server:
        yield server


def session_at(
    url: str,
    state: Path,
    user: str = "admin",
    secret: str | None = None,
    *,
    jsession: str = "",
    connections: int = 8,
    shared: bool = True,
) -> Session:
    return Session(
        ServerSettings(url=url, connections=connections, shared_session=shared),
        Limits(io_timeout_s=5, connect_timeout_s=2),
        Credentials(user, user if secret is None else secret, "the test", jsession),
        state,
    )


def asked(server: DemoServer, path: str) -> list[int]:
    return [entry.status for entry in logged(server) if entry.path.startswith(path)]


def projects(session: Session) -> set[str]:
    return {item.id for item in Archive(session, "testing").items(PROJECT, None, wait())}


# -- logging in -----------------------------------------------------------------------------


@pytest.mark.parametrize("context_path", ["", "/xnat"])
def test_login(tmp_path: Path, context_path: str) -> None:
    with serving(tmp_path, context_path=context_path) as server:
        session = session_at(server.url + "/", tmp_path)
        session.open(wait())
        assert (session.user, session.url) == ("admin", server.url)
        assert projects(session) == {"PVT000", "SHARED00", "PUB000"}
        session.close()


def test_a_wrong_password_is_tried_once(server: DemoServer, tmp_path: Path) -> None:
    for _ in range(3):
        with pytest.raises(LoginRefused) as caught:
            session_at(server.url, tmp_path, "member", "hunter2").open(wait())
        text = str(caught.value)
        assert "\n" not in text
        assert "hunter2" not in text
        for cause in ("'member'", "the test", "wrong password", "expired", "sessions"):
            assert cause in text
    assert [entry.status for entry in logged(server)] == [401]
    session_at(server.url, tmp_path, "member").open(wait())


CROWD = """
import os, sys
from pathlib import Path
from xnatfs.config import Limits, ServerSettings
from xnatfs.errors import LoginRefused
from xnatfs.rest.login import Credentials
from xnatfs.rest.session import Session
from xnatfs.waiting import Waiter

url, state, secret, count = sys.argv[1:]
start, go = os.pipe()
children = []
for _ in range(int(count)):
    child = os.fork()
    if not child:
        os.close(go)
        os.read(start, 1)
        session = Session(
            ServerSettings(url=url), Limits(), Credentials("member", secret, "x"), Path(state)
        )
        try:
            session.open(Waiter(total_s=60))
        except LoginRefused:
            os._exit(4)
        os._exit(0)
    children.append(child)
os.close(go)
print(*sorted(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children))
"""


def crowd(server: DemoServer, state: Path, secret: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-c", CROWD, server.url, str(state), secret, "50"],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    return done.stdout.split()


def test_fifty_processes_with_a_wrong_password(server: DemoServer, tmp_path: Path) -> None:
    assert crowd(server, tmp_path, "wrong") == ["4"] * 50
    assert [entry.status for entry in logged(server)] == [401]


def test_fifty_processes_share_one_session(server: DemoServer, tmp_path: Path) -> None:
    assert crowd(server, tmp_path, "member") == ["0"] * 50
    assert len(logged(server)) == 50
    session = session_at(server.url, tmp_path, "member")
    session.open(wait())
    session.close()
    # It goes on after the last of them, and was the only one.
    assert "DELETE" not in {entry.verb for entry in logged(server)}
    assert len(list((tmp_path / "sessions").glob("*.json"))) == 1


def test_a_session_of_our_own_is_logged_out(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path, shared=False)
    session.open(wait())
    session.close()
    assert [(entry.verb, entry.path) for entry in logged(server)] == [
        ("GET", "/data/auth"),
        ("DELETE", "/data/JSESSION"),
    ]
    assert not list((tmp_path / "sessions").glob("*.json"))


def given_session(server: DemoServer, state: Path) -> str:
    session = session_at(server.url, state, shared=False)
    session.open(wait())
    reply = session.request("GET", "/JSESSION", waiter=wait())
    return reply.content.decode()


def test_a_given_session(server: DemoServer, tmp_path: Path) -> None:
    jsession = given_session(server, tmp_path)
    session = session_at(server.url, tmp_path, "", "", jsession=jsession)
    session.open(wait())
    assert session.user == "admin"
    assert "PVT000" in projects(session)
    session.close()
    assert "DELETE" not in {entry.verb for entry in logged(server)}
    server.expire_sessions()
    with pytest.raises(LoginRefused, match="session given by the test"):
        projects(session)
    with pytest.raises(LoginRefused, match="session given by the test"):
        session_at(server.url, tmp_path, "", "", jsession=jsession).open(wait())


def test_a_given_session_of_another_user(server: DemoServer, tmp_path: Path) -> None:
    jsession = given_session(server, tmp_path)
    session = Session(
        ServerSettings(url=server.url, user="member"),
        Limits(),
        Credentials("", "", "XNAT_JSESSION", jsession),
        tmp_path,
    )
    with pytest.raises(LoginRefused, match="'admin'"):
        session.open(wait())


def test_guests(tmp_path: Path) -> None:
    with serving(tmp_path, open_site=True) as server:
        session = session_at(server.url, tmp_path, "", "")
        session.open(wait())
        assert session.user == "guest"
        assert projects(session) == {"PUB000"}
        server.expire_sessions()
        assert projects(session) == {"PUB000"}
    with serving(tmp_path) as server, pytest.raises(LoginRefused, match="guests"):
        session_at(server.url, tmp_path, "", "").open(wait())


# -- expiry ---------------------------------------------------------------------------------


@pytest.mark.parametrize("open_site", [False, True])
def test_a_session_that_expires_is_renewed(tmp_path: Path, open_site: bool) -> None:
    with serving(tmp_path, open_site=open_site) as server:
        session = session_at(server.url, tmp_path)
        session.open(wait())
        for _ in range(2):
            server.expire_sessions()
            assert "PVT000" in projects(session)
            reply = session.request("PUT", "/projects/PVT000/resources/NEW", waiter=wait())
            assert reply.status in (200, 409)
        # The processes that come later find the newest session.
        forget(server)
        session_at(server.url, tmp_path).open(wait())
        assert [entry.user for entry in logged(server)] == ["admin"]


def strip_basic(session: Session, monkeypatch: pytest.MonkeyPatch, spare: int) -> None:
    """Let a proxy that swallows passwords come up: the next ``spare`` requests lose theirs."""
    wire = session._wire
    plain = wire._http.request
    left = [spare]

    def request(method: str, url: str, **more: object) -> object:
        if left[0]:
            left[0] -= 1
            more["headers"].pop("Authorization", None)  # type: ignore[attr-defined]
        return plain(method, url, **more)  # type: ignore[arg-type]

    monkeypatch.setattr(wire._http, "request", request)


def test_a_silent_guest_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # R§6: on an open site an expired session runs as guest, and private projects vanish.
    with serving(tmp_path, open_site=True) as server:
        session = session_at(server.url, tmp_path)
        session.open(wait())
        server.expire_sessions()
        strip_basic(session, monkeypatch, 1)
        forget(server)
        assert "PVT000" in projects(session)
        seen = [(entry.path.split("?")[0], entry.user) for entry in logged(server)]
        assert seen == [
            ("/data/projects", "guest"),
            ("/data/auth", "guest"),
            ("/data/auth", "admin"),
            ("/data/projects", "admin"),
        ]


def test_a_silent_guest_stores_nothing_unnoticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(tmp_path, open_site=True) as server:
        session = session_at(server.url, tmp_path)
        session.open(wait())
        server.expire_sessions()
        strip_basic(session, monkeypatch, 1)
        reply = session.request("PUT", "/projects/PVT000/resources/NEW", waiter=wait())
        assert reply.status == 200
        resources = session.request(
            "GET", "/projects/PVT000/resources", params={"format": "json"}, waiter=wait()
        )
        assert b'"NEW"' in resources.content


def test_a_password_that_changed_is_asked_for_once_more_only(
    server: DemoServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = session_at(server.url, tmp_path)
    session.open(wait())
    server.faults.add(Fault(kind="status", code=401))
    forget(server)
    refused: list[LoginRefused] = []

    def ask() -> None:
        with pytest.raises(LoginRefused) as caught:
            session.request("GET", PROJECTS, waiter=wait())
        refused.append(caught.value)

    for _ in range(5):
        ask()
    assert len(refused) == 5
    assert [entry.path for entry in logged(server)] == ["/data/projects", "/data/auth"]


def test_a_sibling_does_not_ask_again_after_a_refusal(server: DemoServer, tmp_path: Path) -> None:
    one, two = session_at(server.url, tmp_path), session_at(server.url, tmp_path)
    one.open(wait())
    two.open(wait())
    server.faults.add(Fault(kind="status", code=401))
    forget(server)
    for session in (one, two, one, two):
        with pytest.raises(LoginRefused):
            session.request("GET", PROJECTS, waiter=wait())
    asked_for = [entry.path for entry in logged(server)]
    # The password is tried alone by the first only.
    assert asked_for == ["/data/projects", "/data/auth", "/data/projects"]


def test_a_new_login_that_comes_while_the_old_one_is_refused(
    server: DemoServer, tmp_path: Path
) -> None:
    """Tokens are renewed beside the work: what counts is the login in use, not the one refused."""
    old = server.site.accounts.issue("admin")
    session = session_at(server.url, tmp_path, old.alias, old.secret)
    session.open(wait())
    server.site.accounts.tokens.drop(old.alias)
    server.expire_sessions()
    forget(server)
    server.faults.add(Fault(kind="delay", path="/data/auth", seconds=1.0, count=1))
    found: list[set[str]] = []
    asking = threading.Thread(target=lambda: found.append(projects(session)))
    asking.start()
    while not asked(server, "/data/projects"):
        time.sleep(0.01)
    session.take(Credentials("admin", "admin", "the test"))
    asking.join()
    assert 401 in asked(server, "/data/auth")
    assert found
    assert "PVT000" in found[0]


def test_many_threads_renew_together(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path, connections=4)
    session.open(wait())
    wrong: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(10):
                assert "PVT000" in projects(session)
        except BaseException as error:  # noqa: BLE001 -- shown by the test
            wrong.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for _ in range(5):
        server.expire_sessions()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_a_login_page_is_no_listing(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path)
    session.open(wait())
    server.faults.add(Fault(kind="html", path="/projects"))
    with pytest.raises(BadReply):
        projects(session)


# -- repeating ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "fault",
    [
        Fault(kind="status", code=503, count=2, path=PROJECTS),
        Fault(kind="status", code=429, retry_after="1", count=1, path=PROJECTS),
        Fault(kind="reset", count=2, path=PROJECTS),
        Fault(kind="truncate", bytes=20, count=1, path=PROJECTS),
    ],
)
def test_a_get_is_repeated(server: DemoServer, tmp_path: Path, fault: Fault) -> None:
    session = session_at(server.url, tmp_path)
    session.open(wait())
    server.faults.add(fault)
    assert "PVT000" in projects(session)


def test_a_change_is_not(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path)
    session.open(wait())
    server.faults.add(Fault(kind="reset", verb="PUT"))
    forget(server)
    with pytest.raises(TransferBroken):
        session.request("PUT", "/projects/PVT000/resources/NEW", waiter=wait())
    server.faults.clear()
    server.faults.add(Fault(kind="status_after", code=503, verb="PUT"))
    reply = session.request("PUT", "/projects/PVT000/resources/NEW", waiter=wait())
    assert reply.status == 503
    assert asked(server, "/data/projects/PVT000/resources/NEW") == [0, 503]  # 0: reset


def test_waiting_has_an_end(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path)
    session.open(wait())
    server.faults.add(Fault(kind="status", code=503, retry_after="600", path=PROJECTS))
    with pytest.raises(ServerBusy):
        session.request("GET", PROJECTS, waiter=Waiter(total_s=5))
    server.faults.clear()
    server.faults.add(Fault(kind="stall", seconds=30, path=PROJECTS))
    with pytest.raises(TimedOut):
        session.request("GET", PROJECTS, waiter=Waiter(total_s=0.5))
    server.faults.clear()
    server.faults.add(Fault(kind="slow", rate=100, path=PROJECTS))
    with pytest.raises(TimedOut):
        session.request("GET", PROJECTS, params={"format": "json"}, waiter=Waiter(total_s=0.5))
    server.faults.clear()
    server.faults.add(Fault(kind="status", code=503, path=PROJECTS))
    polls = iter(range(1000))
    with pytest.raises(Interrupted):
        session.request(
            "GET",
            PROJECTS,
            waiter=Waiter(total_s=20, interrupted=lambda: next(polls) > 3),
        )


def test_all_connections_in_use(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path, connections=1)
    session.open(wait())
    held = session.request("GET", PROJECTS, waiter=wait(), stream=True)
    with pytest.raises(TimedOut):
        session.request("GET", PROJECTS, waiter=Waiter(total_s=0.3))
    # A question about the login does not wait for the reply that is in doubt.
    server.expire_sessions()
    held.close()
    reply = session.request("GET", PROJECTS, waiter=wait(), stream=True, expects=Expects.LISTING)
    assert reply.status == 200
    reply.close()


def test_nothing_odd_is_sent(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path)
    session.open(wait())
    forget(server)
    for address in ("/projects/..", "/projects//x", "/projects/a%2Fb", "/projects/a%25"):
        with pytest.raises(BadName):
            session.request("GET", address, waiter=wait())
    assert logged(server) == []


def test_no_secret_in_the_log(
    server: DemoServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        session = session_at(server.url, tmp_path, "member")
        session.open(wait())
        cookie = session._identity.standing().login.cookies["JSESSIONID"]
        projects(session)
        with pytest.raises(LoginRefused):
            session_at(server.url, tmp_path, "member", "hunter2").open(wait())
    assert cookie not in caplog.text
    assert "hunter2" not in caplog.text
    assert "Basic" not in caplog.text


# -- who answers ----------------------------------------------------------------------------


@contextmanager
def answering(
    answer: Callable[[http.server.BaseHTTPRequestHandler], None],
) -> Iterator[str]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            answer(self)

        def log_message(self, *_: object) -> None: ...

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as other:
        thread = threading.Thread(target=other.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{other.server_address[1]}"
        other.shutdown()
        thread.join()


def test_not_an_xnat(tmp_path: Path) -> None:
    def page(handler: http.server.BaseHTTPRequestHandler) -> None:
        body = b"<html><title>It works!</title></html>"
        handler.send_response(200)
        handler.send_header("Content-Type", "text/html")
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    with answering(page) as url, pytest.raises(NotXnat, match="It works!"):
        session_at(url, tmp_path).open(wait())


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("https://new.example.edu/data/auth", "; use that address"),
        ("https://idp.example.edu/idp/profile/SAML2/Redirect/SSO", "xnatfs login --token"),
    ],
)
def test_a_redirection_is_named_and_not_followed(tmp_path: Path, to: str, said: str) -> None:
    def page(handler: http.server.BaseHTTPRequestHandler) -> None:
        handler.send_response(302)
        handler.send_header("Location", f"{to}?state=secret")
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    with answering(page) as url, pytest.raises(NotXnat) as caught:
        session_at(url, tmp_path).open(wait())
    assert to in str(caught.value)
    assert said in str(caught.value)
    assert "state" not in str(caught.value)


def test_something_that_is_not_http(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def babble() -> None:
            for _ in range(2):
                connection, _address = listening.accept()
                connection.sendall(b"220 mail.example.edu ESMTP\r\n")
                connection.close()

        thread = threading.Thread(target=babble, daemon=True)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with pytest.raises((NotXnat, TransferBroken)):
            session_at(url, tmp_path, "", "").open(wait())


def test_nobody_answers(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
    with pytest.raises(Unreachable, match="refused"):
        session_at(f"http://127.0.0.1:{port}", tmp_path).open(wait())
    with pytest.raises(Unreachable, match="no such host"):
        session_at("http://nowhere.invalid", tmp_path).open(wait())


# The look-alike's event loop leaves the transports of refused handshakes to the collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_tls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(variable, raising=False)
    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    bundle = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(bundle)
    with serving(tmp_path, ssl_context=context) as server:
        with pytest.raises(Unreachable, match="not trusted") as caught:
            session_at(server.url, tmp_path).open(wait())
        assert not caught.value.temporary
        assert logged(server) == []
        for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE", "SSL_CERT_FILE"):
            monkeypatch.setenv(variable, str(bundle))
            session = session_at(server.url, tmp_path)
            monkeypatch.delenv(variable)
            session.open(wait())
            assert "PVT000" in projects(session)
        # The certificate is for 127.0.0.1, not for localhost.
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(bundle))
        with pytest.raises(Unreachable, match="not trusted"):
            session_at(server.url.replace("127.0.0.1", "localhost"), tmp_path).open(wait())
    gc.collect()


def test_after_a_fork_the_child_has_its_own_connections(server: DemoServer, tmp_path: Path) -> None:
    session = session_at(server.url, tmp_path)
    session.open(wait())
    session.adopt()
    assert "PVT000" in projects(session)
