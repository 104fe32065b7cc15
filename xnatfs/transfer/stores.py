"""The stores in a cache folder, for those who look after it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache import accounts
from xnatfs.cache.store import Store
from xnatfs.config import StoreSettings


@dataclass(frozen=True, slots=True)
class Kept:
    """The store of one server and account."""

    server: str
    account: str
    folder: Path
    store: Store


def kept_stores(settings: StoreSettings) -> Iterator[Kept]:
    """Every store in a cache folder whose owner is known."""
    for folder, server, account in accounts.folders(settings.folder):
        yield Kept(server, account, folder, Store(settings, folder.name))
