"""One question over HTTP, to a port of our own: enough for `/readyz`, `/metrics` and `/top`."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final, NamedTuple

ANSWER_SECONDS: Final = 2.0
ANSWER_MAX_BYTES: Final = 1 << 20
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class Answer(NamedTuple):
    """Status 0: nobody answered, and `text` says why."""

    status: int
    text: str


def own_address(host: str) -> str:
    """Where this machine reaches itself when it listens on `host`."""
    return _ANYWHERE.get(host, host)


def url(host: str, port: int, path: str = "") -> str:
    """The URL of a path on one of our ports, as somebody on this machine types it."""
    address = own_address(host)
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{path}"


async def get(host: str, port: int, path: str, token: str = "") -> Answer:
    """GET, bounded in time and size; never raises for what the other side does."""
    try:
        return await asyncio.wait_for(_get(own_address(host), port, path, token), ANSWER_SECONDS)
    except TimeoutError:
        return Answer(0, f"no answer within {ANSWER_SECONDS:g} s")
    except OSError as error:
        return Answer(0, error.strerror or str(error))


async def _get(host: str, port: int, path: str, token: str) -> Answer:
    reader, writer = await asyncio.open_connection(host, port)
    try:
        request = [f"GET {path} HTTP/1.1", f"Host: {host}:{port}", "Connection: close"]
        if token:
            request.append(f"Authorization: Bearer {token}")
        writer.write("\r\n".join([*request, "", ""]).encode())
        raw = bytearray()
        while len(raw) < ANSWER_MAX_BYTES and (data := await reader.read(ANSWER_MAX_BYTES)):
            raw += data
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
    head, _, body = bytes(raw).partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split()
    if len(words) < 2 or not words[1].isdigit():
        return Answer(0, "the answer is not HTTP")
    return Answer(int(words[1]), body.decode("utf-8", "replace").strip())
