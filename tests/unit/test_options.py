from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from xnatfs import options
from xnatfs.configuration import choose, normal_url
from xnatfs.errors import UsageError

URL = "https://xnat.example.edu"


@pytest.mark.parametrize(
    ("text", "value"),
    [("0", 0), ("1048576", 1 << 20), ("20G", 20 << 30), ("512m", 512 << 20), ("1.5K", 1536),
     ("2TiB", 2 << 40), ("10GB", 10 << 30)],
)  # fmt: skip
def test_sizes(text: str, value: int) -> None:
    assert options.size(text) == value


@pytest.mark.parametrize("text", ["", "G", "-1", "1X", "1 2", "1e9"])
def test_no_sizes(text: str) -> None:
    with pytest.raises(ValueError, match="a size is given as"):
        options.size(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [("60", 60), ("0", 0), ("90s", 90), ("15m", 900), ("12h", 43200), ("30d", 2592000)],
)
def test_durations(text: str, value: float) -> None:
    assert options.duration(text) == value


@pytest.mark.parametrize("text", ["", "-5", "5w", "five"])
def test_no_durations(text: str) -> None:
    with pytest.raises(ValueError, match="a time is given in"):
        options.duration(text)


def test_every_row_has_a_place_in_the_settings() -> None:
    for option in options.TABLE:
        option.default  # noqa: B018 -- raises where the field does not exist
        assert option.verbs <= options.ALL
        assert option.key == option.name.replace("-", "_")
    assert len(options.BY_KEY) == len(options.TABLE)


@pytest.mark.parametrize("verb", sorted(options.ALL))
def test_every_verb_has_a_parser(verb: str) -> None:
    parser = argparse.ArgumentParser()
    options.add_to(parser, verb)
    assert "--quiet" in parser.format_help()


def test_mount_words() -> None:
    words = "rw,_netdev,nofail,user,x-systemd.automount,ro,allow_overwrite,cache-size=2G"
    assert options.mount_words(words) == {
        "read_only": True,
        "allow_overwrite": True,
        "cache_size": 2 << 30,
    }
    assert options.mount_words(r"reason=a\, b,,comment=x") == {"reason": "a, b"}
    assert options.mount_words("user=ada") == {"user": "ada"}
    assert options.mount_words("allow_delete=false") == {"allow_delete": False}


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        ("bogus", "-o: unknown option 'bogus'"),
        ("cache_siz=1G", "did you mean cache_size"),
        ("cache_size", "needs a value"),
        ("cache_size=lots", "a size is given as 20G"),
        ("allow_delete=maybe", "true or false"),
        ("verify=never", "one of strict, warn"),
    ],
)
def test_words_that_are_wrong(words: str, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        options.mount_words(words)


@pytest.mark.parametrize(
    ("text", "url"),
    [
        (URL, URL),
        (URL + "/", URL),
        (URL + "/xnat/", URL + "/xnat"),
        ("xnat.example.edu", URL),
        ("http://localhost:8080", "http://localhost:8080"),
        ("localhost:8080", "https://localhost:8080"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert normal_url(text) == url


@pytest.mark.parametrize("text", ["ftp://x.y", "https://", "hospital", "https://h.x/?a=b"])
def test_no_addresses(text: str) -> None:
    with pytest.raises(UsageError):
        normal_url(text)


def test_a_password_in_an_address_is_refused_and_not_repeated() -> None:
    with pytest.raises(UsageError) as caught:
        normal_url("https://ada:s3cret@xnat.example.edu")
    assert "s3cret" not in str(caught.value)


class Places:
    def __init__(self, folder: Path) -> None:
        self.site = folder / "xnatfs.toml"
        self.user = folder / "config.toml"

    def choose(self, environ: dict[str, str] | None = None, **arguments: object):
        if self.user.exists():
            arguments.setdefault("config", str(self.user))
        args = argparse.Namespace(**arguments)
        return choose(args, environ or {}, needs_server=False, site_file=self.site)


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Places:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "nowhere"))
    return Places(tmp_path)


def test_precedence(places: Places) -> None:
    def size(environ: dict[str, str] | None = None, **arguments: object) -> int:
        return places.choose(environ, **arguments).settings.store.size >> 30

    assert size() == 10
    places.site.write_text('cache-size = "1G"')
    assert size() == 1
    places.user.write_text('cache_size = "2G"')
    assert size() == 2
    environ = {"XNATFS_CACHE_SIZE": "3G"}
    assert size(environ) == 3
    assert size(environ, o=["cache_size=4G"]) == 4
    assert size(environ, o=["cache_size=4G"], cache_size="5G") == 5


def test_servers_by_name(places: Places) -> None:
    places.user.write_text(
        f'metadata_ttl = 30\n[servers.lab]\nurl = "{URL}/"\nuser = "ada"\nmetadata_ttl = 10\n'
        '[servers.other]\nurl = "https://other.example"\n'
    )
    lab = places.choose(server="lab").settings
    assert (lab.server.url, lab.server.user, lab.limits.metadata_ttl_s) == (URL, "ada", 10)
    assert places.choose(server=URL).settings.server.user == "ada"
    other = places.choose(server="other").settings
    assert (other.server.url, other.server.user, other.limits.metadata_ttl_s) == (
        "https://other.example", "", 30,
    )  # fmt: skip
    assert places.choose({"XNAT_HOST": "lab"}).settings.server.url == URL
    assert places.choose({"XNAT_URL": "https://u.x", "XNAT_HOST": URL}).settings.server.url == URL
    assert places.choose({"XNAT_HOST": URL}, server="other").settings.server.url.endswith("example")
    assert places.choose().settings.server.url == ""


def test_the_only_server_is_the_default(places: Places) -> None:
    places.user.write_text(f'[servers.lab]\nurl = "{URL}"')
    assert places.choose().settings.server.url == URL


def test_what_is_enforced_can_be_tightened_and_not_loosened(places: Places) -> None:
    places.site.write_text(
        "[enforced]\nallow-delete = false\nread-only = true\ncache-size = '5G'\n"
        "reason = 'study 12'\nverify = 'strict'"
    )
    chosen = places.choose(
        allow_delete=True, cache_size="20G", reason="mine", verify="warn", allow_overwrite=True
    ).settings
    assert not chosen.policy.allow_delete
    assert chosen.policy.allow_overwrite
    assert chosen.policy.read_only
    assert chosen.store.size == 5 << 30
    assert chosen.server.reason == "study 12"
    assert chosen.store.verify == "strict"
    assert places.choose(cache_size="1G").settings.store.size == 1 << 30
    assert places.choose().settings.store.size == 5 << 30


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("cash_size = 1", "unknown option 'cash_size'; did you mean cache_size"),
        ("foreground = true", "belongs on the command line"),
        ("cache_size = [1]", "is no value for it"),
        ("cache_size = ", "Invalid value"),
        ("[servers.lab]\nuser = 'a'", "needs a url"),
        ("[enforced]\nbogus = 1", r"\[enforced\]: unknown option"),
    ],
)
def test_a_wrong_file_is_named(places: Places, text: str, complaint: str) -> None:
    places.user.write_text(text)
    with pytest.raises(UsageError, match=complaint) as caught:
        places.choose()
    assert str(places.user) in str(caught.value)


def test_a_missing_file_that_was_asked_for_is_an_error(places: Places) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.toml: No such file"):
        places.choose(config="/nowhere.toml")


def test_flags_that_switch_off(places: Places) -> None:
    assert places.choose().settings.server.shared_session
    assert not places.choose(no_shared_session=True).settings.server.shared_session
