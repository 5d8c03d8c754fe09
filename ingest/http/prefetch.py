"""What a browser fetches ahead of a click that may never come is no click."""

from __future__ import annotations

from typing import Final

from clickmill.contract.problem import Problem
from ingest.http.caller import Scope

AHEAD_HEADERS: Final = ("sec-purpose", "purpose", "x-moz")
"""What browsers mark a request with that nobody has asked for yet; `_fastpath` looks for them."""


def refuse_ahead(scope: Scope) -> None:
    """Raises Problem 403 for what a browser fetches ahead of a click that may never come."""
    if scope.method != "GET":
        return
    headers = scope.headers
    for name in AHEAD_HEADERS:
        value = (headers.get(name) or "").lower()
        if value.startswith(("prefetch", "preview", "prerender")):
            raise Problem(
                403, "prefetch", "a prefetch is no click and nothing was counted: ask again when "
                "somebody clicks",
            )  # fmt: skip
