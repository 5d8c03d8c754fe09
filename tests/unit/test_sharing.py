"""The pause of a client of the ingest port: while others ask, and not otherwise."""

from __future__ import annotations

import asyncio
import time

import pytest

from aggregator.reading import sharing
from aggregator.reading.sharing import INGEST_PORT, Sharing, asker
from clickmill.contract.problem import Problem

STATEMENT_S = 0.02
PAUSES = 4
GREEDY = INGEST_PORT + "192.0.2.1"


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses from the first statement on, and short ones."""
    monkeypatch.setattr(sharing, "PAUSES", PAUSES)
    monkeypatch.setattr(sharing, "AT_FIRST_S", 0.0)


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
        assert turns._owed_until[GREEDY] <= ended + STATEMENT_S / 2
        await statement(turns, INGEST_PORT + "192.0.2.2")
        return turns._owed_until

    assert list(asyncio.run(run())) == [INGEST_PORT + "192.0.2.2"]


def test_few_statements_at_once_are_followed_by_no_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three, where two pauses are remitted; after as many again each has its own."""
    monkeypatch.setattr(sharing, "OTHERS_S", 60.0)
    monkeypatch.setattr(sharing, "LONGEST_PAUSE_S", 1.0)
    monkeypatch.setattr(sharing, "PAUSES", 1000)
    monkeypatch.setattr(sharing, "AT_FIRST_S", 2.0)

    async def run() -> tuple[float, float]:
        turns = Sharing()
        await statement(turns, "192.0.2.2")
        took = []
        for _ in range(2):
            began = time.monotonic()
            for _ in range(3):
                await asyncio.create_task(statement(turns, GREEDY))
            took.append(time.monotonic() - began)
        return took[0], took[1]

    first, then = asyncio.run(run())
    assert first < 1.0
    assert then > 2.0


def test_who_waits_long_because_of_pauses_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LONGEST_WAIT_S", 0.1)
    monkeypatch.setattr(sharing, "PAUSES", 1000)

    async def run() -> None:
        turns = Sharing()
        await asyncio.create_task(statement(turns, GREEDY))
        await asyncio.create_task(statement(turns, "192.0.2.2"))
        with pytest.raises(Problem) as refused:
            await asyncio.create_task(statement(turns, GREEDY))
        assert refused.value.status == 429
        assert turns._waiting.total == 0
        await asyncio.sleep(sharing.LONGEST_PAUSE_S)
        await asyncio.create_task(statement(turns, GREEDY))

    asyncio.run(run())


def test_who_waits_long_for_a_statement_is_not_blamed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharing, "LONGEST_WAIT_S", 0.1)

    async def run() -> None:
        turns = Sharing()
        asker.set(GREEDY)
        async with turns.turn():
            with pytest.raises(TimeoutError):
                await asyncio.create_task(statement(turns, GREEDY))

    asyncio.run(run())
