"""Routing as Restlet 1.1 does it: by prefix, and the longest matching template wins (R§1.1).

An unknown sub-path is therefore no 404: the longest matching parent gets the rest as its tail.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from xnatfs.demo.addresses import Variables
from xnatfs.demo.wire import Refusal, Reply, Request

Handler = Callable[["Call"], Reply]


@dataclass(frozen=True, slots=True)
class Call:
    """A routed request: variables (raw, percent-encoded) and what is left of the path."""

    request: Request
    variables: Variables
    tail: str


@dataclass(frozen=True, slots=True)
class Route:
    """A template, the verbs that it answers, and whether `/data/archive/…` reaches it too."""

    template: str
    handlers: dict[str, Handler]
    pattern: re.Pattern[str]


class Router:
    """The table of all routes below /data."""

    def __init__(self) -> None:
        self._routes: list[Route] = []

    def add(self, template: str, *, archive: bool = True, **handlers: Handler) -> None:
        """A route like `/projects/{P}`; handlers by lower-case verb; HEAD goes to `get`."""
        twins = (template, f"/archive{template}") if archive else (template,)
        for twin in twins:
            pattern = re.compile(re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(twin)))
            self._routes.append(Route(twin, handlers, pattern))

    def answer(self, request: Request, path: str) -> Reply:
        """Hand a request to its route; `path` lies below /data or /REST. Raises Refusal."""
        best: tuple[int, Route, re.Match[str]] | None = None
        for route in self._routes:
            match = route.pattern.match(path)
            if match is not None and (best is None or match.end() > best[0]):
                best = (match.end(), route, match)
        if best is None:
            raise Refusal(404)
        end, route, match = best
        verb = "get" if request.verb == "HEAD" else request.verb.lower()
        handler = route.handlers.get(verb)
        if handler is None:
            raise Refusal(405)
        return handler(Call(request, match.groupdict(), path[end:]))
