"""Whose folders the store holds: what a mount without a network has instead of a login."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path

from xnatfs.cache import disk

log = logging.getLogger(__name__)

_NAME = "account.json"


def note(folder: Path, server: str, account: str) -> None:
    """Write down whose folder this is. Never raises.

    Args:
        folder: of one server and account, in the store.
        server: base URL.
        account: the user's name at the server.
    """
    path = folder / _NAME
    if path.exists():
        return
    text = json.dumps({"server": server, "account": account})
    try:
        os.close(disk.write_beside(path, (text.encode(),)))
    except OSError as error:
        log.info("cannot write %s: %s", path, error.strerror)


def known(root: Path, server: str) -> list[str]:
    """The accounts of a server that a store (its ``--cache-dir``) has a folder of."""
    return [account for _, url, account in folders(root) if url == server]


def folders(root: Path) -> list[tuple[Path, str, str]]:
    """Folder, server and account of everything in a store."""
    found = []
    for path in sorted(root.glob(f"*/{_NAME}")):
        try:
            cells = json.loads(path.read_text(encoding="utf-8"))
            found.append((path.parent, str(cells["server"]), str(cells["account"])))
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.info("cannot read %s: %s", path, error)
    return found
