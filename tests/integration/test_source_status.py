"""What an aggregator knows of sources by their table, which it reads in rounds."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from datetime import datetime
from itertools import pairwise
from typing import Any
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry
from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from aggregator.postgres import migrations
from aggregator.writing.completeness import Progress
from aggregator.writing.consumer import Consumer
from aggregator.writing.metrics import Metrics
from aggregator.writing.source_status import ROUNDS_ALONE, SourceReports
from aggregator.writing.store import Store
from clickmill import messages, wire
from clickmill.stream import StreamOptions
from tests.support import sql
from tests.support.connections import connection
from tests.support.fix_nats import NatsServer
from tests.support.wait import aeventually

SEALED_AT = datetime.fromisoformat("2026-05-01T12:00:00Z")
Test = Callable[["Rounds"], Awaitable[None]]


class Rounds:
    """The reports of an aggregator that has all shards, and the session that reads for them."""

    def __init__(self, dsn: str, session: AsyncConnection[Any], reports: SourceReports) -> None:
        self.dsn, self.session, self.reports = dsn, session, reports

    def commit(self, source: UUID, seq: int, total: int, *, closed: bool = False) -> None:
        """As another aggregator does: the mark of a source of node n1, in the table."""
        with psycopg.connect(self.dsn) as other:
            other.execute(
                "INSERT INTO source (source, shard, last_seq, total, sealed_at, closed, node)"
                " VALUES (%s, 0, %s, %s, %s, %s, 'n1') ON CONFLICT (source) DO UPDATE"
                " SET last_seq = excluded.last_seq, total = excluded.total",
                [source, seq, total, SEALED_AT, closed],
            )

    async def read(self, *, first: bool = False, alone: bool = False) -> None:
        await self.reports.read(self.session, first, alone)


def run(nats: NatsServer, dsn: str, progress: Progress, test: Test) -> None:
    """The test, with all of it set up."""

    async def main() -> None:
        await migrations.apply_schema(dsn)
        store = Store(dsn)
        async with connection(nats.url) as bus, postgres.session(dsn, "leases") as session:
            metrics, options = Metrics(CollectorRegistry()), StreamOptions(1 << 20)
            consumer = Consumer(bus, store, progress, metrics, options, 1.0)
            consumer.shards.update(range(wire.SHARDS))
            reports = SourceReports(bus, progress, consumer, lambda: None)
            await reports.start()
            await test(Rounds(dsn, session, reports))
        await store.close()

    asyncio.run(asyncio.wait_for(main(), 60))


def marks(progress: Progress) -> dict[UUID, tuple[int, int]]:
    return {one.source: (one.mark.last_seq, one.mark.total) for one in progress.open_sources()}


def test_what_others_commit_is_read_in_each_round(
    nats: NatsServer, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    progress, source = Progress(), uuid4()

    async def test(rounds: Rounds) -> None:
        await rounds.read(first=True)
        assert marks(progress) == {}
        for seq in (1, 2, 3):
            rounds.commit(source, seq, 10 * seq)
            await rounds.read()
            assert marks(progress) == {source: (seq, 10 * seq)}
        (known,) = progress.open_sources()
        assert known.mark.sealed_at == int(SEALED_AT.timestamp()) * 10**9
        assert known.node == "n1"

    run(nats, database, progress, test)
    assert "several machines" not in caplog.text


def test_an_aggregator_that_is_alone_reads_at_first_and_then_seldom(
    nats: NatsServer, database: str
) -> None:
    """What is in the table is its own."""
    progress, source = Progress(), uuid4()

    async def test(rounds: Rounds) -> None:
        rounds.commit(source, 1, 10)
        await rounds.read(first=True, alone=True)
        assert marks(progress) == {source: (1, 10)}
        seen = []
        for n in range(1, 3 * ROUNDS_ALONE + 1):
            rounds.commit(source, 1 + n, 10)
            await rounds.read(alone=True)
            seen.append(marks(progress)[source][0] == 1 + n)
        reads = [n for n, read in enumerate(seen) if read]
        assert len(reads) == 3
        assert {b - a for a, b in pairwise(reads)} == {ROUNDS_ALONE}

    run(nats, database, progress, test)


@pytest.mark.parametrize("new_session", [True, False])
def test_a_mark_that_went_back_is_believed_in_a_new_session_alone(
    nats: NatsServer, database: str, new_session: bool
) -> None:
    """Postgres may have lost commits; otherwise a commit of its own has overtaken the reading."""
    progress, source = Progress(), uuid4()

    async def test(rounds: Rounds) -> None:
        rounds.commit(source, 5, 50)
        await rounds.read(first=True)
        rounds.commit(source, 3, 30)
        await rounds.read(first=new_session)
        assert marks(progress) == {source: (3, 30) if new_session else (5, 50)}

    run(nats, database, progress, test)


def test_a_source_that_was_heard_of_is_looked_up(nats: NatsServer, database: str) -> None:
    """An aggregator that is alone does not wait for the round in which it reads all of them."""
    progress, source = Progress(), uuid4()

    async def test(rounds: Rounds) -> None:
        await rounds.read(first=True, alone=True)
        rounds.commit(source, 5, 50)
        progress.heard(messages.SourceStatus(source, 5, 0, False))
        assert progress.to_look_up() == [source]
        await rounds.read(alone=True)
        (known,) = progress.open_sources()
        assert (known.mark.last_seq, known.mark.total) == (5, 50)
        assert abs(known.heard - time.time_ns()) < 60 * 10**9

    run(nats, database, progress, test)


def test_a_closed_source_that_asks_gets_its_mark(nats: NatsServer, database: str) -> None:
    """It is not in memory: the answer comes with the next round."""
    progress, closed, unknown = Progress(), uuid4(), uuid4()

    async def test(rounds: Rounds) -> None:
        rounds.commit(closed, 7, 70, closed=True)
        await rounds.read(first=True)
        client = await asking(nats)
        answers = {source: asyncio.create_task(ask(client, source)) for source in (closed, unknown)}

        async def all_asked() -> bool:
            return len(rounds.reports._lookups) == len(answers)

        await aeventually(all_asked, 10, "both have asked")
        await rounds.read()
        assert await answers[closed] == messages.Committed(7, 70, closed=True)
        assert await answers[unknown] == messages.Committed(0, 0)
        await client.close()

    run(nats, database, progress, test)
    assert sql.query(database, "SELECT count(*) FROM source") == [(1,)]


async def asking(nats: NatsServer) -> Client:
    client = Client()
    await client.connect(nats.url)
    return client


async def ask(client: Client, source: UUID) -> messages.Committed:
    status = messages.SourceStatus(source, 7, 0, True)
    reply: Msg = await client.request(wire.COMMITTED_SUBJECT, msgspec.json.encode(status), 10)
    return msgspec.json.decode(reply.data, type=messages.Committed)
