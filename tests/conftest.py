"""What all levels of tests share: a server, a file system or a user on it, the log check."""

from __future__ import annotations

import logging
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.mount.desk import Desk
from xnatfs.config import (
    Limits,
    Policy,
    ServerSettings,
    Settings,
    SpoolSettings,
    StoreSettings,
    View,
)
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.fs.filesystem import FileSystem
from xnatfs.fuse import readiness
from xnatfs.rest.login import Credentials
from xnatfs.waiting import Waiter

# How long an example takes says something of the machine.
settings.register_profile("xnatfs", deadline=None)
settings.load_profile("xnatfs")


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("xnat", "the acceptance tests against a real XNAT")
    group.addoption("--xnat", metavar="URL", help="run the acceptance tests on this XNAT, no other")
    group.addoption("--xnat-user", metavar="NAME", help="who may create and delete projects there; "
                    "the password is in XNAT_PASS or a netrc file")  # fmt: skip
    group.addoption("--xnat-reader", metavar="NAME", help="another account without rights there; "
                    "the password is in XNAT_READER_PASS or a netrc file")  # fmt: skip


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With ``--xnat`` only what can be asked of any XNAT is left."""
    if not config.getoption("--xnat"):
        return
    kept = [item for item in items if "acceptance" in item.path.parts]
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = kept


def pytest_configure() -> None:
    """Programs that the tests start can be interrupted, even if the tests themselves cannot.

    A shell starts background jobs with SIGINT ignored, which children would inherit.
    """
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def small_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small sample archive on disk, made once."""
    root = tmp_path_factory.mktemp("archive") / "small"
    server = DemoServer(ServerOptions(root=root, sample="small"))
    server.start()
    server.stop()
    return root


@pytest.fixture
def server(small_archive: Path, tmp_path: Path) -> Iterator[DemoServer]:
    """A server of one's own, with the small sample archive."""
    root = tmp_path / "server"
    shutil.copytree(small_archive, root)
    running = DemoServer(ServerOptions(root=root, sample="small"))
    running.start()
    yield running
    running.stop()


Connect = Callable[..., FileSystem]


@pytest.fixture
def connect(server: DemoServer, tmp_path: Path) -> Iterator[Connect]:
    """Makes a file system on the server: ``connect("member", allow_delete=True)``."""
    made: list[FileSystem] = []

    def make(
        user: str = "admin",
        *,
        limits: Limits | None = None,
        view: View | None = None,
        verify: str = "strict",
        url: str = "",
        spool_size: int = 0,
        write_back: bool = False,
        offline: bool = False,
        **policy: bool,
    ) -> FileSystem:
        settings = Settings(
            server=ServerSettings(url=url or server.url),
            limits=limits or Limits(io_timeout_s=20),
            policy=Policy(**policy),
            store=StoreSettings(folder=tmp_path / "cache", verify=verify),
            spool=SpoolSettings(
                folder=tmp_path / "state" / "spool", size=spool_size, write_back=write_back
            ),
            view=view or View(),
            offline=offline,
            state_folder=tmp_path / "state",
        )
        waiter = Waiter(total_s=20)
        if offline:
            fs = FileSystem.offline(settings, user)
        else:
            fs = FileSystem.connect(settings, Credentials(user, user, "the test"), waiter)
        fs.adopt(waiter)
        made.append(fs)
        return fs

    yield make
    for fs in made:
        fs.close()


@pytest.fixture(scope="session")
def fuse() -> None:
    """Where FUSE cannot be used, what needs it fails: nobody shall take it for passed."""
    if problems := readiness.problems(allow_other=False):
        pytest.fail(problems[0], pytrace=False)


OpenDesk = Callable[..., Desk]


@pytest.fixture
def open_a_desk(fuse: None, tmp_path: Path) -> Iterator[OpenDesk]:
    """Makes users' desks at their machine: ``open_a_desk(server.url, "member")``."""
    made: list[Desk] = []

    def make(url: str, user: str = "admin") -> Desk:
        made.append(Desk(tmp_path / f"desk{len(made)}", url, user))
        return made[-1]

    yield make
    for desk in made:
        desk.close()
    assert [line for desk in made for line in desk.unexpected()] == []


@pytest.fixture
def desk(open_a_desk: OpenDesk, server: DemoServer) -> Desk:
    """The owner's desk; nothing is mounted yet."""
    return open_a_desk(server.url)


@pytest.fixture
def expected_warnings() -> list[str]:
    """Texts of warnings that a test provokes; any other warning in the log fails it."""
    return []


@pytest.fixture(autouse=True)
def no_unexpected_warning(
    caplog: pytest.LogCaptureFixture, expected_warnings: list[str], request: pytest.FixtureRequest
) -> Iterator[None]:
    """An unexpected WARNING in the log fails a test that drives the whole client."""
    yield
    if "connect" not in request.fixturenames:
        return
    records = [*caplog.get_records("setup"), *caplog.get_records("call")]
    unexpected = [
        f"{record.name}: {record.getMessage()}"
        for record in records
        if record.levelno >= logging.WARNING
        and record.name.startswith("xnatfs")
        and not record.name.startswith("xnatfs.demo")
        and not any(text in record.getMessage() for text in expected_warnings)
    ]
    assert not unexpected
