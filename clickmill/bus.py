"""The one place that connects to NATS and makes the stream's consumers; `stream` makes the stream.

Why: workers and aggregator need the same client options (the defaults give up after 60
attempts and notice a dead server after four minutes), and either side may be the first to find
that the stream is gone. "Bus", because deltas, marks and requests all ride on it.

NATS is transport only: whatever is lost in it is sent again from a worker's spool.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription
from nats.errors import Error as NatsError
from nats.js import JetStreamContext, api

from clickmill import wire
from clickmill.retry import Throttle

PING_INTERVAL_S: Final = 1
MAX_OUTSTANDING_PINGS: Final = 2
CONNECT_TIMEOUT_S: Final = 2
RECONNECT_WAIT_S: Final = 0.25
MAX_COMPLAINTS: Final = 100
API_TIMEOUT_S: Final = 5.0

# The redelivery delay is how long statistics stand still when an aggregator dies with messages
# in hand; far above any healthy commit, or each slow one would be delivered twice.
ACK_WAIT_S: Final = 3.0
MAX_ACK_PENDING: Final = 20_000
MAX_WAITING_PULLS: Final = 64

log = logging.getLogger("clickmill.bus")

ErrorCallback = Callable[[Exception], Awaitable[None]]


async def connect(url: str, name: str, on_error: ErrorCallback | None = None) -> Client:
    """A NATS client named `name` (seen in the server's monitoring) that reconnects forever.

    `url` may hold several servers, separated by commas, and credentials (`nats://user:pw@host`).
    `tls://` checks the server's certificate, against SSL_CERT_FILE where that is set.
    Returns once there is a first connection, however long that takes; cancel it to give up.
    While disconnected a publish fails at once (OutboundBufferLimitError) instead of being kept
    and sent behind the caller's back later. `on_error` gets each error; without it they are
    logged. The server can still close the client for good: see `clickmill.connection`. Raises
    ValueError where `url` names no server.
    """
    report = on_error or complaints(name)

    async def report_unless_cancelled(error: Exception) -> None:
        _raise_lost_cancellation()
        await report(error)

    client = _StrictClient()
    await client.connect(
        servers=servers_in(url),
        name=name,
        error_cb=report_unless_cancelled,
        connect_timeout=CONNECT_TIMEOUT_S,
        reconnect_time_wait=RECONNECT_WAIT_S,  # type: ignore[arg-type]  # only slept on
        max_reconnect_attempts=-1,
        ping_interval=PING_INTERVAL_S,
        max_outstanding_pings=MAX_OUTSTANDING_PINGS,
        pending_size=0,
    )
    _raise_lost_cancellation()
    return client


def servers_in(url: str) -> list[str]:
    """The servers that `url` names. Raises ValueError where there is none: the library would look
    for one forever, and never let the event loop go on."""
    servers = [part.strip() for part in url.split(",") if part.strip()]
    if not servers:
        raise ValueError("no NATS server is named: set CLICKMILL_NATS_URL")
    return servers


class PlaintextRefusedError(NatsError):
    """A tls:// server offers no TLS: give it a certificate, or say nats:// and mean it."""


class _StrictClient(Client):
    """The library's client, corrected where it is silent or does too much."""

    async def _process_info(self, info: dict[str, Any], initial_connection: bool = False) -> None:
        """The library takes tls:// for a preference: where the server offers no TLS, it sends the
        password in the clear. An attacker between the two could ask for that, so it is refused
        here, after the server's greeting and before our first word."""
        server = self._current_server
        wants_tls = server is not None and server.uri.scheme == "tls"
        if initial_connection and wants_tls and not info.get("tls_required"):
            raise PlaintextRefusedError((PlaintextRefusedError.__doc__ or "").rstrip("."))
        await super()._process_info(info, initial_connection)

    async def _read_loop(self) -> None:
        """The library's ends at an error that it does not expect, and leaves a client that looks
        connected and receives nothing."""
        await super()._read_loop()
        if self.is_connected and self._reading_task is asyncio.current_task():
            await self._process_op_err(NatsError("reading from the server broke"))

    async def request(self, *args: Any, **options: Any) -> Msg:
        """Ends with CancelledError wherever the task was cancelled."""
        try:
            return await super().request(*args, **options)
        finally:
            _raise_lost_cancellation()

    # uvloop refuses to write to a connection that was just cut with a RuntimeError, which the
    # library passes on. Everything that writes goes through these two.

    async def publish(
        self, subject: str, payload: bytes = b"", reply: str = "",
        headers: dict[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Raises ConnectionResetError where the connection was cut just now."""
        try:
            await super().publish(subject, payload, reply, headers)
        except RuntimeError as error:
            raise _cut(error) from error

    async def subscribe(self, *args: Any, **options: Any) -> Subscription:
        """Raises ConnectionResetError where the connection was cut just now."""
        try:
            return await super().subscribe(*args, **options)
        except RuntimeError as error:
            raise _cut(error) from error


def _raise_lost_cancellation() -> None:
    """The library waits with `wait_for`, which on Python 3.11 loses a cancellation that comes
    together with the result, or with a refused connection: a process that stops would then wait
    for its tasks forever."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def _cut(error: RuntimeError) -> ConnectionResetError:
    return ConnectionResetError(f"the connection was cut while something was sent ({error})")


def words(error: BaseException) -> str:
    """What an error says, without the library's prefix and the server's quotes."""
    return str(error).removeprefix("nats: ").strip("'") or type(error).__name__


def complaints(name: str) -> ErrorCallback:
    """An error callback: each error is logged once in ten seconds, not at each attempt."""
    throttles: dict[str, Throttle] = {}

    async def complain(error: Exception) -> None:
        text = words(error)
        if len(throttles) >= MAX_COMPLAINTS and text not in throttles:
            throttles.clear()
        if throttles.setdefault(text, Throttle()).allows(time.monotonic()):
            log.warning("NATS (%s): %s; trying again until it answers", name, text)

    return complain


def consumer_config(shard: int) -> api.ConsumerConfig:
    """The durable pull consumer of one shard, shared by all aggregators."""
    return api.ConsumerConfig(
        name=consumer_name(shard),
        durable_name=consumer_name(shard),
        filter_subject=wire.shard_filter(shard),
        ack_policy=api.AckPolicy.EXPLICIT,
        ack_wait=ACK_WAIT_S,
        max_ack_pending=MAX_ACK_PENDING,
        max_waiting=MAX_WAITING_PULLS,
    )


def consumer_name(shard: int) -> str:
    """The durable name of a shard's consumer."""
    return f"shard-{shard}"


async def ensure_consumer(js: JetStreamContext, shard: int) -> None:
    """Make the shard's consumer where it is missing, or bring it up to today's settings.

    Raises nats.errors.Error; NotFoundError where the stream itself is missing.
    """
    await js.add_consumer(wire.STREAM, consumer_config(shard))


async def close(client: Client, timeout: float = 1.0) -> None:
    """Close the client, waiting at most `timeout` seconds for what it still has to send."""
    try:
        async with asyncio.timeout(timeout):
            if client.is_connected:
                await client.flush(max(1, int(timeout)))
    except Exception as error:  # closing must not fail, whatever state the client is in
        log.debug("NATS flush at close: %s", error)
    try:
        await client.close()
    except Exception as error:  # the connection was cut, with something still to be sent
        log.debug("NATS close: %s", error)
