"""An environment for Python code that uses the archive without a mount."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from xnatfs.demo.server import DemoServer, ServerOptions
from xnatfs.fsspec import XnatFileSystem
from xnatfs.fsspec.connections import connections

# Of the many cases of one kind in fsspec's suite, these stay in the usual run.
_SAMPLED = re.compile(r"test_(copy|put|get)_glob_edge_cases\[.*expected(?!\d*0\])\d+\]")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if _SAMPLED.search(item.name):
            item.add_marker(pytest.mark.long)


@pytest.fixture(scope="module")
def site(small_archive: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DemoServer]:
    """A server for the tests of a module, and an environment in which the owner is logged in."""
    top = tmp_path_factory.mktemp("python")
    server = DemoServer(
        ServerOptions(root=shutil.copytree(small_archive, top / "server"), sample="small")
    )
    server.start()
    with pytest.MonkeyPatch.context() as environment:
        for name in [name for name in os.environ if name.startswith(("XNAT", "XDG_"))]:
            environment.delenv(name)
        for name in ("CACHE", "STATE", "CONFIG"):
            environment.setenv(f"XDG_{name}_HOME", str(top / name))
        environment.setenv("XNAT_HOST", server.url)
        environment.setenv("XNAT_USER", "admin")
        environment.setenv("XNAT_PASS", "admin")
        XnatFileSystem.clear_instance_cache()  # they have read another environment
        yield server
        connections.close()
    server.stop()
