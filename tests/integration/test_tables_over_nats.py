"""Tables on the ingest port: they come over NATS page by page, whatever its messages may hold."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import nats as nats_py
import pytest

from clickmill import messages, wire
from tests.support.aggregators import Aggregator, aggregator
from tests.support.fix_api import put_minutes
from tests.support.fix_nats import NatsServer
from tests.support.fix_worker import Worker
from tests.support.raw import Answer, ask

SMALL = 65_536
FIRST = int(datetime(2024, 12, 1, tzinfo=UTC).timestamp())
MINUTES = 20_000
RANGE = f"tsFrom={FIRST}&tsTo={FIRST + 60 * MINUTES}"


@pytest.fixture
def small(nats: NatsServer) -> NatsServer:
    """A server whose messages hold 64 KiB, without users."""
    nats.stop()
    lines = nats.config.read_text().splitlines(keepends=True)
    text = "".join(line for line in lines if not line.startswith("authorization"))
    nats.config.write_text(f"max_payload: {SMALL}\n{text}")
    nats.start()
    return nats


class Both:
    """An aggregator, and a worker that reaches it over NATS alone."""

    def __init__(self, worker: Worker, aggregator: Aggregator, nats_url: str) -> None:
        self.worker, self.aggregator, self.nats_url = worker, aggregator, nats_url

    def ask(self, query: str) -> tuple[Answer, Answer]:
        """The answers of the ingest port and of the statistics port."""
        path = f"/stats/17?{query}"
        here, there = (ask(port, "GET", path) for port in (self.worker.port, self.aggregator.port))
        return here, there


@pytest.fixture
def both(small: NatsServer, database: str, tmp_path: Path) -> Iterator[Both]:
    url = f"nats://127.0.0.1:{small.port}"
    worker = Worker(small, tmp_path, {"CLICKMILL_NATS_URL": url})
    try:
        with aggregator(url, database) as running:
            put_minutes(database, {(17, FIRST + 60 * n): 1 + n % 7 for n in range(MINUTES)})
            worker.start()
            yield Both(worker, running, url)
    finally:
        worker.close()


def test_a_table_larger_than_a_message_is_whole(both: Both) -> None:
    for form in ("csv", "ndjson"):
        here, there = both.ask(f"{RANGE}&format={form}")
        assert here.status == there.status == 200
        assert here.body == there.body
        assert len(here.body) > 8 * SMALL
        for name in ("content-type", "content-disposition"):
            assert here.get(name) == there.get(name)
    last = json.loads(here.body.splitlines()[-1])
    assert (last["complete"], last["rows"]) == (True, MINUTES)


def test_json_larger_than_a_message_is_an_error_that_says_where_to_ask(both: Both) -> None:
    here, there = both.ask(f"{RANGE}&step=5m")
    assert there.status == 200
    assert len(there.body) > SMALL
    assert (here.status, here.json["code"]) == (400, "answer_too_large")
    assert "8081" in here.json["error"]
    assert both.ask(f"{RANGE}&step=1d")[0].status == 200


async def replies(url: str, request: messages.StatsRequest) -> tuple[dict[str, str], bytes]:
    client = await nats_py.connect(url)
    try:
        reply = await client.request(wire.STATS_SUBJECT, msgspec.json.encode(request), timeout=10)
        return dict(reply.headers or {}), reply.data
    finally:
        await client.close()


def test_a_worker_that_knows_no_pages_gets_all_or_an_error(both: Both) -> None:
    """A worker of a release before, beside an aggregator of this one."""
    whole = messages.StatsRequest(17, f"{RANGE}&step=1h&format=csv")
    headers, text = asyncio.run(replies(both.nats_url, whole))
    assert headers[wire.STATUS_HEADER] == "200"
    assert text.splitlines()[-1].startswith(b"# complete")
    large = messages.StatsRequest(17, f"{RANGE}&format=csv")
    headers, text = asyncio.run(replies(both.nats_url, large))
    assert headers[wire.STATUS_HEADER] == "400"
    assert b"answer_too_large" in text
