"""Idempotency-Key on `POST /clicks`: once over workers, machines and restarts; own times."""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from signal import SIGHUP
from typing import Any

import msgspec
import pytest

from tests.integration.test_drain import drain, open_sources, worker
from tests.support import sql
from tests.support.aggregators import aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_system import System, SystemFactory
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import Answer, ask
from tests.support.wait import eventually

BATCH = [{"bannerID": 17, "count": 3}, {"bannerID": 18}]
ASKED = "SELECT count(*)::int FROM source WHERE total > uncounted"


def send(
    port: int, key: str, items: Any = BATCH, kind: str = "application/json", **more: str
) -> Answer:
    encode = msgspec.msgpack.encode if kind.endswith("msgpack") else msgspec.json.encode
    headers = [("Content-Type", kind), ("Idempotency-Key", key), *more.items()]
    return ask(port, "POST", "/clicks", encode(items), headers)


def counted(clicks: int) -> dict[str, object]:
    return {"status": "counted", "clicks": clicks}


@pytest.fixture
def running(system: SystemFactory) -> System:
    return system(workers=2)


def test_a_batch_counts_once_whichever_worker_gets_it(running: System) -> None:
    """Each connection goes to one of two workers; then both are replaced."""
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda n: send(running.port, f"key {n % 5}"), range(60)))
    assert {answer.status for answer in answers} == {400}, "a space needs quotes"
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda n: send(running.port, f"key-{n % 5}"), range(60)))
    assert [answer.json for answer in answers] == [counted(4)] * 60
    running.wait_counts(17, 15)
    dsn = running.address("postgres")
    before = running.children()
    running.signal(SIGHUP)  # workers whose memory is empty
    eventually(lambda: "workers replaced" in running.output, 60, "the workers are replaced")
    assert not set(before.values()) & {running.children()[f"ingest-{n}"] for n in (1, 2)}
    for n in range(5):
        assert send(running.port, f'"key-{n}"').json == counted(4)
    other = send(running.port, "key-1", [{"bannerID": 17}])
    assert (other.status, other.json["code"]) == (422, "idempotency_key_reused")
    assert send(running.port, "key-9").status == 200
    running.wait_counts(17, 18)
    running.wait_counts(18, 6)
    assert not sql.quarantine(dsn)
    _complete_through_goes_on(running)


def _complete_through_goes_on(running: System) -> None:
    now = datetime.now(UTC)

    def complete() -> bool:
        body = json.loads(ask(running.stats_port, "GET", "/stats/17").body)
        return bool(body["completeThrough"]) and body["completeThrough"] > now.isoformat()

    eventually(complete, 20, "completeThrough goes on with a source of batches open")


def test_clicks_are_in_the_minutes_of_their_own_times(running: System) -> None:
    now = datetime.now(UTC).replace(second=30, microsecond=0)
    times = [
        now - timedelta(days=31, hours=23),
        now - timedelta(days=3),
        now + timedelta(minutes=4),
    ]
    items = [{"bannerID": 17, "count": n, "ts": at.isoformat()} for n, at in enumerate(times, 1)]
    items.append({"bannerID": 17, "count": 4, "ts": int(times[1].timestamp()) + 60})
    assert send(running.port, "a", items).json == counted(10)
    assert send(running.port, "b", items, "application/msgpack").json == counted(10)
    late = [{"bannerID": 17, "ts": (now - timedelta(days=33)).isoformat()}]
    refused = send(running.port, "c", late)
    assert (refused.status, refused.json["code"]) == (400, "invalid_ts")
    dsn = running.address("postgres")
    eventually(lambda: sql.counts(dsn) == {17: 20}, 30, "both batches are counted")
    found = dict(
        sql.query(
            dsn,
            "SELECT date_trunc('minute', minute), sum(clicks)::int FROM banner_minute GROUP BY 1",
        )
    )
    minute = timedelta(minutes=1)
    assert found == {
        at.replace(second=0): clicks
        for at, clicks in zip([*times, times[1] + minute], (2, 4, 6, 8), strict=True)
    }
    sql.assert_rollups_equal_minutes(dsn)


def test_two_machines_and_the_disk_of_one_that_was_lost(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    """The first machine answers while NATS is away, and is drained after the second has counted."""
    lost = tmp_path / "lost"
    with worker(nats, lost, drain_timeout="0.5") as first:
        nats.stop()
        for n in range(20):
            assert send(first.port, f"key-{n}").json == counted(4)
        assert send(first.port, "key-3", [{"bannerID": 1}]).status == 422
        assert first.stop() == 3, first.text
    nats.start()
    with aggregator(nats.url, database):
        with worker(nats, tmp_path / "second") as second:
            for n in range(10, 25):
                assert send(second.port, f"key-{n}").json == counted(4)
            # Not known here: it is taken, and never counted beside the first.
            reused = send(second.port, "key-0", [{"bannerID": 99, "count": 1000}])
            assert reused.status in (200, 422)
            assert second.stop() == 0, second.text
        code, output = drain(lost, nats.url)
        assert code == 0, output
        known = 1000 if reused.status == 200 else 0
        assert sql.counts(database) == ({17: 72, 18: 24, 99: known} if known else {17: 75, 18: 25})
        assert open_sources(database) == 0
    assert sql.query(database, "SELECT sum(total - uncounted)::int FROM source") == [
        (sum(sql.counts(database).values()),)
    ]


def test_what_a_batch_with_a_key_refuses(workers: Workers) -> None:
    running = workers(MAX_BACKDATE_DAYS="2", MAX_BANNER_ID="99999")
    yesterday = int(time.time()) - 86_400
    with counts(running, {5: 2}):
        for key in ("", "x" * 65, "ä", '"'):
            assert send(running.port, key).json["code"] == "invalid_idempotency_key", key
        double = ask(
            running.port, "POST", "/clicks", b"[]",
            [("Idempotency-Key", "a"), ("Idempotency-Key", "b")],
        )  # fmt: skip
        assert double.json["code"] == "invalid_idempotency_key"
        assert send(running.port, "a", [{"bannerID": 100_000}]).json["code"] == "unknown_banner"
        assert (
            send(running.port, "a", [{"bannerID": 5, "ts": "now"}]).json["code"] == "invalid_batch"
        )
        assert send(running.port, "a", [{"bannerID": 5, "ts": yesterday - 86_500}]).status == 400
        # A refused batch has not used its key.
        assert send(running.port, "a", [{"bannerID": 5, "count": 2, "ts": yesterday}]).status == 200
        assert send(running.port, "empty", []).json == counted(0)
    options = ask(running.port, "OPTIONS", "/clicks")
    assert "idempotency-key" in (options.get("access-control-allow-headers") or "")


def test_a_batch_that_cannot_be_stored_is_not_counted_and_may_be_sent_again(
    workers: Workers,
) -> None:
    """The disk fails at every append but the first."""
    running: Worker = workers(FAILPOINTS="ingest.append=error@2+", FLUSH_INTERVAL="60")
    assert send(running.port, "first").json == counted(4)
    for _ in range(3):
        refused = send(running.port, "second")
        assert (refused.status, refused.json["code"]) == (503, "not_stored")
        assert refused.get("retry-after")
    assert send(running.port, "first").json == counted(4), "a key that is stored needs no disk"
