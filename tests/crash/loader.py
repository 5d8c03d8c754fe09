"""Clicks over keep-alive connections, each entered in the ledger: the load of the crash suite.

Own HTTP/1.1 on plain streams, since it must know for every single request whether its answer
came whole. It runs on a thread of its own while the scenario kills things.
"""

from __future__ import annotations

import asyncio
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Collection, Sequence

from bench.load.ledger import Clicks
from tests.crash.ledger import TimedLedger

HOST = "127.0.0.1"
ANSWER_S = 12.0
"""How long an answer may take: a worker that hangs is replaced within 10 s."""
CONNECT_S = 2.0
RETRY_S = 0.02
STOP_S = 30.0
REQUESTS = (5, 50)
"""Of one connection: then another is made, which may find another worker."""
BANNERS = 20
FIRST_BANNER = 10


class Loader:
    """`rate` clicks a second over so many connections, from `start` to `stop`.

    The connections are spread over `addresses`; `ledger` is that of a load before this one.
    `token`: for batches. `unsure`: answers of a proxy that lost its own connection to the node, so
    that the click may have been counted or not.
    """

    def __init__(
        self,
        port: int,
        seed: int,
        rate: int = 300,
        connections: int = 12,
        host: str = "localhost",
        unsure: Collection[int] = (),
        token: str = "",
        addresses: Sequence[str] = (HOST,),
        ledger: TimedLedger | None = None,
    ) -> None:
        self.ledger = ledger or TimedLedger()
        self._host, self._unsure, self._token = host, unsure, token
        self._addresses = addresses
        self._port, self._pause = port, connections / rate
        self._chances = [random.Random(seed * 1000 + n) for n in range(connections)]
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._all()), daemon=True)

    def start(self) -> Loader:
        self._thread.start()
        return self

    def stop(self) -> TimedLedger:
        """No further request; every one under way gets its answer, or breaks."""
        self._stopping.set()
        self._thread.join(STOP_S)
        assert not self._thread.is_alive(), "the load does not stop"
        return self.ledger

    @property
    def answered(self) -> int:
        """Clicks answered so far."""
        return self.ledger.clicks

    async def _all(self) -> None:
        async with asyncio.TaskGroup() as group:
            for n, chance in enumerate(self._chances):
                group.create_task(self._one(chance, self._addresses[n % len(self._addresses)]))

    async def _one(self, chance: random.Random, address: str) -> None:
        while not self._stopping.is_set():
            try:
                async with asyncio.timeout(CONNECT_S):
                    reader, writer = await asyncio.open_connection(address, self._port)
            except OSError:
                self.ledger.unreachable += 1
                await asyncio.sleep(RETRY_S)
                continue
            try:
                await self._over(reader, writer, chance)
            finally:
                writer.transport.abort()

    async def _over(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, chance: random.Random
    ) -> None:
        """Request after request, until the connection breaks or has had its time."""
        for _ in range(chance.randint(*REQUESTS)):
            if self._stopping.is_set():
                return
            clicks, data = _request(chance, self._host, self._token)
            request = self.ledger.send(clicks)
            try:
                writer.write(data)
                async with asyncio.timeout(ANSWER_S):
                    status, closes = await read_answer(reader)
            except (OSError, EOFError, TimeoutError):
                self.ledger.lose(request)
                return
            if status == 200:
                self.ledger.answer(request)
            elif status in self._unsure:
                self.ledger.lose(request)
            else:
                self.ledger.refuse(request, status)
            if closes:
                return
            took = time.time() - request.sent_at
            await asyncio.sleep(max(0.0, self._pause * chance.uniform(0.5, 1.5) - took))


def _request(chance: random.Random, host: str, token: str) -> tuple[Clicks, bytes]:
    """A click, or now and then a batch; the bytes that ask for it."""
    kind = chance.random()
    if kind < 0.9:
        banner = FIRST_BANNER + chance.randrange(BANNERS)
        line = f"POST /counter/{banner}" if kind < 0.8 else f"GET /pixel/{banner}.gif"
        return {banner: 1}, f"{line} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()
    items = [
        {"bannerID": FIRST_BANNER + chance.randrange(BANNERS), "count": chance.randint(1, 3)}
        for _ in range(chance.randint(1, 4))
    ]
    clicks: Counter[int] = Counter()
    for item in items:
        clicks[item["bannerID"]] += item["count"]
    body = json.dumps(items).encode()
    head = (
        f"POST /clicks HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n"
        + (f"Authorization: Bearer {token}\r\n\r\n" if token else "\r\n")
    )
    return clicks, head.encode() + body


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool]:
    """(status, whether the server will close) of one whole answer. Raises EOFError, OSError."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    lines = head.split("\r\n")
    headers = dict(line.split(": ", 1) for line in lines[1:] if line)
    await reader.readexactly(int(headers.get("content-length", "0")))
    return int(lines[0].split(" ")[1]), headers.get("connection") == "close"
