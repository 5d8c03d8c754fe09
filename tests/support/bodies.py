"""Requests whose body comes later than their headers, piece by piece, as clients send them."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Final

from tests.support.raw import Answer, Connection

KIB: Final = 1024
CHUNKED: Final = "Transfer-Encoding: chunked"

Pieces = Iterator[bytes | float]
"""Bytes to send, and seconds to wait before the next."""


def head(target: str, *lines: str, method: str = "POST") -> bytes:
    """A request up to its body."""
    return "\r\n".join([f"{method} {target} HTTP/1.1", "Host: localhost", *lines, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


def in_one(method: str, target: str) -> Pieces:
    yield head(target, "Content-Length: 2", method=method) + b"{}"


def in_two(method: str, target: str) -> Pieces:
    yield head(target, "Content-Length: 2", method=method)
    yield b"{}"


def later(method: str, target: str) -> Pieces:
    yield head(target, "Content-Length: 30", method=method)
    yield random.uniform(0, 0.004)
    yield b"{" + b" " * 28 + b"}"


def dripping(method: str, target: str) -> Pieces:
    yield head(target, "Content-Length: 5", method=method)
    for byte in (b"{", b" ", b" ", b" ", b"}"):
        yield 0.001
        yield byte


def chunks(method: str, target: str) -> Pieces:
    yield head(target, CHUNKED, method=method)
    yield chunk(b"{")
    yield chunk(b"}")
    yield chunk(b"")


def slow_chunks(method: str, target: str) -> Pieces:
    for piece in chunks(method, target):
        yield piece
        yield 0.001


def with_trailers(method: str, target: str) -> Pieces:
    yield head(target, CHUNKED, "Trailer: X-Sum", method=method)
    yield chunk(b"{}") + b"0\r\nX-Sum: 1\r\n\r\n"


def of_200_kb(method: str, target: str) -> Pieces:
    yield head(target, f"Content-Length: {200 * KIB}", method=method)
    yield b" " * (200 * KIB)


def of_20_kb_late(method: str, target: str) -> Pieces:
    yield head(target, f"Content-Length: {20 * KIB}", method=method) + b" " * (5 * KIB)
    yield 0.001
    yield b" " * (15 * KIB)


SHAPES: Final = {
    "in one": in_one, "in two": in_two, "later": later, "dripping": dripping, "chunks": chunks,
    "slow chunks": slow_chunks, "trailers": with_trailers, "20 KB": of_20_kb_late,
    "200 KB": of_200_kb,
}  # fmt: skip


def send(connection: Connection, pieces: Pieces) -> None:
    for piece in pieces:
        if isinstance(piece, bytes):
            connection.send(piece)
        else:
            time.sleep(piece)


def asked(connection: Connection, pieces: Pieces) -> Answer:
    send(connection, pieces)
    answer = connection.answer()
    assert answer is not None, "the connection was closed without an answer"
    return answer
