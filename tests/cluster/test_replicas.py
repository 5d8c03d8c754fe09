"""How many replicas the stream has, where they are, and what stays as an operator has made it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from nats.errors import Error as NatsError
from nats.errors import TimeoutError as NatsTimeoutError
from nats.js import JetStreamContext
from nats.js.api import StreamInfo
from nats.js.errors import NotFoundError

from clickmill import bus, wire
from clickmill.stream import ReplicasError, StreamOptions, ensure_stream
from tests.cluster import network
from tests.cluster.nats import NatsCluster
from tests.cluster.network import Network
from tests.support.wait import aeventually

BYTES = 16 << 20
API_S = 30.0
ASK_AGAIN_S = 3.0


class Patient(JetStreamContext):
    """Asks again: while a cluster elects the leader of its API, a request gets no answer at all."""

    async def _api_request(self, *args: Any, **options: Any) -> Any:
        options["timeout"] = ASK_AGAIN_S
        for _ in range(int(API_S / ASK_AGAIN_S)):
            with contextlib.suppress(NatsTimeoutError):
                return await super()._api_request(*args, **options)
        raise NatsTimeoutError


@pytest.fixture(scope="module")
def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    if reason := network.unavailable():
        pytest.skip(reason)
    with Network() as net:
        machines = [net.machine(f"nats-{n}") for n in (1, 2, 3)]
        running = NatsCluster(machines, tmp_path_factory.mktemp("nats"))
        try:
            running.start()
            yield running
        finally:
            running.stop()


def with_jetstream(
    nats_cluster: NatsCluster, story: Callable[[JetStreamContext], Awaitable[None]]
) -> None:
    """Run it; the stream is deleted afterwards."""

    async def run() -> None:
        client = await asyncio.wait_for(bus.connect(nats_cluster.url, "test"), API_S)
        jetstream = Patient(client)
        try:
            await story(jetstream)
        finally:
            with contextlib.suppress(NotFoundError):  # the answer to an earlier request was lost
                await jetstream.delete_stream(wire.STREAM)
            await bus.close(client)

    asyncio.run(run())


async def made(jetstream: JetStreamContext, options: StreamOptions) -> StreamInfo:
    await ensure_stream(jetstream, options)
    return await jetstream.stream_info(wire.STREAM)


def test_a_cluster_of_three_stores_three_replicas(nats_cluster: NatsCluster) -> None:
    async def story(jetstream: JetStreamContext) -> None:
        config = (await made(jetstream, StreamOptions(BYTES))).config
        assert config.num_replicas == 3

    with_jetstream(nats_cluster, story)


@pytest.mark.parametrize("replicas", [0, 3])
def test_an_operators_stream_stays_as_it_is(nats_cluster: NatsCluster, replicas: int) -> None:
    async def story(jetstream: JetStreamContext) -> None:
        theirs = StreamOptions(BYTES).config(1).evolve(description="ours", max_age=3600)
        before = (await jetstream.add_stream(theirs)).config
        assert (await made(jetstream, StreamOptions(BYTES, replicas))).config == before

    with_jetstream(nats_cluster, story)


def test_replicas_that_the_cluster_cannot_have_change_nothing(nats_cluster: NatsCluster) -> None:
    async def story(jetstream: JetStreamContext) -> None:
        with pytest.raises(ReplicasError, match=r"can't have 5 replicas .*CLICKMILL_NATS_REPLICAS"):
            await ensure_stream(jetstream, StreamOptions(BYTES, 5))
        with pytest.raises(NotFoundError):
            await jetstream.stream_info(wire.STREAM)
        await ensure_stream(jetstream, StreamOptions(BYTES, 2))
        before = (await jetstream.stream_info(wire.STREAM)).config
        assert before.num_replicas == 2
        assert (await made(jetstream, StreamOptions(BYTES, 5))).config == before

    with_jetstream(nats_cluster, story)


def test_tags_choose_the_servers(nats_cluster: NatsCluster) -> None:
    async def story(jetstream: JetStreamContext) -> None:
        with pytest.raises(ReplicasError, match="with the tags zone:nats-2"):
            await ensure_stream(jetstream, StreamOptions(BYTES, 2, ("zone:nats-2",)))
        info = await made(jetstream, StreamOptions(BYTES, 1, ("zone:nats-2",)))
        assert info.cluster is not None
        assert info.cluster.leader == "nats-2"

    with_jetstream(nats_cluster, story)


def test_a_server_that_is_down_is_one_of_the_three(nats_cluster: NatsCluster) -> None:
    down = nats_cluster.members[0]
    down.kill()

    async def created(jetstream: JetStreamContext) -> StreamInfo | None:
        """There may be no leader for a moment."""
        with contextlib.suppress(NatsError):
            return await made(jetstream, StreamOptions(BYTES))
        return None

    async def story(jetstream: JetStreamContext) -> None:
        info = await aeventually(lambda: created(jetstream), 60, "the stream is made")
        assert info is not None
        assert info.config.num_replicas == 3

    try:
        with_jetstream(nats_cluster, story)
    finally:
        down.start()
        nats_cluster.wait_formed()
