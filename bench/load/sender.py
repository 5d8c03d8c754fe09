"""Sending clicks over keep-alive connections at their times, each entered in the ledger.

Nothing is ever sent twice: a client that repeats a request has clicked twice.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from bench.load.ledger import Ledger

ANSWER_TIMEOUT = 30.0
CONNECT_TIMEOUT = 5.0
CONNECT_TRIES = 50
CONNECT_PAUSE = 0.1
QUEUE_LENGTH = 1_000
"""Requests that wait for a free connection; the schedule then waits with them."""
OK = 200


@dataclass(frozen=True, slots=True)
class Shot:
    """One request to send: `banner` is counted where `is_click`, at `due` seconds after start."""

    due: float
    method: str
    banner: int
    is_click: bool


@dataclass(slots=True)
class Outcome:
    """What became of every request."""

    ledger: Ledger = field(default_factory=Ledger)
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter)
    """All answers, by method and status."""
    unsent: int = 0
    """Requests for which no connection could be made."""
    broken: list[str] = field(default_factory=list)
    """Why connections broke, one line each."""
    latest: float = 0.0
    """Seconds by which the latest request left after its time."""


class Connection:
    """One HTTP/1.1 keep-alive connection: a request, then its answer, never two at once."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def open(self) -> None:
        """Connect if not connected; OSError when the server can't be reached in the tries left."""
        for tries_left in reversed(range(CONNECT_TRIES)):
            if self._writer is not None:
                return
            try:
                async with asyncio.timeout(CONNECT_TIMEOUT):
                    self._reader, self._writer = await asyncio.open_connection(
                        self._host, self._port
                    )
            except OSError:
                if not tries_left:
                    raise
                await asyncio.sleep(CONNECT_PAUSE)

    def close(self) -> None:
        """Drop the connection; the next `open` makes a new one."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def ask(self, method: str, path: str) -> int:
        """Send one request without a body and return the status of its answer.

        Raises OSError or EOFError when the connection breaks: the request may then have arrived.
        """
        assert self._writer is not None, "open() comes first"
        length = "Content-Length: 0\r\n" if method != "GET" else ""
        head = f"{method} {path} HTTP/1.1\r\nHost: {self._host}:{self._port}\r\n{length}\r\n"
        async with asyncio.timeout(ANSWER_TIMEOUT):
            self._writer.write(head.encode("ascii"))
            status, keep = await self._read_answer(bodiless=method == "HEAD")
        if not keep:
            self.close()
        return status

    async def _read_answer(self, bodiless: bool) -> tuple[int, bool]:
        """Read one answer whole: its status, and whether the connection stays open."""
        assert self._reader is not None
        head = (await self._reader.readuntil(b"\r\n\r\n")).lower().split(b"\r\n")
        status = int(head[0].split(b" ", 2)[1])
        fields = dict(line.split(b":", 1) for line in head[1:] if b":" in line)
        length = int(fields.get(b"content-length", b"0"))
        if b"transfer-encoding" in fields:
            raise ConnectionError("a chunked answer: no click is answered so")
        if not bodiless and length:
            await self._reader.readexactly(length)
        return status, fields.get(b"connection", b"").strip() != b"close"


class Sender:
    """Sends shots at their times over a fixed number of connections."""

    def __init__(
        self, host: str, port: int, connections: int, on_answer: Callable[[], object]
    ) -> None:
        """`on_answer` is called after each request that is done with, for the progress line."""
        self._queue: asyncio.Queue[Shot | None] = asyncio.Queue(QUEUE_LENGTH)
        self._connections = [Connection(host, port) for _ in range(connections)]
        self._on_answer = on_answer
        self.outcome = Outcome()

    async def run(self, shots: AsyncIterator[Shot]) -> Outcome:
        """Send everything and wait for the answers."""
        async with asyncio.TaskGroup() as group:
            for connection in self._connections:
                group.create_task(self._work(connection))
            await self._schedule(shots)
        return self.outcome

    async def _schedule(self, shots: AsyncIterator[Shot]) -> None:
        start = time.monotonic()
        async for shot in shots:
            late = time.monotonic() - start - shot.due
            if late < 0:
                await asyncio.sleep(-late)
            elif shot.due:
                self.outcome.latest = max(self.outcome.latest, late)
            await self._queue.put(shot)
        for _ in self._connections:
            await self._queue.put(None)

    async def _work(self, connection: Connection) -> None:
        while (shot := await self._queue.get()) is not None:
            await self._send(connection, shot)
            self._on_answer()
        connection.close()

    async def _send(self, connection: Connection, shot: Shot) -> None:
        try:
            await connection.open()
        except OSError:
            self.outcome.unsent += 1
            return
        ledger = self.outcome.ledger
        request = ledger.send({shot.banner: 1} if shot.is_click else {})
        try:
            status = await connection.ask(shot.method, f"/counter/{shot.banner}")
        except (OSError, EOFError, ValueError, IndexError) as error:
            ledger.lose(request)
            why = f"{type(error).__name__}: {error}"
            self.outcome.broken.append(f"{shot.method} banner {shot.banner}: {why}")
            connection.close()
            return
        self.outcome.statuses[shot.method, status] += 1
        if status == OK:
            ledger.answer(request)
        else:
            ledger.refuse(request, status)
