"""A project of its own on an XNAT (``--xnat URL``) or on the look-alike, and a mount of it."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.acceptance.places import Account, Machine, password_of
from xnatfs.demo import phantom
from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.fuse import readiness

SLICES = dict(phantom.series(8, number=4, description="T1", side=64))
NOTES = {"first.txt": b"first\n", "first.txt.bak": b"its name starts alike\n"}


@dataclass(frozen=True)
class Ground:
    """A project that the tests made, with one session: a scan with DICOM, and a resource."""

    owner: Account
    reader: Account | None
    project: str

    @property
    def session(self) -> str:
        """Below the mount point as below /data."""
        return f"/projects/{self.project}/subjects/SUBJ1/experiments/SUBJ1_MR"


@pytest.fixture(scope="session")
def accounts(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Account, Account | None]]:
    url = request.config.getoption("--xnat")
    if url:
        owner, reader = (request.config.getoption(it) for it in ("--xnat-user", "--xnat-reader"))
        owner = owner or os.environ.get("XNAT_USER")
        if not owner:
            raise pytest.UsageError("--xnat needs --xnat-user")
        url = url.rstrip("/")
        other = password_of(url, reader, "XNAT_READER_PASS") if reader else ""
        yield (
            Account(url, owner, password_of(url, owner, "XNAT_PASS")),
            Account(url, reader, other) if reader else None,
        )
        return
    root = tmp_path_factory.mktemp("acceptance") / "archive"
    server = DemoServer(ServerOptions(root=root, sample="none"))
    server.start()
    yield Account(server.url, "admin", "admin"), Account(server.url, "reader", "reader")
    server.stop()


@pytest.fixture(scope="session")
def ground(accounts: tuple[Account, Account | None]) -> Iterator[Ground]:
    owner, reader = accounts
    made = Ground(owner, reader, f"XNATFS_{uuid.uuid4().hex[:10]}")
    owner.ask("PUT", f"/projects/{made.project}?accessibility=private")
    try:
        _fill(made)
        yield made
    finally:
        owner.ask("DELETE", f"/projects/{made.project}?removeFiles=true")
        assert owner.status("GET", f"/projects/{made.project}?format=json") == 404


def _fill(ground: Ground) -> None:
    owner = ground.owner
    owner.ask("PUT", ground.session.partition("/experiments")[0])
    owner.ask("PUT", f"{ground.session}?xsiType=xnat:mrSessionData")
    scan = f"{ground.session}/scans/4"
    owner.ask("PUT", f"{scan}?xsiType=xnat:mrScanData&xnat:mrScanData/type=T1")
    contents = ((f"{scan}/resources/DICOM", SLICES), (f"{ground.session}/resources/NOTES", NOTES))
    for resource, files in contents:
        owner.ask("PUT", resource)
        for name, content in files.items():
            owner.upload(resource, name, content)


@pytest.fixture(scope="session")
def options(accounts: tuple[Account, Account | None]) -> tuple[str, ...]:
    """What every mount needs besides."""
    if problems := readiness.problems(allow_other=False):
        pytest.fail(problems[0], pytrace=False)
    parts = urlsplit(accounts[0].url)
    is_near = parts.hostname in ("127.0.0.1", "::1", "localhost")
    return ("--allow-http",) if parts.scheme == "http" and not is_near else ()


@pytest.fixture(scope="module")
def mounted(
    ground: Ground, options: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Path]:
    """The session of the project, through the owner's mount."""
    machine = Machine(tmp_path_factory.mktemp("owner"), ground.owner, options)
    with machine.mounted() as point:
        yield point / ground.session.lstrip("/")
