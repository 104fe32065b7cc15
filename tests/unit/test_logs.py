"""The log file: private, and without secrets."""

from __future__ import annotations

import logging
import stat
from pathlib import Path

import pytest

from xnatfs import logs


@pytest.fixture
def log_file(tmp_path: Path):
    root = logging.getLogger("xnatfs")
    before = root.handlers[:], root.level, root.propagate
    file = tmp_path / "log" / "x.log"
    logs.set_up("info", file)
    yield file
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.level, root.propagate = before


def test_only_the_owner_can_read_the_log(log_file: Path) -> None:
    logging.getLogger("xnatfs.x").info("hello")
    assert stat.S_IMODE(log_file.stat().st_mode) == 0o600
    assert "hello" in log_file.read_text()


@pytest.mark.parametrize(
    ("text", "kept", "gone"),
    [
        ("GET http://ada:geheim@host/x", "http://ada:***@host/x", "geheim"),
        ("Authorization: Basic YWRhOmdlaGVpbQ==", "Authorization: Basic ***", "YWRh"),
        ("Cookie JSESSIONID=ABCDEF; x", "JSESSIONID=***; x", "ABCDEF"),
        ("mounted http://127.0.0.1:8080 at /m", "http://127.0.0.1:8080 at", "***"),
    ],
)
def test_secrets_are_struck_out(log_file: Path, text: str, kept: str, gone: str) -> None:
    logging.getLogger("xnatfs.x").info("%s", text)
    written = log_file.read_text()
    assert kept in written
    assert gone not in written
