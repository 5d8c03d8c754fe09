"""Shares a bounded resource between clients, so that no client can take it from the others.

A client is who asks, by address: one that opens a hundred connections is still one. The bounds
count; nothing here waits longer than its caller allows.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

ALWAYS: Final = 2
"""So many a client may hold as long as any is free."""


class Shares:
    """What clients hold of something. One event loop."""

    def __init__(self) -> None:
        self.total = 0
        self._held: Counter[str] = Counter()

    def allows(self, client: str, capacity: int) -> bool:
        """Whether this client may take one more of `capacity`: as long as it holds less than it
        leaves to the others."""
        own, free = self._held.get(client, 0), capacity - self.total
        return free > 0 and (own < ALWAYS or own < free)

    def take(self, client: str) -> None:
        """Count one more, which `allows` allowed."""
        self.total += 1
        self._held[client] += 1

    def give_back(self, client: str) -> None:
        """Count one less."""
        self.total -= 1
        self._held[client] -= 1
        if not self._held[client]:
            del self._held[client]

    @contextmanager
    def held(self, client: str) -> Iterator[None]:
        """One more within the block."""
        self.take(client)
        try:
            yield
        finally:
            self.give_back(client)


class Turns:
    """Lets each client do only so much at the same time; the rest waits for its turn."""

    def __init__(self) -> None:
        self._gates: dict[str, asyncio.Semaphore] = {}
        self._users: Counter[str] = Counter()

    @asynccontextmanager
    async def turn(self, client: str, at_once: int) -> AsyncIterator[None]:
        """The block runs when less than `at_once` blocks of this client do, in order of arrival."""
        gate = self._gates.setdefault(client, asyncio.Semaphore(at_once))
        self._users[client] += 1
        try:
            async with gate:
                yield
        finally:
            self._users[client] -= 1
            if not self._users[client]:
                del self._users[client], self._gates[client]
