"""One ingest worker: settings in, clicks counted, everything handed on at the end.

`main` reads as a table of contents. The supervisor starts one process for each worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from pathlib import Path
from typing import Final

import uvloop

from clickmill import configuration, heartbeat, logs, openfiles
from clickmill.contract.access import Access, Hosts, is_loopback
from clickmill.contract.problem import Headers
from clickmill.contract.tokens import Tokens
from clickmill.settings import Settings
from clickmill.tasks import end
from ingest._fastcount import Counters
from ingest._fastpath import AnsweringLoop, Fastpath
from ingest.durable.source import Source
from ingest.exposition import Exposition
from ingest.http import app
from ingest.http.granian_server import Fast, Listener, Schedule, Server
from ingest.http.responses import cors_headers, fast_answers, no_store
from ingest.lookup.redirects import Targets
from ingest.lookup.stats_proxy import StatsProxy
from ingest.lookup.targets_sync import TargetsSync
from ingest.metrics import FastpathCells, Slot
from ingest.shipping.adoption import Adoption
from ingest.shipping.drain import drain, report
from ingest.shipping.health import Health
from ingest.shipping.keyed_batches import KeyedBatches
from ingest.shipping.limits import Limits
from ingest.shipping.nats_link import NatsLink
from ingest.shipping.payload import MaxPayload
from ingest.shipping.sealer import Sealer
from ingest.shipping.shipper import Shipper

HEADER_TIMEOUT_S: Final = 5.0
CONNECTIONS_S: Final = 1.5
"""Seconds that open connections have for their last answer."""

log = logging.getLogger("clickmill.ingest")


async def serve(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; then answer, seal and publish what is left. The exit code."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    data_dir = Path(settings.data_dir).resolve()
    root = data_dir / "ingest"
    slot, limits, source = Slot(root / "meters"), Limits.of(settings), _source(settings, root)
    targets = Targets(root / "targets.json", _redirect_headers(settings))
    link = NatsLink(
        settings.nats_url, f"clickmill-ingest-{source.id}", MaxPayload(root / "max_payload"),
        limits.stream,
    )  # fmt: skip
    own = Shipper(source, limits.outbox(mark=0), slot, limits.stream, limits.node_name)
    sealer = Sealer(source, own.outbox, own.disk, slot)
    adoption = Adoption(root, link, limits, slot)
    batches = KeyedBatches(root, link, limits, slot)
    health = Health(link, sealer, own, adoption, batches, limits, slot)
    proxy = StatsProxy(link.connection, settings.max_pending_stats)
    metrics = Exposition(root / "meters").text
    backend = app.Backend(proxy.ask, health.problems, metrics, batches.count)
    application = app.App(sealer.counters, slot, backend, targets.redirects, _options(settings))
    sealer.counters.max_pairs = link.max_pairs()
    async with asyncio.TaskGroup() as group:
        work = [
            link.run(), sealer.run(settings.flush_interval, link, own), link.ship(own),
            adoption.run(), batches.run(), TargetsSync(link.connection, targets).run(),
            health.run(),
        ]  # fmt: skip
        tasks = [group.create_task(coroutine) for coroutine in work]
        server = _server(settings, application, sealer.counters, slot, targets)
        log.info("source %s serves on port %d", source.id, settings.port)
        heartbeat.ready()
        tasks.append(group.create_task(heartbeat.send_forever()))
        await stop.wait()
        await server.stop(CONNECTIONS_S)
        await sealer.seal()
        await batches.finish()
        shippers = [own, *batches.shippers, *adoption.shippers]
        await drain(shippers, link.connection, settings.drain_timeout)
        await sealer.seal()  # what a connection counted while it was being cut
        await end(tasks)
    # The lock of our own source is kept: a connection may still be counting until we are gone.
    return report(shippers, data_dir)


def _source(settings: Settings, root: Path) -> Source:
    elsewhere = Path(settings.counters_dir) if settings.counters_dir else None
    return Source.create(root, settings.max_banner_id + 1, settings.spool_max_bytes, elsewhere)


def _redirect_headers(settings: Settings) -> Headers:
    return [*no_store(), *cors_headers(settings.cors_origin)]


def _options(settings: Settings) -> app.Options:
    access = Access(
        Tokens.parse(settings.stats_token), Tokens.parse(settings.write_token),
        Hosts.parse(settings.allowed_hosts), always_closed=not is_loopback(settings.host),
    )  # fmt: skip
    return app.Options(
        settings.cors_origin, access, settings.body_timeout, settings.body_max_bytes,
        settings.batch_max_clicks, settings.backdate_days, settings.prefix,
    )  # fmt: skip


def _listener(settings: Settings) -> Listener:
    limit = openfiles.allow_most()
    if sentence := openfiles.too_few(limit, settings.max_connections):
        log.warning("%s", sentence)
    connections = openfiles.connections_within(limit, settings.max_connections)
    return Listener(
        settings.host, settings.port, HEADER_TIMEOUT_S, settings.body_timeout, connections
    )


def _server(
    settings: Settings, application: app.App, counters: Counters, slot: Slot, targets: Targets
) -> Server:
    answers, cells = fast_answers(settings.cors_origin), FastpathCells()

    def fast(hand_over: Schedule) -> Fast:
        return Fastpath(
            counters, slot.meters, hand_over, application.refuse, answers, targets.redirects, cells,
            settings.body_max_bytes, settings.prefix.encode(),
        )  # fmt: skip

    return Server(application.__rsgi__, _listener(settings), fast if settings.fastpath else None)


def _run_in_batches() -> None:
    """Have the kernel not preempt one of our threads for another that it has just woken.

    Granian's I/O thread and the thread that answers wake each other for each click. Under the
    batch policy the one finishes what is ready before the other takes over: less CPU for a click
    when a core is full, and no difference while it has idle time.
    """
    with contextlib.suppress(OSError, AttributeError):  # another kernel: it only costs more
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))


def main() -> None:
    """Entry of `python -m ingest`."""
    heartbeat.attach()
    settings = configuration.load()
    logs.configure(settings.log_level, settings.log_format)
    _run_in_batches()
    code = _run(settings)
    logging.shutdown()
    # At once: Granian's threads may still hold a connection, and a click on the way to mapped
    # memory must not find it unmapped. What it counts, an adopter finds.
    os._exit(code)


def _run(settings: Settings) -> int:
    """The exit code: 1 after an unexpected error, so that another worker follows."""
    try:
        return uvloop.run(serve(settings), loop_factory=AnsweringLoop)
    except ExceptionGroup as error:
        log.critical("a part of the worker broke; it ends, to be replaced", exc_info=error)
        return 1
