"""A failed pull is restarted, and readiness reports shards that can't be pulled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
import uvloop
from nats.aio.msg import Msg

from aggregator.writing import pull as pull_module
from aggregator.writing.pull import Puller, _Shard
from clickmill import wire
from clickmill.connection import Connection
from clickmill.stream import StreamOptions
from tests.support.aggregators import aggregator
from tests.support.connections import connection
from tests.support.fix_nats import MAX_BYTES, NatsServer
from tests.support.wait import aeventually, eventually

STREAM_BYTES = MAX_BYTES // 2
SHARD, OTHER = 3, 4


class Pulled:
    """A puller of two shards, and the messages that it has delivered."""

    def __init__(self, it: Connection) -> None:
        self.puller = Puller(it, self._take, StreamOptions(STREAM_BYTES))
        self._connection = it
        self._got: list[tuple[int, bytes]] = []

    def _take(self, message: Msg, shard: int) -> None:
        self._got.append((shard, message.data))

    async def start(self) -> None:
        await self.puller.start()
        for shard in (SHARD, OTHER):
            self.puller.assign(shard)
        await self.in_trouble(set())

    async def in_trouble(self, shards: set[int]) -> None:
        async def so() -> bool:
            return self.puller.trouble.keys() == shards

        await aeventually(so, 10, f"in trouble: {shards}")

    async def gets(self, shard: int, text: bytes) -> None:
        subject = f"{wire.DELTAS_PREFIX}.{shard}.test"
        await self._connection.jetstream().publish(subject, text)

        async def arrived() -> bool:
            return (shard, text) in self._got

        await aeventually(arrived, 10, f"{text!r} of shard {shard}")


def raises(error: BaseException) -> Callable[[], None]:
    def fail() -> None:
        raise error

    return fail


@pytest.mark.parametrize(
    "error", [RuntimeError("<TCPTransport closed=True>"), asyncio.CancelledError()], ids=type
)
def test_a_failed_pull_is_restarted(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture,
    error: BaseException,
) -> None:  # fmt: skip
    monkeypatch.setattr(pull_module, "RETRY_S", 0.5)
    request = Puller._request

    async def story() -> None:
        async with connection(nats.url) as it:
            pulled = Pulled(it)
            await pulled.start()
            with monkeypatch.context() as patch:

                async def broken(self: Puller, shard: int, state: _Shard) -> None:
                    if shard == SHARD:
                        raise error
                    await request(self, shard, state)

                patch.setattr(Puller, "_request", broken)
                await pulled.in_trouble({SHARD})
                await pulled.gets(OTHER, b"meanwhile")
            await pulled.gets(SHARD, b"afterwards")
            assert not pulled.puller.trouble
            await pulled.puller.revoke_all()

    uvloop.run(story())
    assert f"the pull of shard {SHARD} broke; it begins again" in caplog.text


def test_a_revoked_shard_is_not_pulled_again(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pull_module, "RETRY_S", 0.1)
    requests: list[int] = []

    async def story() -> None:
        async with connection(nats.url) as it:
            pulled = Pulled(it)
            await pulled.start()

            async def broken(self: Puller, shard: int, state: _Shard) -> None:
                requests.append(shard)
                raise RuntimeError

            monkeypatch.setattr(Puller, "_request", broken)
            await pulled.in_trouble({SHARD, OTHER})
            await pulled.puller.revoke_all()
            requests.clear()
            await asyncio.sleep(0.3)  # three times as long as a break
            assert not requests

    uvloop.run(story())


def test_readiness_reports_shards_that_cannot_be_pulled(nats: NatsServer, database: str) -> None:
    """JetStream has too little space for the stream, until its limit is raised."""
    roomy = f"max_file_store: {MAX_BYTES + (64 << 20)}"
    nats.stop()
    text = nats.config.read_text()
    assert roomy in text
    nats.config.write_text(text.replace(roomy, f"max_file_store: {1 << 20}"))
    nats.start()
    with aggregator(nats.url, database, wait=False) as running:
        eventually(lambda: "insufficient storage" in (running.not_ready() or ""), 15)
        assert f'503 {{"error":"{wire.SHARDS} shards can\'t be read' in (running.not_ready() or "")
        nats.stop()
        nats.config.write_text(text)
        nats.start()
        running.wait_ready()
