"""The pause of a client of the ingest port: while others ask, and not otherwise."""

from __future__ import annotations

import asyncio
import time

import pytest

from aggregator.reading import sharing
from aggregator.reading.sharing import INGEST_PORT, PAUSES, Sharing, asker

STATEMENT_S = 0.02
GREEDY = INGEST_PORT + "192.0.2.1"


async def statement(turns: Sharing, client: str) -> None:
    asker.set(client)
    async with turns.turn():
        await asyncio.sleep(STATEMENT_S)


async def three(other: str | None, greedy: str = GREEDY) -> float:
    """Seconds that three statements of a client take, with another that asks before each."""
    turns = Sharing()
    began = time.monotonic()
    for _ in range(3):
        if other is not None:
            await asyncio.create_task(statement(turns, other))
        await asyncio.create_task(statement(turns, greedy))
    return time.monotonic() - began


def test_it_pauses_while_others_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two pauses between three statements; the other's own statements run in them."""
    monkeypatch.setattr(sharing, "OTHERS_S", 60.0)
    at_least = 3 * STATEMENT_S + 2 * PAUSES * STATEMENT_S
    assert asyncio.run(three("192.0.2.2")) >= at_least
    assert asyncio.run(three(INGEST_PORT + "192.0.2.2")) >= at_least


def test_alone_or_on_the_statistics_port_it_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """No sleep but those of the statements themselves."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def recorded(seconds: float) -> None:
        slept.append(seconds)
        await sleep(seconds)

    monkeypatch.setattr(asyncio, "sleep", recorded)
    asyncio.run(three(None))
    asyncio.run(three("192.0.2.2", greedy="192.0.2.3"))
    assert [seconds for seconds in slept if seconds > 0 and seconds != STATEMENT_S] == []


def test_a_pause_is_short_and_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LONGEST_PAUSE_S", STATEMENT_S / 2)

    async def run() -> dict[str, float]:
        turns = Sharing()
        await statement(turns, GREEDY)
        ended = time.monotonic()
        assert turns._paused_until[GREEDY] <= ended + STATEMENT_S / 2
        await statement(turns, INGEST_PORT + "192.0.2.2")
        return turns._paused_until

    assert list(asyncio.run(run())) == [INGEST_PORT + "192.0.2.2"]
