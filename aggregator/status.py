"""Tells `clickmill doctor` how each aggregator is (`clickmill.aggregators`).

Why over NATS: doctor runs on any node, and knows no aggregator's address. Every aggregator answers,
also one that waits for Postgres or for its own upgrade.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import msgspec
from nats.aio.msg import Msg

from clickmill import messages, wire
from clickmill.build_info import build
from clickmill.connection import Connection


class Status:
    """Answers each request with this aggregator's status."""

    def __init__(
        self,
        connection: Connection,
        not_ready: Callable[[], str | None],
        newer: Callable[[], int],
        shared_names: Callable[[], list[str]],
    ) -> None:
        """`newer`: how many sources wait for a newer release. `shared_names`: node names that
        several machines have."""
        self._connection, self._not_ready = connection, not_ready
        self._newer, self._shared_names = newer, shared_names

    async def start(self) -> None:
        """Subscribe; there need not be a connection yet."""
        await self._connection.subscribe(wire.AGGREGATORS_SUBJECT, self._on_request)

    async def _on_request(self, message: Msg) -> None:
        status = messages.AggregatorStatus(
            socket.gethostname(), build()["version"], self._not_ready() or "", self._newer(),
            self._shared_names(),
        )  # fmt: skip
        await self._connection.publish(message.reply, msgspec.json.encode(status))
