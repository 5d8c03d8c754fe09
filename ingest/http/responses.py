"""What the ingest port answers with: bodies, headers, and the one shape of an error.

Why apart: the fast path and the ordinary way must say the same, byte for byte.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

import msgspec
from granian.rsgi import ProtocolClosed  # type: ignore[attr-defined]

from clickmill.contract.problem import Headers, Problem

BODY_COUNTED: Final = b'{"status":"counted"}'
JSON: Final[Headers] = [("content-type", "application/json")]
CLOSE: Final[Headers] = [("connection", "close")]
"""The connection ends behind this answer: its request's body is not, or never will be, read."""
PIXEL_GIF: Final = (
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\x00\x00\x00!\xf9\x04\x01\x00\x00\x00\x00,"
    b"\x00\x00\x00\x00\x01\x00\x01\x00\x00\x02\x02D\x01\x00;"
)

log = logging.getLogger("clickmill.ingest")


class Answer(NamedTuple):
    """Status, body and headers, without those that every answer has."""

    status: int
    body: bytes
    headers: Headers
    rest: AsyncIterator[bytes] | None = None
    """What follows the body, where the answer is a stream."""


async def send_stream(proto: Any, answer: Answer, cors: Headers) -> None:
    """Send an answer piece by piece, no faster than the client reads.

    One that breaks off lacks its last line.
    """
    assert answer.rest is not None
    transport = proto.response_stream(answer.status, [*answer.headers, *cors])
    try:
        await transport.send_bytes(answer.body)
        async for piece in answer.rest:
            await transport.send_bytes(piece)
    except (Problem, ProtocolClosed) as error:
        log.info("a table was not sent to its end: %s", error)


def error_answer(problem: Problem) -> Answer:
    """{"error": sentence, "code": word}, never to be cached."""
    return Answer(problem.status, problem.body, [*JSON, *problem.headers, *no_store()])


def answer(status: int, body: Any, headers: Headers | None = None) -> Answer:
    """A JSON answer."""
    return Answer(status, msgspec.json.encode(body), [*JSON, *(headers or [])])


def no_store() -> Headers:
    """No cache may keep this, or the next click would not arrive."""
    return [("cache-control", "no-store")]


def cors_headers(origin: str) -> Headers:
    """`origin` is *, one origin, or `none`: then browsers of other origins may not read answers."""
    return [] if origin == "none" else [("access-control-allow-origin", origin)]


class FastAnswers(NamedTuple):
    """The answers to plain clicks, whole, as the fast path sends them."""

    body: bytes
    post_headers: Headers
    get_headers: Headers
    pixel_body: bytes
    pixel_headers: Headers


def fast_answers(cors_origin: str) -> FastAnswers:
    """What `app` answers to plain clicks, made once."""
    cors = cors_headers(cors_origin)
    return FastAnswers(
        BODY_COUNTED,
        [*JSON, *cors],
        [*JSON, *no_store(), *cors],
        PIXEL_GIF,
        [("content-type", "image/gif"), *no_store(), *cors],
    )
