"""A NATS server that ends connections and refuses what it took before: workers and aggregators
wait for its change of mind, say what it said, and are exact afterwards."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from clickmill import wire
from tests.support import sql
from tests.support.aggregators import Bus, aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_system import doctor
from tests.support.fix_worker import Worker
from tests.support.raw import ask
from tests.support.refusing import Refusing
from tests.support.wait import aeventually, eventually

BACK_WITHIN_S = 10


@pytest.fixture
def refusing(nats: NatsServer) -> Refusing:
    return Refusing(nats)


def not_ready(worker: Worker) -> str:
    """What /readyz complains of; nothing while it does not."""
    answer = ask(worker.port, "GET", "/readyz")
    return "" if answer.status == 200 else answer.body.decode()


def test_a_worker_that_is_refused_says_why_and_comes_back(
    refusing: Refusing, tmp_path: Path
) -> None:
    worker = Worker(refusing, tmp_path, {"CLICKMILL_NATS_URL": refusing.nats.url})
    try:
        worker.start()
        assert ask(worker.port, "POST", "/counter/7").status == 200
        eventually(lambda: worker.tap.clicks[7] == 1, 10)
        refusing.refuse()
        eventually(lambda: "authorization" in not_ready(worker).lower(), 10)
        assert "authorization" in worker.text.lower()
        found = doctor(worker.data_dir, refusing.nats.url)
        assert "failed  NATS: can't be reached (Authorization Violation)" in found
        for _ in range(5):
            assert ask(worker.port, "POST", "/counter/7").status == 200
        refusing.take_again()
        eventually(lambda: not not_ready(worker), BACK_WITHIN_S, "it is ready again")
        assert worker.clicks()[7] == 6
    finally:
        worker.close()


def test_an_aggregator_that_is_refused_says_why_and_comes_back(
    refusing: Refusing, database: str
) -> None:
    async def story() -> None:
        async with Bus(refusing.url) as bus:
            a = bus.worker()
            await a.send({1: 1})
            await a.committed()
            await asyncio.to_thread(refusing.refuse)

            async def says(word: str) -> bool:
                reason = await asyncio.to_thread(running.not_ready)
                return word in (reason or "").lower() if word else reason is None

            await aeventually(lambda: says("authorization"), 10)
            await a.send({1: 1})
            await asyncio.to_thread(refusing.take_again)
            await aeventually(lambda: says(""), BACK_WITHIN_S, "it is ready again")
            await a.send({1: 1})
            await a.committed()
            await bus.drained()

    with aggregator(refusing.nats.url, database) as running:
        asyncio.run(story())
        assert "authorization" in running.output.lower()
        assert running.process.poll() is None, "by itself, not by a new process"
    assert sql.counts(database) == {1: 3}


def test_a_worker_that_may_not_publish_says_so(refusing: Refusing, tmp_path: Path) -> None:
    everything = f"{wire.DELTAS_PREFIX}.>"
    worker = Worker(refusing, tmp_path, {"CLICKMILL_NATS_URL": refusing.nats.url})
    try:
        worker.start()
        refusing.forbid(everything)
        assert ask(worker.port, "POST", "/counter/7").status == 200
        eventually(lambda: "may not publish" in not_ready(worker), 15)
        refusing.allow_again(everything)
        eventually(lambda: not not_ready(worker), BACK_WITHIN_S, "it is ready again")
        assert worker.clicks()[7] == 1
    finally:
        worker.close()
