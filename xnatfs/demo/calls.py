"""A request on its way to a handler."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from urllib.parse import unquote_plus
from xml.sax.saxutils import escape

from xnatfs.demo.objects import Holder
from xnatfs.demo.site import Site
from xnatfs.demo.users import GUEST, User
from xnatfs.demo.wire import Body, Query, Refusal, Reply

_QUOTES = {"'": "&apos;", '"': "&quot;"}


@dataclass(frozen=True, slots=True)
class Call:
    """One request; the gate adds the user and the HTTP session, the router variables and tail.

    `path` is raw: percent-encoded as it came, below the context path, without query; `headers`
    have lower-case names; `base` is the server's URL with context path. `variables` are those of
    the route's template, `tail` what is left of the path. With `conflict` whatever it does to a
    catalog collides with another writer (R§4.6).
    """

    site: Site
    verb: str
    path: str
    query: Query
    headers: Mapping[str, str]
    body: Body
    base: str
    conflict: bool = False
    user: User = GUEST
    session: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    tail: str = ""

    def variable(self, name: str) -> str:
        """A path variable as XNAT's code sees it: still percent-encoded, XML-escaped (R§1.1)."""
        return escape(self.variables.get(name, ""), _QUOTES)

    def decoded(self, name: str) -> str:
        """SCAN and RECON below the scan: URL-decoded, `[SLASH]` is `/` (R§1.1, R§12.4)."""
        return unquote_plus(self.variables.get(name, "")).replace("[SLASH]", "/")

    @property
    def file_path(self) -> str:
        """The path in a resource that the tail means.

        Decoded only if it holds `%20` or `%2B` (in that spelling); then as a form, so that a raw
        `+` becomes a blank (R§3.3, R§12.9).
        """
        path = self.tail.removeprefix("/")
        return unquote_plus(path) if "%20" in path or "%2B" in path else path

    @property
    def media_type(self) -> str:
        """Content-Type without parameters, lower case; "" when absent."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()

    def need(self, verb: str, project: str) -> None:
        """Raises Refusal 403 if the user may not `edit` or `delete` in a project."""
        if not self.site.may(self.user, verb, project):
            raise Refusal(403, f"User account doesn't have permission to {verb} this item.")

    def may(self, verb: str, holder: Holder) -> bool:
        """Whether the user may `edit` or `delete` there: the owning project decides (R§5.3)."""
        return self.site.may(self.user, verb, holder.guard.project)


Handler = Callable[[Call], Reply]
