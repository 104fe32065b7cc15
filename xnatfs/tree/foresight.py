"""Asking at once for what a path that is walked needs step by step.

The kernel looks up a path name by name, and each name may need a listing: on a long line that is
a round trip for each. Who looks up a name in a folder that he has not listed knows where he goes;
who lists folders and looks at every entry (``ls -l``, ``find``) gets nothing ahead.
"""

from __future__ import annotations

import threading

from cachetools import TTLCache

from xnatfs.model.entities import Item
from xnatfs.model.levels import BY_COLLECTION, EXPERIMENT
from xnatfs.model.paths import decode_name
from xnatfs.rest.addresses import object_address
from xnatfs.tree.listings import Listings

# Who listed a folder this long ago may still be looking at its entries one by one. Seconds.
_LISTED_S = 60.0


class Foresight:
    """What is asked for ahead, in one mount.

    Threading: ``_mu`` guards which folders were listed.
    """

    def __init__(self, listings: Listings) -> None:
        self._listings = listings
        self._mu = threading.Lock()
        self._listed: TTLCache[str, bool] = TTLCache(4096, _LISTED_S)

    def listed(self, folder: str) -> None:
        """A folder (its path) is listed: look-ups in it are no walk for now."""
        with self._mu:
            self._listed[folder] = True

    def looking_for(self, folder: str, collection: str, item: Item, name: str) -> None:
        """A name is looked up in a collection of ``item``.

        Where names are ids (projects) this begins before it is known whether the name exists;
        and who looks for a scan by its name will want its files.
        """
        level = BY_COLLECTION.get(collection)
        if level is None or self.was_listed(folder):
            return
        if level.listed_at == EXPERIMENT.name and item.level is EXPERIMENT:
            self._listings.foresee_files(item)
        elif level.walked and not level.listed_at and self._listings.peek(level, None) is None:
            id_ = decode_name(name)
            self._listings.foresee(Item(level, id_, id_, object_address(level, id_, ""), {}))

    def found(self, folder: str, item: Item) -> None:
        """A name that was looked up stands for ``item``."""
        if item.level.walked and not self.was_listed(folder):
            self._listings.foresee(item)

    def was_listed(self, folder: str) -> bool:
        """Whether a folder (its path) was listed a short while ago."""
        with self._mu:
            return folder in self._listed
