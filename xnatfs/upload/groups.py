"""Group commit: what was closed survives a power loss a few seconds later.

One fsync for each of a thousand small files keeps a disk busy for longer than it takes to send
them; what has arrived meanwhile needs none.
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from weakref import WeakSet

from xnatfs.errors import XnatfsError
from xnatfs.upload.disk import sync_file_system
from xnatfs.upload.upload import Upload

log = logging.getLogger(__name__)

# From a close to the sync of its group; the promise is 5 s. Seconds.
GROUP_S = 3.0

# More are synced with their whole file system in one call.
MOST_SINGLE = 16


class GroupCommit:
    """Syncs uploads in groups.

    Args:
        folder: on the file system of the spool.

    Threading: ``_mu`` guards the group and whether its thread runs; nothing is synced under it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._mu = threading.Lock()
        # What has arrived is not held: its bytes would stay on the disk.
        self._group: WeakSet[Upload] = WeakSet()
        self._running = False
        self._ended = threading.Event()

    def add(self, upload: Upload) -> None:
        """Make a sealed upload durable within 5 s."""
        with self._mu:
            self._group.add(upload)
            if self._running:
                return
            self._running = True
        threading.Thread(target=self._run, name="spool-sync", daemon=True).start()

    def end(self) -> None:
        """Sync what there is, and nothing after that: the folders may change hands."""
        self._ended.set()
        self._sync_group()

    def _run(self) -> None:
        while not self._ended.wait(GROUP_S):
            if not self._sync_group():
                return

    def _sync_group(self) -> bool:
        """Whether there was something to sync; if not, the thread ends."""
        with self._mu:
            group, self._group = list(self._group), WeakSet()
            self._running = bool(group)
        self._sync([upload for upload in group if not upload.gone])
        return bool(group)

    def _sync(self, group: list[Upload]) -> None:
        if len(group) > MOST_SINGLE:
            try:
                sync_file_system(self._folder)
            except OSError as error:
                log.info("%s cannot be synced as a whole: %s", self._folder, error)
            else:
                for upload in group:
                    upload.synced()
                return
        for upload in group:
            try:
                upload.fsync()
            except XnatfsError as error:
                log.warning("%s is not safe from a power loss: %s", upload.folder, error)
