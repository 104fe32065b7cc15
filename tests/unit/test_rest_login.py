"""Credentials: where they come from, in which order, and where they must not go."""

from collections.abc import Callable
from pathlib import Path

import pytest

from xnatfs.config import ServerSettings
from xnatfs.errors import LoginRefused, UsageError
from xnatfs.rest import login, netrc
from xnatfs.rest.login import Credentials, RefusalMemory, SharedSession
from xnatfs.waiting import Waiter

URL = "https://xnat.example.edu"
NETRC = """
# comment machine x
machine other.example.edu login o password p0
machine xnat.example.edu:8443 login port password p1
machine xnat.example.edu
  login ada
  password "p 2\\""
machine xnat.example.edu login bob password p3
macdef init
machine xnat.example.edu login macro password p4

default login anyone password p5
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    file = tmp_path / ".netrc"
    file.write_text(NETRC)
    file.chmod(0o600)
    return tmp_path


def find(
    home: Path,
    prompt: Callable[[str], str] | None = None,
    *,
    user: str = "",
    url: str = URL,
    **environ: str,
) -> Credentials:
    settings = ServerSettings(url=url, user=user)
    return login.find_credentials(
        settings, {"HOME": str(home), **environ}, prompt, state_folder=home / "state"
    )


def test_netrc_entries() -> None:
    assert [(one.machine, one.login, one.password) for one in netrc.parse(NETRC)] == [
        ("other.example.edu", "o", "p0"),
        ("xnat.example.edu:8443", "port", "p1"),
        ("xnat.example.edu", "ada", 'p 2"'),
        ("xnat.example.edu", "bob", "p3"),
    ]


def test_the_order(home: Path) -> None:
    found = find(home)
    assert (found.user, found.secret, found.source) == ("ada", 'p 2"', str(home / ".netrc"))
    login.store_login(URL, Credentials("tok", "stored", ""), home / "state")
    assert find(home).user == "tok"
    assert find(home, XNAT_USER="env", XNAT_PASS="e").user == "env"
    assert find(home, XNATPY_USER="envpy", XNATPY_PASS="e").user == "envpy"
    login.forget_login(URL, home / "state")
    assert find(home).user == "ada"


def test_a_name_asked_for(home: Path) -> None:
    assert find(home, user="bob").secret == "p3"
    assert find(home, XNAT_USER="bob").secret == "p3"
    assert find(home, user="bob", XNAT_USER="ada", XNAT_PASS="x").secret == "p3"
    assert find(home, user="eve", XNAT_USER="eve", XNAT_PASS="x").secret == "x"
    asked: list[str] = []

    def prompt(question: str) -> str:
        asked.append(question)
        return "typed"

    got = find(home, prompt, user="carol", XNAT_USER="ada", XNAT_PASS="x")
    assert (got.user, got.secret) == ("carol", "typed")
    assert asked == ["Password for carol at xnat.example.edu: "]


def test_the_prompt_is_last_and_asks_for_both(tmp_path: Path) -> None:
    answers = iter(["ada", "secret"])
    found = find(tmp_path, lambda _question: next(answers))
    assert (found.user, found.secret) == ("ada", "secret")
    with pytest.raises(UsageError, match="XNAT_USER"):
        find(tmp_path)


def test_host_and_port_before_host(home: Path) -> None:
    assert find(home, url="https://xnat.example.edu:8443/xnat").user == "port"
    assert find(home, url="https://XNAT.example.edu/xnat").user == "ada"


def test_netrc_variable_and_mode(home: Path) -> None:
    other = home / "elsewhere"
    other.write_text("machine xnat.example.edu login z password pz")
    other.chmod(0o640)
    with pytest.raises(UsageError, match=r"elsewhere.*0640.*chmod 600"):
        find(home, NETRC=str(other))
    other.chmod(0o600)
    assert find(home, NETRC=str(other)).user == "z"


def test_a_given_session(home: Path) -> None:
    found = find(home, XNAT_JSESSION="0A1B")
    assert (found.user, found.secret, found.jsession) == ("", "", "0A1B")
    both = find(home, XNAT_JSESSION="0A1B", XNAT_USER="env", XNAT_PASS="e")
    assert (both.user, both.secret, both.jsession) == ("env", "e", "0A1B")
    with pytest.raises(UsageError):
        find(home, XNAT_JSESSION="0A1B; x=y\r\n")


def test_a_guest_says_so(home: Path) -> None:
    settings = ServerSettings(url=URL, anonymous=True)
    found = login.find_credentials(settings, {"HOME": str(home)}, None)
    assert (found.user, found.secret) == ("", "")


def test_no_password_over_plain_http(home: Path) -> None:
    for url in ("http://xnat.example.edu", "http://10.0.0.1:8080"):
        with pytest.raises(UsageError, match="--allow-http"):
            find(home, url=url, XNAT_USER="a", XNAT_PASS="b")
        with pytest.raises(UsageError, match="--allow-http"):
            find(home, url=url, XNAT_JSESSION="0A1B")
    for url in ("http://localhost:8080", "http://127.0.0.1", "http://[::1]:80"):
        assert find(home, url=url, XNAT_USER="a", XNAT_PASS="b").user == "a"
    allowed = ServerSettings(url="http://xnat.example.edu", allow_http=True)
    environ = {"HOME": str(home), "XNAT_USER": "a", "XNAT_PASS": "b"}
    assert login.find_credentials(allowed, environ, None).user == "a"


@pytest.mark.parametrize("url", ["https://ada:secret@host", "ftp://host", "host", "https://"])
def test_bad_addresses(home: Path, url: str) -> None:
    with pytest.raises(UsageError) as caught:
        find(home, url=url)
    assert "secret" not in str(caught.value)


def test_secrets_are_not_shown() -> None:
    shown = repr(Credentials("ada", "hunter2", "x", "COOKIE"))
    assert "hunter2" not in shown
    assert "COOKIE" not in shown


def test_a_refusal_is_remembered_for_that_secret_only(tmp_path: Path) -> None:
    wrong = RefusalMemory(tmp_path, URL, Credentials("ada", "wrong", "x"))
    right = RefusalMemory(tmp_path, URL, Credentials("ada", "right", "x"))
    other = RefusalMemory(tmp_path, "https://other", Credentials("ada", "wrong", "x"))
    with wrong.turn(Waiter(total_s=1)) as accepted:
        assert not accepted
        wrong.refused("login of 'ada' refused")
    sibling = RefusalMemory(tmp_path, URL, Credentials("ada", "wrong", "x"))
    with pytest.raises(LoginRefused, match="login of 'ada' refused"), sibling.turn(Waiter()):
        pass
    for memory in (right, other):
        with memory.turn(Waiter(total_s=1)) as accepted:
            assert not accepted
    wrong.clear()
    with sibling.turn(Waiter(total_s=1)) as accepted:
        assert not accepted


def test_an_old_refusal_is_forgotten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = RefusalMemory(tmp_path, URL, Credentials("ada", "wrong", "x"))
    memory.refused("no")
    monkeypatch.setattr(login, "REFUSAL_AGE_S", 0.0)
    with memory.turn(Waiter(total_s=1)) as accepted:
        assert not accepted


def test_what_is_on_disk_is_private_and_tells_no_secret(tmp_path: Path) -> None:
    credentials = Credentials("lovelace", "hunter2", "x")
    RefusalMemory(tmp_path, URL, credentials).refused("no")
    shared = SharedSession(tmp_path, URL, credentials)
    shared.store({"JSESSIONID": "0A1B"})
    assert shared.load() == {"JSESSIONID": "0A1B"}
    assert SharedSession(tmp_path, URL, Credentials("lovelace", "wrong", "x")).load() == {}
    folder = tmp_path / "sessions"
    assert folder.stat().st_mode & 0o777 == 0o700
    files = list(folder.iterdir())
    assert len(files) == 3  # the salt, the refusal, the session
    for file in files:
        assert file.stat().st_mode & 0o777 == 0o600
        assert "lovelace" not in file.name
        assert b"hunter2" not in file.read_bytes()


def test_a_session_file_that_others_could_write_is_not_believed(tmp_path: Path) -> None:
    shared = SharedSession(tmp_path, URL, Credentials("ada", "hunter2", "x"))
    shared.store({"JSESSIONID": "0A1B"})
    for file in (tmp_path / "sessions").glob("*.json"):
        file.chmod(0o644)
    assert shared.load() == {}


def test_a_file_that_was_asked_for_comes_first(home: Path) -> None:
    file = home / "login"
    settings = ServerSettings(url=URL, netrc=file)
    environ = {"HOME": str(home), "XNAT_USER": "env", "XNAT_PASS": "e"}
    with pytest.raises(UsageError, match="there is no such file"):
        login.find_credentials(settings, environ, None, state_folder=home / "state")
    file.write_text("machine xnat.example.edu login service password ps")
    file.chmod(0o600)
    found = login.find_credentials(settings, environ, None, state_folder=home / "state")
    assert (found.user, found.secret, found.source) == ("service", "ps", str(file))
