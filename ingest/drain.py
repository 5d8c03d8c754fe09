"""Empties a data directory whose workers are gone: adopts, publishes, waits for the commit."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from uuid import uuid4

from clickmill.settings import Settings
from clickmill.tasks import end
from ingest.durable.source import directories
from ingest.durable.source_lock import is_held
from ingest.metrics import Slot
from ingest.shipping.adoption import Adoption
from ingest.shipping.drain import NOT_DRAINED, drain, report
from ingest.shipping.limits import Limits
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.payload import MaxPayload

log = logging.getLogger("clickmill.drain")


class InUseError(Exception):
    """A running worker holds a source of this directory."""


async def drain_directory(settings: Settings) -> int:
    """0 once Postgres has every click that `settings.data_dir` holds, NOT_DRAINED where it has
    not after the drain timeout; what is left is logged. Raises InUseError, and nothing is changed.
    """
    data_dir = Path(settings.data_dir)
    root = data_dir / "ingest"
    held = [directory for directory in directories(root) if is_held(directory)]
    if held:
        raise InUseError(
            f"{data_dir} is in use: a running worker holds {held[0]}; stop it, which drains the "
            "directory too, and run this again if it exits with 3."
        )
    limits = Limits.of(settings)
    link = NatsLink(
        settings.nats_url, f"clickmill-drain-{uuid4()}", MaxPayload(root / "max_payload"),
        limits.stream,
    )  # fmt: skip
    adoption = Adoption(root, link, limits, Slot(root / "meters"))
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(link.run()), group.create_task(adoption.run())]
        await adoption.searched.wait()
        shippers = list(adoption.shippers)
        await drain(shippers, link.connection, settings.drain_timeout)
        await end(tasks)
    skipped = {*directories(root)} - {shipper.source.directory for shipper in shippers}
    for directory in sorted(skipped):
        log.error("%s was not drained: see its line above, and the owner of its files", directory)
    return report(shippers, data_dir) or (NOT_DRAINED if skipped else 0)
