"""The contender "Granian RSGI answering only 200": no path, no counter, one constant answer.

`granian --interface rsgi bench.contenders.rsgi200:app`
"""

from __future__ import annotations

from typing import Any

HEADERS = [("content-type", "application/json"), ("access-control-allow-origin", "*")]
BODY = b'{"status":"counted"}'


async def app(scope: Any, proto: Any) -> None:
    """Answer at once."""
    proto.response_bytes(200, HEADERS, BODY)
