"""fsspec's own tests for implementers, below a ``files`` folder of the look-alike."""

from __future__ import annotations

import posixpath
from collections.abc import Callable

import pytest
from fsspec.tests import abstract

from tests.mount.desk import SESSION
from xnatfs.demo.server import DemoServer
from xnatfs.fsspec import XnatFileSystem

FILES = f"{SESSION}/scans/4/resources/SUITE/files"


@pytest.fixture(scope="module")
def archive(site: DemoServer) -> XnatFileSystem:
    fs = XnatFileSystem(site.url, skip_instance_cache=True)
    fs.makedirs(FILES)
    return fs


class Fixtures(abstract.AbstractFixtures):
    @pytest.fixture
    def fs(self, archive: XnatFileSystem) -> XnatFileSystem:
        return archive

    @pytest.fixture
    def fs_path(self) -> str:
        return FILES

    @pytest.fixture
    def fs_join(self) -> Callable[..., str]:
        return posixpath.join


class TestCopy(abstract.AbstractCopyTests, Fixtures):
    pass


class TestGet(abstract.AbstractGetTests, Fixtures):
    pass


class TestPut(abstract.AbstractPutTests, Fixtures):
    pass


class TestOpen(abstract.AbstractOpenTests, Fixtures):
    pass


class TestPipe(abstract.AbstractPipeTests, Fixtures):
    pass
