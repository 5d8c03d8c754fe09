"""What a worker does with the sources of dead ones, as far as it goes without NATS."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from clickmill import wire
from ingest.durable.source import Source
from ingest.http.redirects import Targets
from ingest.metrics import Slot
from ingest.shipping import publisher
from ingest.shipping.publisher import Limits, Publisher
from ingest.shipping.shipper import Delivery
from tests.support.wait import aeventually

NOBODY = "nats://127.0.0.1:1"
LIMITS = Limits(
    flush_interval=60, spool_max_bytes=1 << 20, spool_keep_seconds=900, resend_after_seconds=30,
    nats_max_bytes=1 << 20, max_pending_stats=1,
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


async def adopting(root: Path) -> tuple[Publisher, Delivery]:
    """A worker that has just adopted the one source there is."""
    own = Source.create(root, 100, 1 << 20)
    worker = Publisher(NOBODY, own, root, LIMITS, Slot(root / "meters"),
                       Targets(root / "targets.json", []))  # fmt: skip
    worker.start()
    await until(lambda: bool(worker._adopted))
    (delivery,) = worker._adopted.values()
    return worker, delivery


async def until(so: Callable[[], bool]) -> None:
    async def is_so() -> bool:
        return so()

    await aeventually(is_so)


def clicks(delivery: Delivery) -> list[int]:
    spool = delivery.source.spool
    return [wire.decode(spool.read(seq)).clicks for seq in delivery.outbox.held]


def test_all_of_it_is_held_and_goes_out_under_names_of_its_own(
    tmp_path: Path, left: Source
) -> None:
    """The dead worker's `-r1` may be known to NATS, and what it named may be lost."""

    async def run() -> None:
        worker, delivery = await adopting(tmp_path)
        assert clicks(delivery) == [5, 7]
        assert delivery.outbox.resends > 0
        assert delivery.outbox.mark is None
        await worker.stop(0.1)

    asyncio.run(run())


def test_what_the_spool_has_goes_out_while_the_rest_waits_for_the_disk(
    tmp_path: Path, left: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = True
    real = Source.seal_rest

    def seal_rest(self: Source) -> None:
        if broken:
            raise OSError(28, "No space left on device")
        real(self)

    monkeypatch.setattr(Source, "seal_rest", seal_rest)
    monkeypatch.setattr(publisher, "ADOPT_EVERY_S", 0.01)

    async def run() -> None:
        nonlocal broken
        worker, delivery = await adopting(tmp_path)
        assert clicks(delivery) == [5]
        assert delivery.source.counters is not None
        broken = False
        await until(lambda: delivery.source.counters is None and len(delivery.outbox.held) == 2)
        assert clicks(delivery) == [5, 7]
        await worker.stop(0.1)

    asyncio.run(run())
