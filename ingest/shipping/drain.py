"""The end of a source: everything sealed, published, committed, and known to be closed.

Why wait for the aggregator: a source that stays open holds `completeThrough` back, and a volume
that is detached takes along what Postgres does not have yet.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from clickmill.connection import Connection
from clickmill.retry import Backoff
from ingest.shipping.shipper import Shipper

NOT_DRAINED: Final = 3
"""Exit code of a process that leaves clicks which Postgres is not known to have."""
FIRST_PAUSE_S: Final = 0.02
MAX_PAUSE_S: Final = 0.5

log = logging.getLogger("clickmill.drain")


async def drain(shippers: Iterable[Shipper], connection: Connection, timeout: float) -> None:
    """Returns once every source is closed, with all of its frames committed, or after `timeout`
    seconds. The shippers must be running."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(timeout):
            for shipper in shippers:  # one by one, but each goes on shipping meanwhile
                await _until_closed(shipper, connection)


async def _until_closed(shipper: Shipper, connection: Connection) -> None:
    backoff = Backoff(FIRST_PAUSE_S, MAX_PAUSE_S)
    while True:
        if await shipper.close(connection):
            return
        await asyncio.sleep(backoff.pause())


def report(shippers: Iterable[Shipper], data_dir: Path) -> int:
    """Log what is left, with the directory; the exit code."""
    left = 0
    for shipper in shippers:
        clicks = shipper.source.clicks_after(shipper.outbox.mark or 0)
        left += clicks
        if not clicks and not shipper.is_closed:
            log.warning(
                "source %s is committed, but no aggregator has confirmed that it is closed: "
                "completeThrough waits until `clickmill drain %s` or a worker closes it",
                shipper.source.id, data_dir,
            )  # fmt: skip
    if left:
        log.error(
            "%d clicks are not known to be in Postgres; they are kept in %s: start workers on that "
            "directory again, or run `clickmill drain %s`", left, data_dir, data_dir,
        )  # fmt: skip
    return NOT_DRAINED if left else 0
