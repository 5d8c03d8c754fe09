"""Who may read on this port: which paths are open, and the one answer to whoever has no token."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from aggregator.reading.errors import RefusedError

# Answered without a token: what a load balancer asks.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
# Files of the pages: the same for everyone, without figures; the form for the token needs them.
OPEN_PREFIX: Final = "/page/"


def unauthorized() -> RefusedError:
    """The 401 of everyone without a right token."""
    return RefusedError(
        HTTPStatus.UNAUTHORIZED,
        "unauthorized",
        "a token is needed: send the header Authorization: Bearer <token>",
    )
