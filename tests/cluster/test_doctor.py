"""`clickmill doctor` warns of a cluster that works, and could be set up better."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from clickmill import bus
from clickmill.stream import StreamOptions, ensure_stream
from tests.cluster import network
from tests.cluster.nats import NatsCluster
from tests.cluster.network import Network
from tests.support.fix_system import doctor

BYTES = 16 << 20
API_S = 30.0


@pytest.fixture(scope="module")
def nats_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    if reason := network.unavailable():
        pytest.skip(reason)
    with Network() as net:
        machines = [net.machine(f"nats-{n}") for n in (1, 2, 3)]
        home = tmp_path_factory.mktemp("nats")
        running = NatsCluster(machines, home, jetstream="sync_interval: always")
        try:
            running.start()
            yield running
        finally:
            running.stop()


def warnings(nats_cluster: NatsCluster, options: StreamOptions, data_dir: Path) -> list[str]:
    """What doctor warns of, with a stream that is made with these options."""

    async def with_stream() -> str:
        client = await asyncio.wait_for(bus.connect(nats_cluster.url, "test"), API_S)
        jetstream = client.jetstream(timeout=API_S)
        await ensure_stream(jetstream, options)
        try:
            return await asyncio.to_thread(doctor, data_dir, nats_cluster.url)
        finally:
            await jetstream.delete_stream("CLICKMILL")
            await bus.close(client)

    text = asyncio.run(with_stream())
    return [line for line in text.splitlines() if line.startswith("warning")]


def test_one_replica_in_a_cluster(nats_cluster: NatsCluster, tmp_path: Path) -> None:
    (line,) = warnings(nats_cluster, StreamOptions(BYTES, 1), tmp_path)
    assert line.startswith("warning NATS: the stream has one replica in a cluster")
    assert line.endswith("change it with `nats stream edit CLICKMILL --replicas 3`.")


def test_replicas_that_are_synced_for_each_message(
    nats_cluster: NatsCluster, tmp_path: Path
) -> None:
    (line,) = warnings(nats_cluster, StreamOptions(BYTES), tmp_path)
    assert line.startswith("warning NATS: JetStream syncs each message (sync_interval: always)")
