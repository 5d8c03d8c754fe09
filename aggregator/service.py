"""The aggregator process: what is started, in which order, and how it ends.

HTTP serves from the first moment, so that `/livez` and `/readyz` can say what is missing. Postgres
and NATS are then waited for, forever, in either order. An error that no part expected ends the
process: the supervisor starts another, and no frame was acknowledged too early.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from functools import partial
from typing import Final

import psycopg
from prometheus_client import CollectorRegistry

from aggregator.http.app import Deps, build_app, make_answers, make_register
from aggregator.http.server import Web
from aggregator.postgres import migrations, pooler, retention
from aggregator.readiness import Readiness
from aggregator.reading.nats_api import NatsApi, announce_target
from aggregator.reading.queries import make_pool
from aggregator.rounds import Rounds
from aggregator.status import Status
from aggregator.writing.completeness import Progress
from aggregator.writing.consumer import Consumer
from aggregator.writing.metrics import Metrics, register_process
from aggregator.writing.rollup import keep_rolled_up
from aggregator.writing.source_status import SourceReports
from aggregator.writing.sources import Sources
from aggregator.writing.store import Store
from clickmill import heartbeat
from clickmill.connection import Connection
from clickmill.retry import Backoff, Throttle, first_line
from clickmill.settings import Settings
from clickmill.stream import StreamOptions

GAUGES_EVERY_S: Final = 0.5
STOP_TIMEOUT_S: Final = 2.5

log = logging.getLogger("clickmill.aggregator")


class Service:
    """One aggregator. Made inside the event loop that runs it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._stopping = asyncio.Event()
        self._through = float("nan")
        registry = CollectorRegistry()
        register_process(registry)
        self._metrics = Metrics(registry)
        self._progress = Progress()
        self._pool = make_pool(settings.postgres_dsn)
        self._connection = Connection(settings.nats_url, "clickmill-aggregator")
        self._store = Store(
            settings.postgres_dsn, settings.retention_days, self._metrics.retries.inc
        )
        self._consumer = Consumer(
            self._connection, self._store, self._progress, self._metrics,
            StreamOptions.of(settings), settings.commit_interval_max,
        )  # fmt: skip
        self._readiness = Readiness(self._connection, self._consumer)
        self._reports = SourceReports(
            self._connection, self._progress, self._consumer, self._metrics.returned.inc
        )
        self._sources = Sources(self._connection, self._progress, settings.postgres_dsn)
        self._status = Status(
            self._connection, self._readiness.reason, lambda: self._consumer.newer,
            self._reports.shared_names,
        )  # fmt: skip
        self._rounds = Rounds(
            settings.postgres_dsn, self._consumer, self._reports, self._progress, self._metrics,
            self._readiness,
        )  # fmt: skip
        deps = self._deps(registry)
        self._nats_api = NatsApi(
            self._connection, make_answers(deps), make_register(deps), self._pool
        )
        self._web = Web(build_app(deps), settings.stats_host, settings.stats_port)

    def _deps(self, registry: CollectorRegistry) -> Deps:
        return Deps(
            pool=self._pool,
            progress=self._progress,
            not_ready=self._readiness.reason,
            registry=registry,
            stats_token=self._settings.stats_token,
            write_token=self._settings.write_token,
            allowed_hosts=f"{self._settings.allowed_hosts},{self._settings.stats_host}",
            max_banner_id=self._settings.max_banner_id,
            click_url=self._settings.click_address,
            target_changed=partial(announce_target, self._connection),
            stopping=self._stopping,
            sources=self._sources.answer,
        )

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises what broke, if something did."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        work = loop.create_task(self._work())
        signalled = loop.create_task(self._stopping.wait())
        await asyncio.wait({work, signalled}, return_when=asyncio.FIRST_COMPLETED)
        await self._stop(work)
        if not work.cancelled() and work.done():
            work.result()

    async def _work(self) -> None:
        """Everything that runs until the end. Where one task fails the others are cancelled."""
        settings, dsn = self._settings, self._settings.postgres_dsn
        days = retention.Days(settings.retention_days, settings.retention_rollup_days)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._web.serve())
            tasks.create_task(heartbeat.send_forever())
            tasks.create_task(self._update_gauges())
            heartbeat.ready()
            await self._pool.open(wait=False)
            tasks.create_task(self._connection.run())
            await self._status.start()
            await self._apply_schema()
            tasks.create_task(retention.keep_maintained(dsn, days))
            tasks.create_task(keep_rolled_up(dsn, self._progress.complete_through))
            await self._connection.connected()
            await self._nats_api.start()
            await self._reports.start()
            await self._sources.start()
            await self._consumer.start()
            tasks.create_task(self._consumer.run())
            tasks.create_task(self._rounds.run())

    async def _apply_schema(self) -> None:
        backoff, throttle = Backoff(), Throttle()
        while True:
            try:
                await pooler.refuse_transaction_mode(self._settings.postgres_dsn)
                await migrations.apply_schema(self._settings.postgres_dsn)
            except (migrations.SchemaError, psycopg.Error, OSError, TimeoutError) as error:
                self._readiness.schema_error(error)
                if throttle.allows(time.monotonic()):
                    log.warning("Postgres: %s; trying again until it answers", first_line(error))
                await asyncio.sleep(backoff.pause())
            else:
                self._readiness.schema = True
                log.info("Postgres: schema applied")
                return

    async def _update_gauges(self) -> None:
        metrics, progress, consumer = self._metrics, self._progress, self._consumer
        while True:
            self._update_freshness()
            metrics.sources_live.set(progress.sources_live)
            metrics.sources_silent.set(progress.sources_silent)
            metrics.nats_up.set(self._readiness.nats_ok)
            metrics.postgres_up.set(self._readiness.postgres_ok)
            metrics.shards.set(len(consumer.shards))
            metrics.sources_newer.set(consumer.newer)
            metrics.buffered.set(consumer.buffered)
            metrics.pending.set(consumer.pending)
            await asyncio.sleep(GAUGES_EVERY_S)

    def _update_freshness(self) -> None:
        """While completeThrough is unknown, the last one known ages: it never goes back."""
        metrics, through = self._metrics, self._progress.complete_through()
        if through is not None:
            self._through = through.timestamp()
        metrics.complete_through.set(self._through)
        behind = time.time() - self._through
        metrics.freshness.set(0.0 if behind < 0 else behind)

    async def _stop(self, work: asyncio.Task[None]) -> None:
        """Commit what is here, give the shards up, close; within about 5 s."""
        log.info("stopping")
        self._stopping.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if not work.done():
                    await self._consumer.stop()
        work.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await asyncio.wait({work})
                await self._store.close()
                await self._pool.close(timeout=0.5)
