"""Shares of clients: one that takes all it can leaves enough for the others."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clickmill.shares import ALWAYS, Shares, Turns


def fill(shares: Shares, client: str, capacity: int) -> int:
    """Take as many as go."""
    n = 0
    while shares.allows(client, capacity):
        shares.take(client)
        n += 1
    return n


@pytest.mark.parametrize(("capacity", "most"), [(2000, 1000), (256, 128), (3, 2), (2, 2), (1, 1)])
def test_one_client_takes_half(capacity: int, most: int) -> None:
    assert fill(Shares(), "greedy", capacity) == most


@given(st.integers(1, 5000), st.lists(st.integers(0, 9), max_size=20))
def test_a_client_leaves_as_much_as_it_takes(capacity: int, clients: list[int]) -> None:
    shares = Shares()
    for client in clients:
        free = capacity - shares.total
        taken = fill(shares, str(client), capacity)
        assert taken <= max(ALWAYS, free / 2 + 1)
        assert shares.total <= capacity


def test_what_is_given_back_is_free_again() -> None:
    shares = Shares()
    with shares.held("a"), shares.held("b"):
        assert shares.total == 2
        assert not shares.allows("c", 2)
    assert shares.total == 0
    assert fill(shares, "a", 4) == 2


def test_a_client_waits_for_its_own_turn_alone() -> None:
    async def run() -> None:
        turns, log = Turns(), []
        release = asyncio.Event()

        async def ask(client: str, name: str) -> None:
            async with turns.turn(client, 1):
                log.append(name)
                if client == "greedy":
                    await release.wait()

        greedy = [asyncio.create_task(ask("greedy", f"greedy {n}")) for n in range(3)]
        await asyncio.sleep(0)
        await ask("other", "other")
        assert log == ["greedy 0", "other"]
        greedy[1].cancel()
        await asyncio.sleep(0)
        release.set()
        await asyncio.gather(greedy[0], greedy[2])
        assert log == ["greedy 0", "other", "greedy 2"]
        assert not turns._gates
        assert not turns._users

    asyncio.run(run())
