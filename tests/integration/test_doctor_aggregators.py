"""`clickmill doctor` asks the aggregators over NATS what their releases are, and what is wrong."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from uuid import uuid4

import msgspec

from clickmill import messages, wire
from tests.support.aggregators import Bus, aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_system import doctor
from tests.support.frames import of_another_version
from tests.support.wait import eventually


def checked(data_dir: Path, nats: NatsServer) -> str:
    """The line about aggregators."""
    lines = doctor(data_dir, nats.url).splitlines()
    return next(line for line in lines if "aggregators:" in line)


def test_no_aggregator_is_no_error(nats: NatsServer, tmp_path: Path) -> None:
    assert checked(tmp_path, nats).startswith("ok      aggregators: none answers: start one")


def test_sources_that_wait_for_a_newer_aggregator(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    async def send_newer() -> None:
        async with Bus(nats.url) as bus:
            worker = bus.worker()
            seq = worker.seal({1: 1})
            await worker.publish(seq, raw=of_another_version(worker.spool[seq]))

    with aggregator(nats.url, database) as running:
        assert "has release" in checked(tmp_path, nats)
        asyncio.run(send_newer())
        eventually(lambda: "upgrade this aggregator" in running.output, 20, "it logs it")
        found = checked(tmp_path, nats)
        assert found.startswith("failed  aggregators: 1 sources send frames that the aggregator on")
        assert "does not understand, and wait: upgrade this aggregator." in found


def test_two_machines_with_one_name(nats: NatsServer, database: str, tmp_path: Path) -> None:
    async def heartbeats() -> None:
        async with Bus(nats.url) as bus:
            sources = {machine: uuid4() for machine in "ab"}
            for machine in "abab":
                status = messages.SourceStatus(
                    sources[machine], 0, time.time_ns(), node="twin", machine=machine
                )
                await bus.client.publish(wire.COMMITTED_SUBJECT, msgspec.json.encode(status))
            await bus.client.flush()

    with aggregator(nats.url, database) as running:
        asyncio.run(heartbeats())
        found = checked(tmp_path, nats)
        assert found == (
            "failed  aggregators: several machines have the node name twin: "
            "give each its own CLICKMILL_NODE."
        )
        eventually(lambda: "several machines have the node name twin" in running.output, 10)
