"""Keeps the redirect targets up to date: changes as they are broadcast, all of them now and then.

Why both: a broadcast arrives at once, but one that is sent while a worker is cut off is missed.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from nats.aio.msg import Msg

from clickmill import wire
from clickmill.connection import Connection
from ingest.lookup.redirects import Targets, decode_targets

FETCH_EVERY_S: Final = 30.0
RETRY_S: Final = 1.0
SAVE_EVERY_S: Final = 1.0
REQUEST_TIMEOUT_S: Final = 5.0

log = logging.getLogger("clickmill.targets")


class TargetsSync:
    """Brings what the aggregators know into `targets`, and `targets` to its file."""

    def __init__(self, connection: Connection, targets: Targets) -> None:
        self._connection, self._targets = connection, targets

    async def run(self) -> None:
        """Until cancelled; what changed is then saved."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._save_forever())
                await self._connection.subscribe(wire.BANNERS_CHANGED_SUBJECT, self._on_change)
                await self._connection.connected()
                await self._fetch_forever()
        finally:
            self._targets.save()

    async def _on_change(self, message: Msg) -> None:
        self._targets.change(message.data)

    async def _save_forever(self) -> None:
        while True:
            await asyncio.sleep(SAVE_EVERY_S)
            self._targets.save()

    async def _fetch_forever(self) -> None:
        while True:
            fetched = await self._fetch()
            await asyncio.sleep(FETCH_EVERY_S if fetched else RETRY_S)

    async def _fetch(self) -> bool:
        """Replace the targets by those of the register; False where that has to be repeated."""
        changes = self._targets.changes
        try:
            targets = await _all_targets(self._connection)
        except Exception as error:  # no aggregator yet: what the file holds goes on serving
            log.debug("the register of banners can't be fetched: %r", error)
            return False
        if changes != self._targets.changes:
            return False  # it may be older than a change that arrived meanwhile
        self._targets.replace(targets)
        return True


async def _all_targets(connection: Connection) -> dict[int, str]:
    """The whole register's targets, page by page. Raises NatsError, OSError, MsgspecError."""
    targets: dict[int, str] = {}
    after = b"-1"
    while after:
        reply = await connection.request(wire.BANNERS_SUBJECT, after, REQUEST_TIMEOUT_S)
        targets |= decode_targets(reply.data)
        after = (reply.headers or {}).get(wire.MORE_HEADER, "").encode()
    return targets
