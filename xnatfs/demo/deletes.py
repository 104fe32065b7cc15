"""DELETE of files, with the prefix trap and the regex form (R§5.2)."""

from __future__ import annotations

import re

from xnatfs.demo.addresses import variable
from xnatfs.demo.archive import Archive
from xnatfs.demo.catalog import CatalogConflictError, Entry
from xnatfs.demo.files import path_of
from xnatfs.demo.objects import Resource
from xnatfs.demo.routes import Call
from xnatfs.demo.site import Site
from xnatfs.demo.wire import Refusal, Reply, Request, text


def doomed(entries: tuple[Entry, ...], path: str) -> list[Entry]:
    """The entries that a DELETE of `path` removes.

    Every path that equals or starts with it; a path that ends in `*` is besides a regular
    expression over the whole path, its last `*` standing for `.*`. An empty path means all.
    """
    chosen = [entry for entry in entries if entry.uri.startswith(path)]
    if path.endswith("*"):
        try:
            pattern = re.compile(path[:-1] + ".*")
        except re.error:
            return chosen
        chosen += [it for it in entries if pattern.fullmatch(it.uri) and it not in chosen]
    return chosen


class Deletes:
    """Answers DELETE of `…/resources/R/files[/path]`."""

    def __init__(self, site: Site) -> None:
        self._site = site

    def delete(self, call: Call) -> Reply:
        """Remove files from the catalogs and, unless told otherwise, from disk."""
        request = call.request
        target = self._site.addresses.target(call.variables, request.user, strict=True)
        named = variable(call.variables, "RES")
        pairs = self._site.addresses.resources(named, target.holders, request.user)
        if not pairs or not named:
            raise Refusal(400, "Unable to identify resource.")
        for holder, _resource in pairs:
            if not self._site.addresses.may(request.user, "delete", holder):
                raise Refusal(403, "User account doesn't have permission to delete this file.")
        path = path_of(call.tail)
        keep_bytes = not request.query.flag("removeFiles", default=True)
        removed = 0
        for _holder, resource in pairs:
            removed += self._remove(resource, path, request, keep_bytes=keep_bytes)
        if not removed:
            raise Refusal(204 if request.query.flag("accept-not-found") else 404)
        return text("")

    def _remove(self, resource: Resource, path: str, request: Request, *, keep_bytes: bool) -> int:
        archive = self._site.archive
        base = archive.base(resource, request)
        chosen = doomed(base.entries, path)
        if not chosen:
            return 0
        gone = {entry.uri for entry in chosen}
        try:
            archive.rewrite(resource, [it for it in base.entries if it.uri not in gone], base)
        except CatalogConflictError as conflict:
            raise Refusal(500, str(conflict)) from conflict
        if not keep_bytes:
            for uri in gone:
                _unlink(archive, resource, uri)
        archive.measure(resource)
        return len(gone)


def _unlink(archive: Archive, resource: Resource, uri: str) -> None:
    """Remove a file and the folders that it leaves empty."""
    place, top = archive.file(resource, uri), archive.directory(resource)
    place.unlink(missing_ok=True)
    for folder in place.parents:
        if folder == top or any(folder.iterdir()):
            return
        folder.rmdir()
