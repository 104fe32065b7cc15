"""Listings on disk: records by address, shared by all processes of one account.

    <cache-dir>/<server>/listings/<address>/<kind>.json   a line of JSON about it, then its body
    <cache-dir>/<server>/listings/<address>/void       the time before which all of it is outdated

A record is replaced in one step and readable by its owner only. What cannot be written is not
kept: nothing here fails a look. It knows no XNAT; times are those of the clock on the wall.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from xnatfs.cache import disk, layout
from xnatfs.config import make_private

log = logging.getLogger(__name__)

_FORMAT = 1
_SUFFIX = ".json"


@dataclass(frozen=True, slots=True)
class Record:
    """One listing as it was kept."""

    kind: str
    address: str
    # Seconds since the epoch, just before the server was asked.
    asked: float
    body: bytes


class Shelf:
    """The records of one server and account.

    Args:
        folder: of the records; made when the first one is kept.

    Threading: holds no state; a record is replaced as a whole.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def read(self, kind: str, address: str) -> Record | None:
        """A record, however old, or None when there is none that can be read."""
        try:
            raw = (self._place(address) / f"{kind}{_SUFFIX}").read_bytes()
        except OSError:
            return None
        return _parse(raw, kind, address)

    def write(self, record: Record) -> None:
        """Keep a record, unless the disk refuses it. Never raises."""
        about = {"format": _FORMAT, "kind": record.kind, "address": record.address,
                 "asked": record.asked}  # fmt: skip
        place = self._place(record.address)
        try:
            self._make(place)
            head = json.dumps(about).encode() + b"\n"
            os.close(disk.write_beside(place / f"{record.kind}{_SUFFIX}", (head, record.body)))
        except OSError as error:
            log.info("the listing of %s is not kept: %s", record.address or "/", error)

    def void(self, address: str) -> None:
        """What was asked until now at ``address`` or below is outdated. Never raises."""
        place = self._place(address)
        try:
            self._make(place)
            # Not the file's own time: some disks keep whole seconds only.
            os.close(disk.write_beside(place / layout.VOID, (repr(time.time()).encode(),)))
        except OSError:
            # No room for the word: then what it was to outdate goes.
            self._remove_above(place)

    def is_void(self, address: str, asked: float) -> bool:
        """Whether what was asked at that time about ``address`` has been outdated since."""
        place = self._place(address)
        for folder in (place, *place.parents):
            if _time_in(folder / layout.VOID) >= asked:
                return True
            if folder == self._folder:
                break
        return False

    def below(self, address: str) -> Iterator[Record]:
        """Every record at or below an address."""
        for folder, _, names in os.walk(self._place(address)):
            where = Path(folder).relative_to(self._folder)
            there = "" if where == Path() else f"/{where}"
            for name in names:
                record = self.read(name.removesuffix(_SUFFIX), there)
                if record is not None:
                    yield record

    def remove(self, address: str) -> None:
        """Remove every record at or below an address. Never raises."""
        shutil.rmtree(self._place(address), ignore_errors=True)

    def _remove_above(self, place: Path) -> None:
        self.remove(str(place.relative_to(self._folder)))
        for folder in place.parents:
            for path in folder.glob(f"*{_SUFFIX}"):
                with contextlib.suppress(OSError):
                    path.unlink()
            if folder == self._folder:
                return

    def _place(self, address: str) -> Path:
        return self._folder / address.strip("/")

    def _make(self, place: Path) -> None:
        """Make a folder and those above it, for the owner alone. Raises OSError."""
        try:
            place.mkdir(mode=0o700)
        except FileExistsError:
            return
        except FileNotFoundError:
            if place == self._folder:
                make_private(place)
                return
            self._make(place.parent)
            place.mkdir(mode=0o700, exist_ok=True)


def _time_in(path: Path) -> float:
    try:
        return float(path.read_bytes())
    except OSError:
        return -math.inf
    except ValueError:
        # Damaged: what it was to keep from being believed is not believed.
        return math.inf


def _parse(raw: bytes, kind: str, address: str) -> Record | None:
    head, _, body = raw.partition(b"\n")
    try:
        about = json.loads(head)
        known = (about["format"], about["kind"], about["address"]) == (_FORMAT, kind, address)
        return Record(kind, address, float(about["asked"]), body) if known else None
    except (ValueError, KeyError, TypeError):
        return None
