"""A connection to NATS that outlives every client: when one is lost, another takes its place.

Why: the library's client closes for good at any -ERR of the server but two (a limit of
connections, credentials that expired, a password that was changed), and an error that it does not
expect can leave it neither connected nor closed. Callers that publish or subscribe need not
know: the next client connects as soon as the server lets it, and has the same subscriptions.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
import time
from collections.abc import Awaitable, Callable
from typing import Final

import nats.aio.subscription
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext

from clickmill import bus, wire

WATCH_EVERY_S: Final = 0.1
REPLACE_AFTER_S: Final = 10.0
"""How long a client may look for its server before another does so in its place."""
RENEW_EVERY_S: Final = 3.0
MAX_REFUSALS: Final = 1000

_REFUSED: Final = re.compile(r'permissions violation for publish to "([^"]+)"', re.IGNORECASE)

log = logging.getLogger("clickmill.connection")

Handler = Callable[[Msg], Awaitable[None]]


class NotConnectedError(NatsError):
    """There is no connection to NATS at present; the message says why."""


class Subscription:
    """The messages of one subject for one handler, from the client in use."""

    def __init__(self, subject: str, cb: Handler, queue: str) -> None:
        self._subject, self._cb, self._queue = subject, cb, queue
        self._of: nats.aio.subscription.Subscription | None = None
        self._client: Client | None = None

    async def begin(self, client: Client) -> None:
        """Subscribe with this client, once. Cut off while at it, the client does it again as soon
        as it is back, and so does the next one."""
        if client is not self._client:
            self._client, self._of = client, None
            with contextlib.suppress(NatsError, OSError):
                self._of = await client.subscribe(self._subject, queue=self._queue, cb=self._cb)

    async def end(self) -> None:
        """Give the handler nothing more."""
        if self._of is not None:
            with contextlib.suppress(NatsError, OSError, RuntimeError):
                await self._of.unsubscribe()


class Connection:
    """The connection of one process. It lasts as long as `run` does."""

    def __init__(self, url: str, name: str) -> None:
        """As `bus.connect`. Raises ValueError where `url` names no server."""
        bus.servers_in(url)
        self._url, self._name = url, name
        self._client = Client()  # connected to nothing: `is_connected` is false
        self._subscriptions: list[Subscription] = []
        self.reason = "it has not answered yet"
        """The last error, in the server's words where they are its: why it is not connected."""
        self._first = asyncio.Event()
        self._log = bus.complaints(name)
        self._refused: dict[str, float] = {}
        self._renewed = 0.0

    async def run(self) -> None:
        """Connect, and connect again whenever a client is lost; until cancelled."""
        while True:
            try:
                client = await bus.connect(self._url, self._name, self._on_error)
                try:
                    await self._use(client)
                finally:
                    await bus.close(client)
            except Exception as error:  # whatever it is, the next client may have better luck
                await self._on_error(error)
            await asyncio.sleep(bus.RECONNECT_WAIT_S)

    async def _use(self, client: Client) -> None:
        """Returns once the client is lost."""
        self._client = client
        log.info("NATS (%s): connected", self._name)
        self._first.set()
        for subscription in list(self._subscriptions):
            await subscription.begin(client)
        await _until_lost(client)
        await self._on_error(client.last_error or NotConnectedError("the client was closed"))

    async def _on_error(self, error: Exception) -> None:
        self.reason = bus.words(error)
        if refused := _REFUSED.search(self.reason):
            if len(self._refused) >= MAX_REFUSALS:
                self._refused.clear()
            self._refused[refused[1].lower()] = time.monotonic()
        await self._log(error)

    # --- what is known of it --------------------------------------------------------------------

    @property
    def is_connected(self) -> bool:
        """Whether something can be sent at this moment."""
        return self._client.is_connected

    @property
    def max_payload(self) -> int:
        """The largest message that the server takes, in bytes; the usual one before it has said."""
        return self._client.max_payload

    def was_refused(self, subject: str, since: float) -> bool:
        """Whether the server has said since then (monotonic) that this client may not publish to
        the subject."""
        return self._refused.get(subject.lower(), since - 1) >= since

    async def connected(self) -> None:
        """Returns once there has been a first connection."""
        await self._first.wait()

    # --- use ------------------------------------------------------------------------------------

    def _live(self) -> Client:
        if not self._client.is_connected:
            raise NotConnectedError(f"there is no connection to NATS ({self.reason})")
        return self._client

    async def publish(self, subject: str, payload: bytes = b"", reply: str = "",
                      headers: dict[str, str] | None = None) -> None:  # fmt: skip
        """Send a message. Raises NatsError or OSError where that can't be done now."""
        client = self._live()
        # The server counts the headers too, and ends a connection for a byte too many.
        if headers and len(payload) + wire.HEADERS_BYTES > client.max_payload:
            raise MaxPayloadError
        await client.publish(subject, payload, reply, headers)

    async def request(self, subject: str, payload: bytes, timeout: float) -> Msg:
        """The answer to a message. Raises NatsError (TimeoutError where none came) or OSError."""
        return await self._live().request(subject, payload, timeout)

    async def subscribe(self, subject: str, cb: Handler, queue: str = "") -> Subscription:
        """Have `cb` called with each message, over this client and each that follows it."""
        subscription = Subscription(subject, cb, queue)
        self._subscriptions.append(subscription)
        if self._first.is_set():
            await subscription.begin(self._client)
        return subscription

    async def unsubscribe(self, subscription: Subscription) -> None:
        """End a subscription."""
        self._subscriptions.remove(subscription)
        await subscription.end()

    def jetstream(self, timeout: float = bus.API_TIMEOUT_S) -> JetStreamContext:
        """JetStream by the client in use: to be asked for at each use. Raises NotConnectedError."""
        return self._live().jetstream(timeout=timeout)

    def new_inbox(self) -> str:
        """A subject of this client alone."""
        return self._client.new_inbox()

    async def renew(self) -> None:
        """Connect again, at most once in RENEW_EVERY_S: only a new connection is told of a limit
        that was raised."""
        if time.monotonic() - self._renewed >= RENEW_EVERY_S:
            self._renewed = time.monotonic()
            await self._client.force_reconnect()


async def _until_lost(client: Client) -> None:
    """Until the client has closed, or has found no way back for long."""
    connected_at = time.monotonic()
    while not client.is_closed:
        now = time.monotonic()
        if client.is_connected:
            connected_at = now
        elif now - connected_at > REPLACE_AFTER_S:
            return
        await asyncio.sleep(WATCH_EVERY_S)
