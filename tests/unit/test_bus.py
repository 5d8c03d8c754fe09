"""The connection to NATS, as far as it needs no server."""

from __future__ import annotations

import asyncio
import contextlib

import pytest
from nats.aio.client import Client

from clickmill import bus


@pytest.mark.timeout(10)
@pytest.mark.parametrize("url", ["", " ", ",", " , "])
def test_without_a_server_it_fails_instead_of_searching_forever(url: str) -> None:
    with pytest.raises(ValueError, match="CLICKMILL_NATS_URL"):
        asyncio.run(bus.connect(url, "test"))


@pytest.mark.timeout(10)
def test_a_cancellation_that_the_library_loses_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """As `wait_for` of Python 3.11 does when the reply and the cancellation come together."""

    async def loses_it(*_: object, **__: object) -> str:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(10)
        return "reply"

    async def ask_forever() -> None:
        client = bus._StrictClient()
        while True:
            await client.request("subject")

    async def cancelled() -> bool:
        task = asyncio.create_task(ask_forever())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task}, timeout=1)
        return task.cancelled()

    monkeypatch.setattr(Client, "request", loses_it)
    assert asyncio.run(cancelled())
