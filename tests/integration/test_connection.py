"""The connection to NATS comes back, whatever the server said, and whatever broke in the client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from clickmill import bus
from clickmill import connection as connection_module
from clickmill.connection import Connection
from tests.support.connections import connection, works
from tests.support.fix_nats import NatsServer
from tests.support.ports import free_port
from tests.support.proxy import Proxy, running_proxy
from tests.support.wait import aeventually

ERRORS = {
    "maximum connections exceeded": "maximum connections exceeded",
    "user authentication expired": "user authentication expired",
    "authorization violation": "authorization failed",  # in the library's words
    "secure connection - tls required": "tls required",
    "unknown protocol operation": "unknown protocol operation",
}
"""What the server says as it ends a connection, and what the log says of it."""
LIMIT = "max_connections: 1024"


def through(nats: NatsServer, proxy: Proxy) -> str:
    return nats.url.replace(f":{nats.port}", f":{proxy.port}")


class Listener:
    """What has arrived on a subject."""

    def __init__(self) -> None:
        self.messages: list[bytes] = []

    async def take(self, message: Msg) -> None:
        self.messages.append(message.data)

    async def gets(self, sender: Connection, text: bytes) -> None:
        """Until a message that is sent now has arrived, once."""

        async def arrived() -> bool:
            with contextlib.suppress(NatsError, OSError):
                await sender.publish("test.subject", text)
            await asyncio.sleep(0.02)
            return text in self.messages

        await aeventually(arrived, 5, f"{text!r} arrives")


def test_it_reconnects_after_any_server_error(
    nats: NatsServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(proxy: Proxy) -> None:
        listener = Listener()
        async with connection(through(nats, proxy)) as it:
            await it.subscribe("test.subject", listener.take)
            for said, logged in ERRORS.items():
                await listener.gets(it, said.encode())
                proxy.refuse = True
                proxy.tell_all(f"-ERR '{said.title()}'\r\n".encode())

                async def lost() -> bool:
                    return not it.is_connected

                await aeventually(lost, 5)
                with pytest.raises(NatsError, match="no connection"):
                    await it.publish("test.subject", b"nobody hears this")
                proxy.refuse = False
                await works(it, 3)
                assert logged in caplog.text
            await listener.gets(it, b"still subscribed")

    with running_proxy(nats.port, is_postgres=False) as proxy:
        uvloop.run(story(proxy))


def test_it_reconnects_when_the_server_has_room(nats: NatsServer) -> None:
    """By a real reload: the server ends all connections but one."""

    async def story() -> None:
        async with contextlib.AsyncExitStack() as stack:
            all_of_them = [await stack.enter_async_context(connection(nats.url)) for _ in range(4)]
            await asyncio.to_thread(nats.reload, LIMIT, "max_connections: 1")

            async def most_are_out() -> bool:
                out = [it for it in all_of_them if not it.is_connected]
                return len(out) >= 3 and all("maximum connections" in it.reason for it in out)

            await aeventually(most_are_out, 5, "all but one are refused")
            await asyncio.to_thread(nats.reload, "max_connections: 1\n", f"{LIMIT}\n")
            for it in all_of_them:
                await works(it, 5)

    uvloop.run(story())


def test_the_first_connection_is_retried_until_it_succeeds(nats: NatsServer) -> None:
    right = nats.url.rpartition("@")[0].rpartition(":")[2]

    async def story() -> None:
        await asyncio.to_thread(nats.reload, right, "another")
        it = Connection(nats.url, "test")
        running = asyncio.create_task(it.run())
        listener = Listener()
        await it.subscribe("test.subject", listener.take)

        async def refused() -> bool:
            return "authorization violation" in it.reason.lower()

        await aeventually(refused, 5, "the reason is told")
        assert not it.is_connected
        await asyncio.to_thread(nats.reload, "another", right)
        await works(it, 5)
        await listener.gets(it, b"subscribed before there was a connection")
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)

    uvloop.run(story())


def test_a_cancellation_lost_while_the_server_refuses_still_ends_the_attempts() -> None:
    """As `wait_for` of Python 3.11 loses one that comes together with the refusal."""

    async def story() -> None:
        attempt: asyncio.Task[object]

        async def lose(_: Exception) -> None:
            attempt.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(0)

        url = f"nats://127.0.0.1:{free_port()}"
        attempt = asyncio.create_task(bus.connect(url, "test", lose))
        await asyncio.wait({attempt}, timeout=10)
        assert attempt.cancelled()

    uvloop.run(story())


def test_it_survives_an_outage_longer_than_the_librarys_attempts(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The library gives up after 60 attempts, 15 s at our pace: so it may not count them."""
    monkeypatch.setattr(bus, "RECONNECT_WAIT_S", 0.01)
    attempts = 0

    async def count(_: Exception) -> None:
        nonlocal attempts
        attempts += 1

    async def story() -> None:
        client = await bus.connect(nats.url, "test", count)
        await asyncio.to_thread(nats.stop)

        async def many() -> bool:
            assert not client.is_closed, f"it gave up after {attempts} attempts"
            return attempts > 130

        await aeventually(many, 20, "130 attempts")
        await asyncio.to_thread(nats.start)

        async def back() -> bool:
            return client.is_connected

        await aeventually(back, 5)
        await bus.close(client)

    uvloop.run(story())


def broken_reading(it: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    async def broken(_: bytes) -> None:
        monkeypatch.undo()
        raise ValueError("what nobody expects")

    monkeypatch.setattr(it._client._ps, "parse", broken)


def broken_search(it: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library's search for a server ends with an error that it does not expect."""

    async def broken() -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    monkeypatch.setattr(connection_module, "REPLACE_AFTER_S", 0.5)
    monkeypatch.setattr(it._client, "_process_connect_init", broken)
    assert it._client._transport is not None
    it._client._transport.close()  # type: ignore[no-untyped-call]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("broken", [broken_reading, broken_search])
def test_a_client_that_is_neither_connected_nor_closed_is_replaced(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch,
    broken: Callable[[Connection, pytest.MonkeyPatch], None],
) -> None:  # fmt: skip
    async def story() -> None:
        listener = Listener()
        async with connection(nats.url) as it:
            await it.subscribe("test.subject", listener.take)
            await listener.gets(it, b"before")
            broken(it, monkeypatch)
            await listener.gets(it, b"after")

    uvloop.run(story())


Use = Callable[[Connection], Coroutine[Any, Any, Any]]
USES: dict[str, Use] = {
    "publish": lambda it: it.publish("test.subject", b"x"),
    "request": lambda it: it.request("test.subject", b"x", 1.0),
    "jetstream": lambda it: it.jetstream(1.0).account_info(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_a_cut_during_a_write_is_a_connection_error(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch, use: Use
) -> None:
    """What uvloop raises then is neither of the library's errors nor the system's."""

    def refuse(_: list[bytes]) -> None:
        raise RuntimeError("unable to perform operation on <TCPTransport closed=True>")

    async def story() -> None:
        async with connection(nats.url) as it:
            client = it._client
            assert client._flusher_task is not None
            client._flusher_task.cancel()
            await asyncio.gather(client._flusher_task, return_exceptions=True)
            with monkeypatch.context() as patch:
                patch.setattr(client._transport, "writelines", refuse)
                with pytest.raises(ConnectionResetError):
                    await use(it)
                subscription = await it.subscribe("test.subject", Listener().take)
                await it.unsubscribe(subscription)

    uvloop.run(story())


def test_it_works_while_it_is_cut_repeatedly(
    nats: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bus, "RECONNECT_WAIT_S", 0.005)

    async def use(it: Connection, ended: asyncio.Event) -> None:
        listener = Listener()
        while not ended.is_set():
            with contextlib.suppress(NatsError, OSError):
                await it.publish("test.other", b"x" * 200)
                await it.unsubscribe(await it.subscribe("test.other", listener.take))
            await asyncio.sleep(0)

    async def story(proxy: Proxy) -> None:
        listener, ended = Listener(), asyncio.Event()
        async with connection(through(nats, proxy)) as it:
            await it.subscribe("test.subject", listener.take)
            using = [asyncio.create_task(use(it, ended)) for _ in range(2)]
            for n in range(50):
                proxy.cut_all()
                await listener.gets(it, b"%d" % n)
            ended.set()
            await asyncio.gather(*using)

    with running_proxy(nats.port, is_postgres=False) as proxy:
        uvloop.run(story(proxy))
