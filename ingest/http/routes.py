"""Which path is which request.

What the browsers of visitors ask for is also under a prefix, if one is set. Why the rest is not: a
proxy can pass on all that is under the prefix, and then nothing else is open to the world.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import Final, NamedTuple

from ingest.http import script
from ingest.http.caller import Scope
from ingest.http.responses import Answer

FOR_VISITORS: Final = frozenset({"counter", "pixel", "click", script.NAME})


class Route(NamedTuple):
    """`name`: the first part of its path, and its label in the metrics. `has_id`: an ID follows.

    `body_max`: bytes of a body that it reads; 0: a body is taken in and dropped. `writes`: it needs
    the right to write; single clicks need none.
    """

    name: str
    has_id: bool
    methods: tuple[str, ...]
    call: Callable[[Scope, str, bytes], Awaitable[Answer]]
    body_max: int = 0
    writes: bool = False


class Routes:
    """The routes by the first part of their path; `other` is that of every other path."""

    def __init__(self, routes: Iterable[Route], other: Route, prefix: str) -> None:
        self._routes = {route.name: route for route in routes}
        self._other = other
        self._prefix = prefix

    def find(self, path: str) -> tuple[Route, str]:
        """The route of a path, and the text in it that is to be a banner ID."""
        if not self._prefix or not path.startswith(f"{self._prefix}/"):
            return self._find(path)
        route, text = self._find(path[len(self._prefix) :])
        return (route, text) if route.name in FOR_VISITORS else (self._other, "")

    def _find(self, path: str) -> tuple[Route, str]:
        name, slash, text = path[1:].partition("/")
        route = self._routes.get(name)
        if route is None or route.has_id != bool(slash):
            return self._other, ""
        if name != "pixel":
            return route, text
        return (route, text[:-4]) if text.endswith(".gif") else (self._other, "")
