"""Takes in the body of a request before its answer, bounded in bytes and in time.

Why before: hyper, in Granian, closes a connection whose body it can't drain at once when the
answer is written, and the client loses that answer or its next request. So every body is taken
in, that of a click and of an error too, or the answer says `Connection: close`.

Why apart: Granian has two ways to read a body, and each is wrong somewhere. Read at once, a body
of unknown length fills the memory; read piece by piece, one that breaks off looks nearly like one
that ended. So a body that is kept and has a length is read at once, and every other one piece by
piece; pieces that are not needed are dropped.

A connection is closed when nobody holds its body any more. So no exception of here may end up in a
reference cycle: its traceback holds the body, until the garbage collector comes by.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from contextlib import suppress
from typing import Any, Final, TypeVar

from granian.rsgi import ProtocolClosed, ProtocolError  # type: ignore[attr-defined]

from clickmill.contract.problem import Problem, body_cut, body_timeout, body_too_large, too_many
from ingest.http.responses import CLOSE

T = TypeVar("T")
SMALL_BYTES: Final = 64 * 1024
MAX_LARGE_BODIES: Final = 64
"""Bodies over SMALL_BYTES that are kept at the same time, in one worker."""
LINGER_MAX_BYTES: Final = 16 << 20
MAX_LINGERING: Final = 64
"""Connections that are read on behind their last answer at the same time, in one worker."""


class UnreadBodyError(Problem):
    """Answered before the body is in: `Bodies.linger` reads on behind that answer."""


class Bodies:
    """The bodies that are being taken in. One event loop."""

    def __init__(self, timeout: float) -> None:
        """`timeout` in seconds, for the whole of a body."""
        self._timeout = timeout
        self._large = 0
        self._lingering = 0

    async def read(self, headers: Any, proto: Any, limit: int) -> bytes:
        """The body; empty where there is none. Raises Problem 400, 408, 413 or 429."""
        length = _length(headers, limit)
        if length == 0:
            return b""
        large = (limit if length is None else length) > SMALL_BYTES
        if large and self._large >= MAX_LARGE_BODIES:
            raise _too_many()
        self._large += large
        try:
            body = _chunked(headers, proto, limit) if length is None else _whole(proto)
            return await self._in_time(body)
        finally:
            self._large -= large

    async def skip(self, headers: Any, proto: Any, limit: int) -> None:
        """Take the body in and keep nothing of it. Raises Problem 400, 408 or 413."""
        length = _length(headers, limit)
        if length == 0:
            return
        taken, ends = await self._in_time(_pieces(proto, limit, None))
        is_whole = taken == length if length is not None else _is_end(headers, ends)
        if not is_whole:
            raise cut()

    async def linger(self, headers: Any, proto: Any) -> None:
        """Read on behind an answer that came before the body was in, within bounds.

        Closed at once, the connection would be reset under a client that still sends, and many
        clients would not see the answer then. Who expects a `100 Continue` sends nothing.
        """
        if "expect" in headers or self._lingering >= MAX_LINGERING:
            return
        self._lingering += 1
        with suppress(Problem):
            try:
                await self._in_time(_pieces(proto, LINGER_MAX_BYTES, None))
            finally:
                self._lingering -= 1

    async def _in_time(self, taking: Coroutine[Any, Any, T]) -> T:
        """No context manager: on Python 3.12 and up that one's frames are such a cycle."""
        try:
            async with asyncio.timeout(self._timeout):
                return await taking
        except (
            TimeoutError,
            asyncio.CancelledError,
        ):  # cancelled: the worker ends, it waits no more
            raise timed_out(self._timeout) from None
        except (ProtocolClosed, ProtocolError):
            raise cut() from None


def _length(headers: Any, limit: int) -> int | None:
    """Bytes of the body, 0 for none, None where only its end tells. Raises UnreadBodyError 413."""
    if headers.get("transfer-encoding") is not None:
        return None
    length = int(headers.get("content-length") or "0")  # Granian lets nothing but digits through
    if length > limit:
        raise _too_large(limit)
    return length


async def _whole(proto: Any) -> bytes:
    return bytes(await proto())


async def _chunked(headers: Any, proto: Any, limit: int) -> bytes:
    body = bytearray()
    _, ends = await _pieces(proto, limit, body)
    if not _is_end(headers, ends):
        raise cut()
    return bytes(body)


async def _pieces(proto: Any, limit: int, into: bytearray | None) -> tuple[int, int]:
    """Read to the end, into a buffer if there is one; (bytes read, empty pieces at the end).

    Raises UnreadBodyError 413.
    """
    taken = ends = 0
    with suppress(ProtocolError):  # it has begun already: `linger` goes on where `read` stopped
        proto.__aiter__()
    while (piece := await _next(proto)) is not None:
        taken += len(piece)
        ends = 0 if piece else ends + 1
        if taken > limit:
            raise _too_large(limit)
        if into is not None:
            into += piece
    return taken, ends


def _is_end(headers: Any, ends: int) -> bool:
    """Whether a chunked body has ended so. Granian gives one empty piece at the end, but two where
    it broke off, and where trailers came: those must have been announced (RFC 9110, 6.6.2)."""
    return ends == 1 or "trailer" in headers


async def _next(proto: Any) -> bytes | None:
    try:
        return await proto.__anext__()  # type: ignore[no-any-return]
    except StopAsyncIteration:
        return None


def cut() -> Problem:
    """The connection ended, or broke its framing, within the body."""
    return _closing(Problem, body_cut())


def timed_out(timeout: float) -> Problem:
    """The body took longer than `timeout` seconds."""
    return _closing(Problem, body_timeout(timeout))


def _too_large(limit: int) -> Problem:
    return _closing(UnreadBodyError, body_too_large(limit))


def _too_many() -> Problem:
    sentence = f"{MAX_LARGE_BODIES} large bodies are being read: try again in a few seconds"
    return _closing(UnreadBodyError, too_many("too_many_bodies", sentence))


def _closing(kind: type[Problem], problem: Problem) -> Problem:
    """The same error, on a connection that is closed behind it."""
    headers = [*problem.headers, *CLOSE]
    return kind(problem.status, problem.code, problem.sentence, headers)
