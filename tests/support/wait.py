"""Waiting for a fact, with a deadline: the only way a test here lets time pass."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar
from urllib.error import HTTPError

T = TypeVar("T")
POLL_SECONDS = 0.02


class StillNotSoError(AssertionError):
    """The deadline passed; the text tells what was seen last."""


def _verdict(what: str, timeout: float, last: object) -> StillNotSoError:
    return StillNotSoError(f"after {timeout:g} s still not so: {what}; last seen: {last!r}")


def eventually(fn: Callable[[], T], timeout: float = 10.0, what: str = "") -> T:
    """Calls `fn` until it returns something true and hands that back.

    An AssertionError or OSError (a server that is not up yet) counts as "not yet".
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            last: object = fn()
            if last:
                return last  # type: ignore[return-value]
        except (AssertionError, OSError) as error:
            last = error
            if isinstance(error, HTTPError):  # it holds its connection open
                error.close()
        if time.monotonic() >= deadline:
            raise _verdict(what or fn.__name__, timeout, last)
        time.sleep(POLL_SECONDS)


async def aeventually(fn: Callable[[], Awaitable[T]], timeout: float = 10.0, what: str = "") -> T:
    """`eventually` for a coroutine function, without blocking the loop."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            last: object = await fn()
            if last:
                return last  # type: ignore[return-value]
        except (AssertionError, OSError) as error:
            last = error
        if time.monotonic() >= deadline:
            raise _verdict(what or fn.__name__, timeout, last)
        await asyncio.sleep(POLL_SECONDS)
