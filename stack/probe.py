"""A minimal HTTP GET to Clickmill's own ports: `/readyz`, `/metrics` and `/top`."""

from __future__ import annotations

import asyncio
import contextlib
from http.client import HTTPConnection, HTTPException
from typing import Final, NamedTuple

ANSWER_SECONDS: Final = 2.0
ANSWER_MAX_BYTES: Final = 1 << 20
_ANYWHERE: Final = {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}


class Answer(NamedTuple):
    """Status 0: there was no response, and `text` says why."""

    status: int
    text: str


def own_address(host: str) -> str:
    """The address at which this machine reaches a server that listens on `host`."""
    return _ANYWHERE.get(host, host)


def url(host: str, port: int, path: str = "") -> str:
    """The URL of a path on one of Clickmill's ports, for use on this machine."""
    address = own_address(host)
    return f"http://{f'[{address}]' if ':' in address else address}:{port}{path}"


def bearer(tokens: str) -> dict[str, str]:
    """The header with the first token of a setting; none where it is empty."""
    token = tokens.partition(",")[0].strip()
    return {"Authorization": f"Bearer {token}"} if token else {}


async def get(host: str, port: int, path: str, token: str = "") -> Answer:
    """GET, bounded in time and size. Errors of the other side are returned, not raised."""
    try:
        work = asyncio.to_thread(_get, own_address(host), port, path, token)
        return await asyncio.wait_for(work, ANSWER_SECONDS)
    except TimeoutError:
        return Answer(0, f"no answer within {ANSWER_SECONDS:g} s")
    except OSError as error:
        return Answer(0, error.strerror or str(error))
    except HTTPException:
        return Answer(0, "the response is not HTTP")


def _get(host: str, port: int, path: str, token: str) -> Answer:
    with contextlib.closing(HTTPConnection(host, port, timeout=ANSWER_SECONDS)) as connection:
        connection.request("GET", path, headers=bearer(token))
        answer = connection.getresponse()
        text = answer.read(ANSWER_MAX_BYTES).decode("utf-8", "replace").strip()
    return Answer(answer.status, text)
