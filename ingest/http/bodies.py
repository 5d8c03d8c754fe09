"""Reads the body of a request, bounded in bytes and in time; cut or broken ones are refused.

Why apart: Granian has two ways to read a body, and each is wrong somewhere. Read at once, a body
of unknown length fills the memory; read piece by piece, one that breaks off looks like one that
ended (seen). So a body with a length is read at once, and one without piece by piece: a batch
that broke off is no JSON and no msgpack then, and refused all the same.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from clickmill.contract.problem import Problem

SMALL_BYTES: Final = 64 * 1024
MAX_LARGE_BODIES: Final = 64
"""Bodies over SMALL_BYTES that are read at the same time, in one worker."""


class Bodies:
    """The bodies that are being read. One event loop."""

    def __init__(self, timeout: float) -> None:
        """`timeout` in seconds, for the whole of a body."""
        self._timeout = timeout
        self._large = 0

    async def read(self, headers: Any, proto: Any, limit: int) -> bytes:
        """The body; empty where there is none. Raises Problem 400, 408, 413 or 429."""
        chunked = headers.get("transfer-encoding") is not None
        text = headers.get("content-length") or "0"
        length = limit if chunked else int(text)  # Granian lets nothing but digits through
        if length > limit:
            raise _too_large(limit)
        if not length:
            return b""
        large = length > SMALL_BYTES
        if large and self._large >= MAX_LARGE_BODIES:
            raise Problem(
                429, "too_many_bodies",
                f"{MAX_LARGE_BODIES} large bodies are being read: try again in a second; nothing "
                "was counted", [("retry-after", "1")],
            )  # fmt: skip
        self._large += large
        try:
            async with asyncio.timeout(self._timeout):
                return await (_pieces(proto, limit) if chunked else _whole(proto))
        except TimeoutError:
            raise Problem(
                408, "body_timeout",
                f"the body did not arrive within {self._timeout:g} s; nothing was counted",
            ) from None  # fmt: skip
        finally:
            self._large -= large


async def _whole(proto: Any) -> bytes:
    try:
        return bytes(await proto())
    except (ProtocolClosed, ProtocolError):
        raise Problem(
            400, "body_cut", "the body ended before its Content-Length; nothing was counted"
        ) from None


async def _pieces(proto: Any, limit: int) -> bytes:
    body = bytearray()
    async for piece in proto:
        body += piece
        if len(body) > limit:
            raise _too_large(limit)
    return bytes(body)


def _too_large(limit: int) -> Problem:
    return Problem(
        413, "body_too_large", f"a body here holds at most {limit} bytes; nothing was counted"
    )
