"""When the consumer commits: after the interval, or at once where somebody waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry

from aggregator.writing.completeness import Progress
from aggregator.writing.consumer import Consumer
from aggregator.writing.fold import Arrival, Mark, Verdict
from aggregator.writing.metrics import Metrics
from aggregator.writing.store import Applied
from clickmill import wire
from clickmill.stream import StreamOptions
from tests.support.fakes import FakeSource
from tests.support.wait import aeventually

LONGEST_S = 10.0


class Silence:
    """A connection over which nothing comes, and nothing is heard."""

    def new_inbox(self) -> str:
        return "_INBOX.test"

    async def publish(self, *_: object) -> None:
        pass


class SlowStore:
    """A store whose every commit takes so long, and writes so many rows."""

    def __init__(self, seconds: float, rows: int) -> None:
        self._seconds, self._rows = seconds, rows
        self.began: list[float] = []
        self.frames: list[int] = []

    async def apply(self, arrivals: Sequence[Arrival]) -> Applied:
        self.began.append(time.monotonic())
        self.frames.append(len(arrivals))
        await asyncio.sleep(self._seconds)
        applied = Applied(arrivals)
        applied.verdicts = [Verdict.APPLIED] * len(arrivals)
        applied.marks = {a.source: Mark(a.seq or 0) for a in arrivals if a.source}
        applied.rows = self._rows
        return applied


class Running:
    """A consumer at work, and a source whose frames reach it."""

    def __init__(self, store: SlowStore) -> None:
        self.store = store
        connection: Any = Silence()
        any_store: Any = store
        self.consumer = Consumer(
            connection,
            any_store,
            Progress(),
            Metrics(CollectorRegistry()),
            StreamOptions(),
            LONGEST_S,
        )
        self._source = FakeSource()

    def deliver(self, closed: bool = False) -> None:
        frame = self._source.frame({1: 1}, closed=closed)
        subject = wire.delta_subject(frame.source)
        message = Msg(None, subject, "", wire.encode(frame))  # type: ignore[arg-type]
        self.consumer._receive(message, wire.shard_of(frame.source))

    async def commits(self, number: int) -> None:
        async def so_many() -> bool:
            return len(self.store.began) >= number

        await aeventually(so_many, 20, f"{number} commits have begun")


def on(store: SlowStore, test: Callable[[Running], Awaitable[None]]) -> None:
    async def run() -> None:
        running = Running(store)
        task = asyncio.create_task(running.consumer.run())
        try:
            await test(running)
        finally:
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task

    asyncio.run(run())


def test_frames_of_many_rows_gather_until_the_next_commit_is_due() -> None:
    async def test(running: Running) -> None:
        running.deliver()
        await running.commits(1)
        for _ in range(5):
            running.deliver()
        await running.commits(2)
        began = running.store.began
        assert running.store.frames == [1, 5]
        assert began[1] - began[0] >= 0.5, "ten times as long as the commit took"

    on(SlowStore(0.05, 100_000), test)


def test_a_source_that_is_closed_does_not_wait() -> None:
    async def test(running: Running) -> None:
        running.deliver()
        await running.commits(1)
        running.deliver(closed=True)
        await running.commits(2)
        assert running.store.began[1] - running.store.began[0] < 3.5, "the next was due after 4 s"

    on(SlowStore(1.0, 100_000), test)


def test_a_stop_does_not_wait() -> None:
    async def test(running: Running) -> None:
        running.deliver()
        await running.commits(1)
        running.deliver()
        await running.consumer.stop()
        assert running.store.frames == [1, 1]
        assert time.monotonic() - running.store.began[0] < 3.8, "the next was due after 4 s"

    on(SlowStore(1.0, 100_000), test)


def test_more_frames_than_a_batch_holds_do_not_wait() -> None:
    async def test(running: Running) -> None:
        running.deliver()
        await running.commits(1)
        for _ in range(1_100):  # of one shard, of which no more would be asked for
            running.deliver()
        await running.commits(2)
        assert running.store.began[1] - running.store.began[0] < 3.5, "the next was due after 4 s"

    on(SlowStore(1.0, 100_000), test)
