"""The aggregator process: what is started, in which order, and how it ends.

HTTP serves from the first moment, so that `/livez` and `/readyz` can say what is missing;
Postgres and NATS are then waited for, for ever, in either order. Whatever breaks for good ends
the process: the supervisor starts another, and no frame was acknowledged too early.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import time
from collections.abc import Coroutine
from typing import Any, Final

import psycopg
from prometheus_client import CollectorRegistry

from aggregator.http.app import Deps, build_app, make_answers, make_register
from aggregator.http.server import Web
from aggregator.postgres import migrations, retention
from aggregator.readiness import Readiness
from aggregator.reading.nats_api import Responders
from aggregator.reading.queries import make_pool
from aggregator.writing.completeness import Progress
from aggregator.writing.consumer import Consumer
from aggregator.writing.leases import Leases
from aggregator.writing.metrics import Metrics, register_process
from aggregator.writing.source_status import Marks
from aggregator.writing.store import Store
from clickmill import heartbeat
from clickmill.connection import Connection
from clickmill.settings import Settings

RETRY_S: Final = 0.5
LOG_EVERY_S: Final = 10.0
GAUGES_EVERY_S: Final = 0.5
STOP_TIMEOUT_S: Final = 2.5
_QUARANTINE: Final = "SELECT count(*) FROM (SELECT FROM quarantine LIMIT 1000) AS held"

log = logging.getLogger("clickmill.aggregator")


class Service:
    """One aggregator."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._registry = CollectorRegistry()
        self._metrics = Metrics(self._registry)
        register_process(self._registry)
        self._progress = Progress()
        self._store = Store(
            settings.postgres_dsn, settings.retention_days, self._metrics.retries.inc
        )
        self._pool = make_pool(settings.postgres_dsn)
        self._connection = Connection(settings.nats_url, "clickmill-aggregator")
        self._readiness = Readiness(self._connection)
        self._stopping = asyncio.Event()
        self._failure: BaseException | None = None
        self._tasks: set[asyncio.Task[Any]] = set()
        self._consumer: Consumer | None = None
        self._leases: Leases | None = None
        self._responders: Responders | None = None
        self._through = float("nan")

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT; raises what broke, if something did."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._deps_given = self._deps()
        web = Web(build_app(self._deps_given), self._settings.host, self._settings.stats_port)
        self._watch(web.start())
        self._spawn(self._work())
        self._spawn(self._gauges())
        await self._stopping.wait()
        await self._stop(web)
        if self._failure is not None:
            raise self._failure

    def _deps(self) -> Deps:
        return Deps(
            pool=self._pool,
            progress=self._progress,
            not_ready=self._readiness.reason,
            registry=self._registry,
            stats_token=self._settings.stats_token,
            max_banner_id=self._settings.max_banner_id,
            target_changed=self._target_changed,
            stopping=self._stopping,
        )

    async def _work(self) -> None:
        """Everything behind the HTTP port, in the order in which it can be had."""
        heartbeat.ready()
        await self._pool.open(wait=False)
        self._spawn(self._connection.run())
        await self._apply_schema()
        days = retention.Days(self._settings.retention_days, self._settings.retention_rollup_days)
        self._spawn(retention.keep_maintained(self._settings.postgres_dsn, days))
        await self._connection.connected()
        given = self._deps_given
        self._responders = Responders(self._connection, make_answers(given), make_register(given))
        await self._responders.start()
        await self._consume()

    async def _target_changed(self, banner_id: int, target: str | None) -> None:
        """Workers are told while there is a connection; otherwise they ask, soon."""
        if self._responders is not None:
            await self._responders.tell(banner_id, target)

    async def _apply_schema(self) -> None:
        complaint_due = 0.0
        while True:
            try:
                await migrations.apply_schema(self._settings.postgres_dsn)
                self._readiness.schema = True
                log.info("Postgres: schema applied")
                return
            except (migrations.SchemaTooNewError, psycopg.Error, OSError, TimeoutError) as error:
                self._readiness.schema_error(error)
                if time.monotonic() >= complaint_due:
                    complaint_due = time.monotonic() + LOG_EVERY_S
                    text = str(error).strip().partition("\n")[0] or type(error).__name__
                    log.warning("Postgres: %s; trying again until it answers", text)
                await asyncio.sleep(RETRY_S)

    async def _consume(self) -> None:
        consumer = self._consumer = Consumer(
            self._connection, self._store, self._progress, self._metrics,
            self._settings.nats_max_bytes,
        )  # fmt: skip
        self._readiness.shards_in_trouble = lambda: consumer.trouble
        self._leases = leases = Leases(
            self._settings.postgres_dsn,
            consumer.take,
            consumer.drop,
            self._round,
            self._lost,
            self._readiness.can_pull,
        )
        self._marks = Marks(self._connection, self._progress, leases, consumer.close_source)
        await self._marks.start()
        await consumer.start()
        self._spawn(consumer.run())
        self._spawn(leases.run())

    async def _round(self, connection: Any, first: bool, alone: bool) -> None:
        await self._marks.round(connection, first, alone)
        row = await (await connection.execute(_QUARANTINE)).fetchone()
        self._metrics.quarantine_waiting.set(row[0] if row else 0)
        self._readiness.postgres_seen()

    def _lost(self) -> None:
        self._readiness.postgres_lost()
        self._progress.forget()

    async def _gauges(self) -> None:
        """Signs of life for the supervisor, figures for the metrics."""
        self._spawn(heartbeat.send_forever())
        metrics, progress = self._metrics, self._progress
        while True:
            self._freshness()
            metrics.sources_live.set(progress.sources_live)
            metrics.sources_silent.set(progress.sources_silent)
            metrics.nats_up.set(self._readiness.nats_ok)
            metrics.postgres_up.set(self._readiness.postgres_ok)
            if self._leases is not None and self._consumer is not None:
                metrics.shards.set(len(self._leases.owned))
                metrics.members.set(self._leases.members)
                metrics.sources_newer.set(self._consumer.newer)
                metrics.buffered.set(self._consumer.buffered)
                metrics.pending.set(self._consumer.pending)
            await asyncio.sleep(GAUGES_EVERY_S)

    def _freshness(self) -> None:
        """While completeThrough is unknown, the last one known ages: it never goes back."""
        metrics, through = self._metrics, self._progress.complete_through()
        if through is not None:
            self._through = through.timestamp()
        metrics.complete_through.set(self._through)
        behind = time.time() - self._through
        metrics.freshness.set(0.0 if behind < 0 else behind)

    # --- the end --------------------------------------------------------------------------------

    async def _stop(self, web: Web) -> None:
        """Commit what is here, give the shards back, close; within about 3 s."""
        log.info("stopping")
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                if self._consumer is not None:
                    await self._consumer.stop()
        for task in list(self._tasks):
            task.cancel()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await asyncio.gather(*self._tasks, return_exceptions=True)
                await web.stop()
                await self._store.close()
                await self._pool.close(timeout=0.5)

    def _spawn(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._watch(asyncio.get_running_loop().create_task(coroutine))

    def _watch(self, task: asyncio.Task[None]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._fail(error)

    def _fail(self, error: BaseException) -> None:
        """Something broke for good: end, with this as the reason."""
        self._failure = self._failure or error
        self._stopping.set()
