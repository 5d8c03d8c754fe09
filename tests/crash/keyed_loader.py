"""Batches with an Idempotency-Key, each sent until it is answered: nothing stays in flight."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from bench.load.ledger import Counts
from clickmill import wire
from tests.crash.loader import ANSWER_S, CONNECT_S, HOST, RETRY_S, Loader, read_answer

BANNERS = 20
FIRST_BANNER, FIRST_OWN = 100, 200
"""Banners of clicks without a time, and of those with one: their minutes are known."""
MAX_DAYS = 30
MAX_AGAIN = (429, 503)
"""Answers that say: send it again with the same key."""
ONCE_MORE = 0.2
"""How often an answered batch is sent once more."""


class Connection:
    """One client's connection, which may go to any of the nodes."""

    def __init__(self, ports: Sequence[int], chance: random.Random) -> None:
        self._ports, self._chance = ports, chance
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(self, data: bytes) -> int:
        """The status of a whole answer. Raises OSError, EOFError, TimeoutError."""
        try:
            if self._streams is None:
                async with asyncio.timeout(CONNECT_S):
                    port = self._chance.choice(self._ports)
                    self._streams = await asyncio.open_connection(HOST, port)
            reader, writer = self._streams
            writer.write(data)
            async with asyncio.timeout(ANSWER_S):
                status, closes = await read_answer(reader)
        except BaseException:
            self.close()
            raise
        if closes or self._chance.random() < ONCE_MORE:
            self.close()
        return status

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].transport.abort()
            self._streams = None


class KeyedLoader(Loader):
    """`rate` batches a second to these ports, from `start` to `stop`."""

    def __init__(
        self, ports: Sequence[int], seed: int, rate: int = 100, connections: int = 12
    ) -> None:
        super().__init__(ports[0], seed, rate, connections)
        self._ports = ports
        self.batches = 0
        self.repeats = 0

    async def _one(self, chance: random.Random, address: str) -> None:
        connection = Connection(self._ports, chance)
        while not self._stopping.is_set():
            items, now, own = _items(chance)
            data = _request(str(UUID(int=chance.getrandbits(128))), items)
            self.batches += 1
            request = self.ledger.send(now)
            await self._until_answered(connection, data)
            if chance.random() < ONCE_MORE:
                await self._until_answered(connection, data)
            self.ledger.answer(request)
            self.ledger.answer_at(own)
            await asyncio.sleep(self._pause * chance.uniform(0.5, 1.5))
        connection.close()

    async def _until_answered(self, connection: Connection, data: bytes) -> None:
        while True:
            try:
                status = await connection.send(data)
            except (OSError, EOFError, TimeoutError):
                self.repeats += 1
            else:
                if status == 200:
                    return
                assert status in MAX_AGAIN, status
            await asyncio.sleep(RETRY_S)


def _items(chance: random.Random) -> tuple[list[dict[str, Any]], Counter[int], Counts]:
    """The items of a batch; the clicks of now by banner, the others by banner and minute."""
    items: list[dict[str, Any]] = []
    now, own = Counter[int](), Counts()
    for _ in range(chance.randint(1, 4)):
        banner, count = chance.randrange(BANNERS), chance.randint(1, 3)
        if chance.random() < 0.5:
            items.append({"bannerID": FIRST_BANNER + banner, "count": count})
            now[FIRST_BANNER + banner] += count
        else:
            at = int(time.time()) - chance.randrange(MAX_DAYS * 86_400)
            items.append({"bannerID": FIRST_OWN + banner, "count": count, "ts": at})
            own[FIRST_OWN + banner, wire.minute_of(at)] += count
    return items, now, own


def _request(key: str, items: list[dict[str, Any]]) -> bytes:
    body = json.dumps(items).encode()
    head = (
        f"POST /clicks HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
        f"Idempotency-Key: {key}\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body
