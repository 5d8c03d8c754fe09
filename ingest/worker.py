"""One ingest worker: settings in, clicks counted, everything handed on at the end.

`main` reads as a table of contents. The supervisor starts one process for each worker.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import uvloop
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder

from clickmill import heartbeat, openfiles, wire
from clickmill import settings as configuration
from clickmill.build_info import BuildInfo
from clickmill.settings import Settings
from clickmill.tokens import Tokens
from ingest._fastpath import Fastpath
from ingest.durable.source import Source
from ingest.http import app
from ingest.http.granian_server import Listener, Schedule, Server
from ingest.http.redirects import Targets
from ingest.http.responses import Answer, cors_headers, fast_answers, no_store
from ingest.metrics import FastpathCells, NodeCollector, Slot
from ingest.shipping import publisher

HEADER_TIMEOUT_S: Final = 5.0
DRAIN_S: Final = 1.5
LAST_PUBLISH_S: Final = 1.5

log = logging.getLogger("clickmill.ingest")


class Backend:
    """What the app asks of the publisher and the metrics."""

    def __init__(self, publishing: publisher.Publisher, meters_dir: Path) -> None:
        self._publishing = publishing
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(NodeCollector(meters_dir))
        self._registry.register(BuildInfo())

    async def stats(self, request: wire.StatsRequest) -> Answer:
        """As `Publisher.stats`. Raises app.StatsUnavailableError."""
        try:
            return await self._publishing.stats(request)
        except publisher.NoAnswerError as error:
            raise app.StatsUnavailableError from error

    def problems(self) -> list[str]:
        """What is wrong, a sentence each."""
        return self._publishing.problems()

    def metrics(self, accept: str) -> tuple[str, bytes]:
        """(content type, text) over all workers of this node; OpenMetrics where asked for."""
        encode, kind = choose_encoder(accept)
        return kind, encode(self._registry)


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM or SIGINT; then answer, seal and publish what is left."""
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    root = Path(settings.data_dir).resolve() / "ingest"
    slot = Slot(root / "meters")
    source = _source(settings, root)
    plain = [*no_store(), *cors_headers(settings.cors_origin)]
    targets = Targets(root / "targets.json", plain)
    publishing = publisher.Publisher(
        settings.nats_url, source, root, _limits(settings), slot, targets
    )
    assert source.counters is not None
    backend = Backend(publishing, root / "meters")
    application = app.App(source.counters, slot, backend, targets.redirects, _options(settings))
    publishing.start()
    fast = _fast(settings, source, slot, targets)
    server = Server(application.__rsgi__, _listener(settings), fast)
    log.info("source %s serves on port %d", source.id, settings.port)
    heartbeat.ready()
    beating = asyncio.create_task(heartbeat.beat_forever())
    await stop.wait()
    await server.stop(DRAIN_S)
    await publishing.stop(LAST_PUBLISH_S)
    beating.cancel()


def _source(settings: Settings, root: Path) -> Source:
    elsewhere = Path(settings.counters_dir) if settings.counters_dir else None
    return Source.create(root, settings.max_banner_id + 1, settings.spool_max_bytes, elsewhere)


def _limits(settings: Settings) -> publisher.Limits:
    return publisher.Limits(
        settings.flush_interval, settings.spool_max_bytes, settings.spool_keep_seconds,
        settings.resend_after_seconds, settings.nats_max_bytes, settings.max_pending_stats,
    )  # fmt: skip


def _options(settings: Settings) -> app.Options:
    tokens = Tokens.parse(settings.stats_token)
    return app.Options(settings.cors_origin, tokens, settings.body_timeout, settings.body_max_bytes)


def _listener(settings: Settings) -> Listener:
    limit = openfiles.allow_most()
    if sentence := openfiles.too_few(limit, settings.max_connections):
        log.warning("%s", sentence)
    connections = openfiles.connections_within(limit, settings.max_connections)
    return Listener(settings.host, settings.port, HEADER_TIMEOUT_S, connections)


def _fast(
    settings: Settings, source: Source, slot: Slot, targets: Targets
) -> Callable[[Schedule], Schedule] | None:
    if not settings.fastpath:
        return None
    answers, cells = fast_answers(settings.cors_origin), FastpathCells()

    def make(hand_over: Schedule) -> Schedule:
        assert source.counters is not None
        compiled: Any = Fastpath(
            source.counters, slot.meters, hand_over, answers, targets.redirects, cells
        )
        return compiled.schedule  # type: ignore[no-any-return]

    return make


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
    logging.basicConfig(
        level=settings.log_level.upper(), format="%(levelname)s %(name)s: %(message)s"
    )
    _run_in_batches()
    uvloop.run(serve(settings))
    logging.shutdown()
    # At once: Granian's threads may still hold a connection, and a click on the way to mapped
    # memory must not find it unmapped. What it counts, an adopter finds.
    os._exit(0)
