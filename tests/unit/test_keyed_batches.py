"""Batches with a key on their way to the disk: written together, each once, refused whole."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import msgspec
import pytest

from clickmill import batches, messages, wire
from clickmill.contract.problem import Problem
from clickmill.settings import Settings
from ingest.metrics import Slot
from ingest.shipping import keyed_batches
from ingest.shipping.keyed_batches import KeyedBatches
from ingest.shipping.limits import Limits


class Link:
    """NATS as these batches see it; `known` is what an aggregator answers, if one does."""

    def __init__(self) -> None:
        self.known: dict[Any, Any] | None = None
        self.asked = 0
        self.most = 1000
        self.connection = SimpleNamespace(is_connected=True, request=self.request)

    async def request(self, subject: str, payload: bytes, timeout: float) -> Any:
        self.asked += 1
        if self.known is None:
            raise TimeoutError
        keys = msgspec.json.decode(payload, type=messages.KeysRequest).keys
        reply = messages.KeysReply([self.known.get(key) for key in keys])
        return SimpleNamespace(data=msgspec.json.encode(reply))

    def max_rows(self) -> int:
        return self.most

    async def ship(self, _: object) -> None:
        await asyncio.Event().wait()


def batch(key: str, count: int = 3) -> batches.KeyedBatch:
    return batches.make(batches.key_of(key), [1, 2], [count, 4], [None, 7], 9)


def run(root: Path, test: Callable[[KeyedBatches, Link], Awaitable[None]]) -> None:
    async def within() -> None:
        link = Link()
        keyed = KeyedBatches(root, link, Limits.of(Settings()), Slot(root / "meters"))  # type: ignore[arg-type]
        running = asyncio.create_task(keyed.run())
        try:
            await asyncio.wait_for(test(keyed, link), 20)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    asyncio.run(within())


def frames(keyed: KeyedBatches) -> list[wire.Frame]:
    (shipper,) = keyed.shippers
    spool = shipper.source.spool
    return [wire.decode(spool.read(seq)) for seq in spool.seqs()]


def test_batches_that_wait_are_written_with_one_sync_and_answered_after_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def test(keyed: KeyedBatches, link: Link) -> None:
        await keyed.count(batch("first"))
        (shipper,) = keyed.shippers
        syncs: list[int] = []

        def sync(fd: int) -> None:
            syncs.append(sum(task.done() for task in tasks))
            os.fdatasync(fd)

        shipper.source.spool.sync = sync
        tasks = [asyncio.create_task(keyed.count(batch(f"key {n}"))) for n in range(40)]
        await asyncio.gather(*tasks)
        assert syncs == [0], "one sync for all of them, before the first is answered"
        found = frames(keyed)
        assert [frame.seq for frame in found] == list(range(1, 42))
        assert [frame.total for frame in found] == [7 * n for n in range(1, 42)]
        assert {frame.batch and frame.batch.key for frame in found} == {
            batches.key_of(key) for key in ["first", *(f"key {n}" for n in range(40))]
        }
        assert shipper.outbox.held == list(range(1, 42))

    run(tmp_path, test)


def test_a_key_is_stored_once_and_another_body_is_refused(tmp_path: Path) -> None:
    async def test(keyed: KeyedBatches, link: Link) -> None:
        await asyncio.gather(*(keyed.count(batch("a")) for _ in range(5)))
        await keyed.count(batch("a"))
        with pytest.raises(Problem) as problem:
            await keyed.count(batch("a", 99))
        assert (problem.value.status, problem.value.code) == (422, "idempotency_key_reused")
        assert len(frames(keyed)) == 1

    run(tmp_path, test)


def test_what_an_aggregator_knows_is_not_stored_again(tmp_path: Path) -> None:
    async def test(keyed: KeyedBatches, link: Link) -> None:
        counted, other = batch("counted"), batch("other")
        link.known = {counted.key: counted.digest, other.key: uuid4()}
        await keyed.count(counted)
        assert not keyed.shippers, "nothing to store, no source"
        with pytest.raises(Problem) as problem:
            await keyed.count(other)
        assert problem.value.status == 422
        await keyed.count(batch("new"))
        assert len(frames(keyed)) == 1
        link.known, asked = None, link.asked
        for n in range(3):
            await keyed.count(batch(f"later {n}"))
        assert link.asked == asked + 1, "one that does not answer is left alone for a while"

    run(tmp_path, test)


def test_a_disk_that_fails_refuses_the_batch_and_leaves_its_key_free(tmp_path: Path) -> None:
    async def test(keyed: KeyedBatches, link: Link) -> None:
        await keyed.count(batch("first"))
        (shipper,) = keyed.shippers
        good = shipper.source.spool.sync

        def broken(fd: int) -> None:
            raise OSError(5, "Input/output error")

        shipper.source.spool.sync = broken
        with pytest.raises(Problem) as problem:
            await keyed.count(batch("second"))
        assert (problem.value.status, problem.value.code) == (503, "not_stored")
        shipper.source.spool.sync = good
        await keyed.count(batch("second", 5))
        assert [frame.clicks for frame in frames(keyed)] == [7, 9]
        await keyed.finish()
        assert shipper.source.is_sealed

    run(tmp_path, test)


def test_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed_batches, "MAX_WAITING", 3)
    monkeypatch.setattr(keyed_batches, "MAX_RECENT", 4)

    async def test(keyed: KeyedBatches, link: Link) -> None:
        link.most = 1
        with pytest.raises(Problem) as problem:
            await keyed.count(batch("large"))
        assert (problem.value.status, problem.value.code) == (413, "batch_too_large")
        link.most = 2
        outcomes = await asyncio.gather(
            *(keyed.count(batch(f"key {n}")) for n in range(5)), return_exceptions=True
        )
        refused = [one for one in outcomes if isinstance(one, Problem)]
        assert [(one.status, one.code) for one in refused] == [(429, "too_many_batches")] * 2
        for n in range(10):
            await keyed.count(batch(f"more {n}"))
        assert len(keyed._recent) <= 4
        await keyed.count(batch("more 0"))
        assert len(frames(keyed)) == 14, "a key beyond its memory: the aggregator decides"

    run(tmp_path, test)
