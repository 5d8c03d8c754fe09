"""Several aggregators at once, and aggregators that die: exact, fair, and quick to take over."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from signal import SIGCONT, SIGKILL, SIGSTOP
from typing import Any

from clickmill import wire
from tests.support import sql
from tests.support.aggregators import (
    HOLDING,
    Aggregator,
    Bus,
    FakeWorker,
    aggregator,
    store_held_up,
)
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.proxy import running_proxy
from tests.support.wait import aeventually, eventually


async def load(workers: list[FakeWorker], until: Callable[[], bool]) -> None:
    """Frames from all workers, ten a second each, while the test does its worst."""
    for n in itertools.count():
        if until():
            return
        for worker in workers:
            seq = worker.seal({n % 7: 1, 50: 2})
            try:
                await worker.publish(seq)
            except Exception:  # the stream may be away: what is not sent is sent again later
                continue
        await asyncio.sleep(0.1)


def expected(workers: list[FakeWorker]) -> dict[int, int]:
    sums: dict[int, int] = {}
    for worker in workers:
        for banner, n in worker.counts.items():
            sums[banner] = sums.get(banner, 0) + n
    return sums


def assert_exact(dsn: str, workers: list[FakeWorker]) -> None:
    assert sql.counts(dsn) == expected(workers)
    assert not sql.quarantine(dsn)
    sql.assert_rollups_equal_minutes(dsn)


def together(
    nats: NatsServer, dsn: str, members: list[Aggregator],
    misdeed: Callable[[list[Aggregator]], Coroutine[Any, Any, None]],
) -> None:  # fmt: skip
    """Loads the bus while `misdeed` runs, delivers the rest, and compares every figure."""

    async def run() -> None:
        async with Bus(nats.url) as bus:
            workers = [bus.worker() for _ in range(24)]
            doing = asyncio.create_task(misdeed(members))
            await asyncio.wait_for(load(workers, doing.done), 60)
            await doing
            await asyncio.wait_for(asyncio.gather(*(w.deliver(40) for w in workers)), 60)
            assert_exact(dsn, workers)

    try:
        asyncio.run(run())
    except BaseException as error:
        for member in members:
            error.add_note(member.output[-2500:])
        raise


def test_three_share_the_shards_and_stay_exact(nats: NatsServer, database: str) -> None:
    with ExitStack() as stack:
        members = [stack.enter_context(aggregator(nats.url, database)) for _ in range(3)]

        async def wait_for_shares(members: list[Aggregator]) -> None:
            async def fair() -> bool:
                shares = await asyncio.to_thread(lambda: [m.shards for m in members])
                return sorted(shares) == [5, 5, 6]

            await aeventually(fair, 10, "5, 5 and 6 shards")
            await asyncio.sleep(1)

        together(nats, database, members, wait_for_shares)
        assert sum(m.metric("clickmill_frames_applied_total") for m in members) > 0
        assert all(m.metric("clickmill_commit_retries_total") == 0 for m in members), "a deadlock"


def test_killed_in_turn_the_others_take_over_within_seconds(
    nats: NatsServer, database: str
) -> None:
    with ExitStack() as stack:
        members = [stack.enter_context(aggregator(nats.url, database)) for _ in range(2)]

        async def kill_in_turn(members: list[Aggregator]) -> None:
            for _ in range(3):
                members[0].signal(SIGKILL)
                began = time.monotonic()
                heir = members[1]

                async def took_over(heir: Aggregator = heir) -> bool:
                    return await asyncio.to_thread(lambda: heir.shards) == wire.SHARDS

                await aeventually(took_over, 10)
                assert time.monotonic() - began < 3
                del members[0]
                members.append(stack.enter_context(aggregator(nats.url, database, wait=False)))
                await asyncio.to_thread(members[-1].wait_ready)

        together(nats, database, members, kill_in_turn)


def test_one_that_hangs_loses_its_shards(nats: NatsServer, database: str) -> None:
    with ExitStack() as stack:
        members = [stack.enter_context(aggregator(nats.url, database)) for _ in range(2)]

        async def hang(members: list[Aggregator]) -> None:
            async def shared() -> bool:
                return await asyncio.to_thread(lambda: members[1].shards) == wire.SHARDS // 2

            async def all_of_it() -> bool:
                return await asyncio.to_thread(lambda: members[1].shards) == wire.SHARDS

            await aeventually(shared, 10)
            members[0].signal(SIGSTOP)
            await aeventually(all_of_it, 12)
            members[0].signal(SIGCONT)
            await aeventually(shared, 10)

        together(nats, database, members, hang)


def test_frames_that_turn_late_after_their_shard_was_revoked_are_dropped(
    nats: NatsServer, database: str
) -> None:
    """They are behind a gap when their batch is done, and by then another one has the shard."""

    async def run(one: Aggregator, stack: ExitStack) -> None:
        async with Bus(nats.url) as bus:
            workers: dict[int, FakeWorker] = {}
            while len(workers) < wire.SHARDS:
                worker = bus.worker()
                workers.setdefault(wire.shard_of(worker.id), worker)
            async with store_held_up(database, bus.worker()):
                for worker in workers.values():
                    worker.seal({1: 1})
                    await worker.send({1: 1})
                await one.buffers(wire.SHARDS)
                another = stack.enter_context(aggregator(nats.url, database))
                eventually(lambda: (one.shards, another.shards) == (8, 8), 10)
            await one.buffers(8)
            assert one.metric("clickmill_sources_waiting") == 8
            for worker in workers.values():
                await worker.publish(1)
                await worker.committed()
            await one.buffers(0)
            assert one.metric("clickmill_sources_waiting") == 0
        assert sql.counts(database) == {1: 2 * wire.SHARDS, HOLDING: 1}

    with ExitStack() as stack:
        asyncio.run(run(stack.enter_context(aggregator(nats.url, database)), stack))


def test_one_that_loses_nats_leaves_its_shards_to_the_other(
    nats: NatsServer, database: str
) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(nats.port, is_postgres=False))
        cut_off = nats.url.replace(f":{nats.port}", f":{proxy.port}")
        members = [
            stack.enter_context(aggregator(cut_off, database)),
            stack.enter_context(aggregator(nats.url, database)),
        ]

        async def cut(members: list[Aggregator]) -> None:
            proxy.refuse = True
            proxy.cut_all()

            async def other_has(shards: int) -> bool:
                return await asyncio.to_thread(lambda: members[1].shards) == shards

            await aeventually(lambda: other_has(wire.SHARDS), 12)
            proxy.refuse = False
            await aeventually(lambda: other_has(wire.SHARDS // 2), 10)

        together(nats, database, members, cut)


def test_it_survives_repeated_cuts_of_its_nats_connection(nats: NatsServer, database: str) -> None:
    with ExitStack() as stack:
        proxy = stack.enter_context(running_proxy(nats.port, is_postgres=False))
        cut_off = nats.url.replace(f":{nats.port}", f":{proxy.port}")
        running = stack.enter_context(aggregator(cut_off, database))

        async def cut(members: list[Aggregator]) -> None:
            for n in range(25):
                proxy.cut_all()
                await asyncio.sleep(0.1 + n % 7 / 100)  # the faults themselves

        together(nats, database, [running], cut)
        assert running.process.poll() is None, "by itself, not by a new process"


def test_the_connection_cut_at_every_third_commit(
    nats: NatsServer, database: str, postgres_server: PostgresServer
) -> None:
    with running_proxy(postgres_server.port) as proxy:
        dsn = database.replace(f":{postgres_server.port}/", f":{proxy.port}/")
        with aggregator(nats.url, dsn) as running:

            async def cut(_: list[Aggregator]) -> None:
                proxy.every = 3
                await asyncio.to_thread(eventually, lambda: sum(proxy.cuts.values()) >= 20, 40)
                proxy.every = 0

            together(nats, database, [running], cut)
            assert min(proxy.cuts.values()) >= 8
            # Nearly all cuts hit the writer, whose every transaction is then repeated.
            assert running.metric("clickmill_commit_retries_total") >= 15
            assert running.metric("clickmill_frames_duplicate_total") >= 1
