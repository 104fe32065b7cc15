"""What a person means by PATH: a path of the archive, an accession, or a pasted web address.

/projects/PVT000/subjects/Haofei01          names, as a mount shows them
XNAT_E00001                                 a session's accession
https://host/data/experiments/XNAT_E00001   an address of the REST interface
https://host/app/action/DisplayItemAction/search_value/XNAT_E00001/…   a page of the browser
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import pairwise
from urllib.parse import unquote, urlsplit

from xnatfs.errors import UsageError
from xnatfs.options import archive_path

# Where the REST interface begins in an address (R§1.1), and the browser's pages.
_REST = re.compile(r"/(?:data|REST)(?:/archive)?(?=/|$)")
_PAGE = re.compile(r"/app/(?:action|template)/")


@dataclass(frozen=True, slots=True)
class Place:
    """A parsed PATH."""

    # Base URL of the server that a web address names; "" for a path.
    server: str
    # Absolute path in the archive, of names or ids, without a slash at its end.
    path: str


def parse(text: str) -> Place:
    """Read a PATH.

    Raises: UsageError: a web address that leads to no object of an archive; nothing at all.
    """
    if not text.strip():
        raise UsageError('a PATH is empty (a variable that is not set?); the whole archive is "/"')
    if "://" not in text:
        return Place("", archive_path(text))
    try:
        parts = urlsplit(text)
    except ValueError as error:
        raise UsageError(f"{text}: {error}") from error
    if "@" in parts.netloc:
        raise UsageError("no user or password in the address, where others can see it")
    rest, page = _REST.search(parts.path), _PAGE.search(parts.path)
    if rest is not None and (page is None or rest.start() < page.start()):
        inside = "/".join(_decoded(part) for part in parts.path[rest.end() :].split("/"))
        base = parts.path[: rest.start()]
    elif page is not None:
        inside = _shown(parts.path[page.end() :], text)
        base = parts.path[: page.start()]
    else:
        raise UsageError(f"{text}: neither an address below /data nor a page of an object")
    return Place(f"{parts.scheme}://{parts.netloc}{base}", archive_path(inside))


def _decoded(part: str) -> str:
    # A scan's id may hold a slash, which XNAT writes so (R§1.1), and file names escape (SEMANTICS).
    return unquote(part).replace("[SLASH]", "%2F")


def _shown(path: str, text: str) -> str:
    """The object that a page shows: its address holds names and values in turn."""
    words = [unquote(part) for part in path.split("/") if part]
    values = dict(pairwise(words))
    element, id_ = values.get("search_element", ""), values.get("search_value", "")
    project = values.get("project", "")
    if not id_:
        raise UsageError(f"{text}: this page shows no project, subject or session")
    if element == "xnat:projectData":
        return f"/projects/{id_}"
    if element == "xnat:subjectData":
        if not project:
            raise UsageError(f"{text}: the address does not name the project of {id_}")
        return f"/projects/{project}/subjects/{id_}"
    return f"/experiments/{id_}"
