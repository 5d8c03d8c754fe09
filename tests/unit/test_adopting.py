"""Adopting the sources of dead workers, without NATS."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from clickmill import wire
from clickmill.stream import StreamOptions
from ingest.durable.source import Source
from ingest.metrics import Slot
from ingest.shipping import adoption
from ingest.shipping.adoption import Adoption
from ingest.shipping.limits import Limits
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.payload import MaxPayload
from ingest.shipping.shipper import Shipper
from tests.support.wait import aeventually

NOBODY = "nats://127.0.0.1:1"
LIMITS = Limits(
    flush_interval=60, spool_max_bytes=1 << 20, spool_keep_seconds=900, resend_after_seconds=30,
    stream=StreamOptions(1 << 20), node_name="test",
)  # fmt: skip


@pytest.fixture
def left(tmp_path: Path) -> Source:
    """One frame of 5 clicks in the spool, 7 clicks in an epoch; its process is dead."""
    source = Source.create(tmp_path, 100, 1 << 20)
    assert source.counters is not None
    source.counters.hit(1, 5)
    source.counters.flip()
    source.spool.append(source.frames(source.counters.frozen()))
    source.counters.clear()
    source.counters.hit(2, 7)
    source.release()
    return source


@contextlib.asynccontextmanager
async def adopting(root: Path) -> AsyncIterator[Shipper]:
    """The shipper of the only source, just adopted."""
    link = NatsLink(NOBODY, "test", MaxPayload(root / "max_payload"), LIMITS.stream)
    at_work = Adoption(root, link, LIMITS, Slot(root / "meters"))
    task = asyncio.create_task(at_work.run())
    try:
        await until(lambda: bool(at_work.shippers))
        await at_work.searched.wait()
        (shipper,) = at_work.shippers
        yield shipper
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(so: Callable[[], bool]) -> None:
    async def is_so() -> bool:
        return so()

    await aeventually(is_so)


def clicks(shipper: Shipper) -> list[int]:
    spool = shipper.source.spool
    return [wire.decode(spool.read(seq)).clicks for seq in shipper.outbox.held]


def test_adopted_frames_are_sent_with_unused_message_ids(tmp_path: Path, left: Source) -> None:
    """NATS may know the dead worker's ID `-r1` although it has lost that message."""

    async def run() -> None:
        async with adopting(tmp_path) as shipper:
            assert clicks(shipper) == [5, 7]
            assert shipper.outbox.resends > 0
            assert shipper.outbox.mark is None
            assert shipper.source.clicks_after(0) == 12
            assert shipper.source.clicks_after(1) == 7

    asyncio.run(run())


def test_spooled_frames_are_sent_while_the_disk_is_full(
    tmp_path: Path, left: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    real = Source.seal_rest

    def seal_rest(self: Source) -> None:
        if broken:
            raise OSError(28, "No space left on device")
        real(self)

    monkeypatch.setattr(Source, "seal_rest", seal_rest)
    monkeypatch.setattr(adoption, "ADOPT_EVERY_S", 0.01)

    async def run() -> None:
        nonlocal broken
        async with adopting(tmp_path) as shipper:
            assert clicks(shipper) == [5]
            assert shipper.source.counters is not None
            assert shipper.source.clicks_after(0) == 12
            broken = False
            await until(lambda: shipper.source.counters is None and len(shipper.outbox.held) == 2)
            assert clicks(shipper) == [5, 7]

    asyncio.run(run())
