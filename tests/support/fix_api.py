"""Fixture `api`: the aggregator's HTTP application on Granian over a real database.

One server for all tests that only read or use banners of their own; `open_api` starts one with
other settings. Figures are put straight into the tables, minutes and rollups alike; that the
writer does the same is a matter of its own tests and of the rollup test.
"""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, TypeVar
from uuid import uuid4

import httpx
import psycopg
import pytest
from prometheus_client import CollectorRegistry

from aggregator.http.app import Deps, build_app, make_answers, make_register
from aggregator.http.server import Web
from aggregator.postgres import migrations
from aggregator.reading import queries
from aggregator.writing.completeness import Progress
from aggregator.writing.fold import Mark
from clickmill.messages import SourcesReply, SourcesRequest, SourceStatus
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import status
from tests.support.ports import free_port
from tests.support.wait import eventually

T = TypeVar("T")
Minutes = Mapping[tuple[int, int], int]
_names = itertools.count(1)
TABLES = (
    ("banner_minute", "minute", 60), ("rollup_quarter", "quarter", 900),
    ("rollup_hour", "hour", 3_600), ("rollup_day", "day", 86_400),
)  # fmt: skip
START_SECONDS = 20
STOP_SECONDS = 20


class Api:
    """The application in a thread with a loop of its own. `told`: targets that were broadcast."""

    def __init__(self, dsn: str, **settings: Any) -> None:
        self.dsn = dsn
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.settings = settings
        self.not_ready: str | None = None
        self.told: list[tuple[int, str | None]] = []
        self.progress = Progress()
        self.registry = CollectorRegistry()
        self.client = httpx.Client(base_url=self.url, timeout=20)
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._serve, name="api")

    def start(self) -> None:
        self.progress.reload({}, new_session=True)
        self._thread.start()
        eventually(lambda: status(self.url + "/livez") == 200, START_SECONDS)

    def stop(self) -> None:
        if not self._thread.is_alive():
            return
        self.client.close()
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_SECONDS)
        assert not self._thread.is_alive(), "the server did not stop"

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """The result of a coroutine in the server's loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(30)

    def call(self, function: Callable[[], None]) -> None:
        """Calls it in the server's loop."""

        async def called() -> None:
            function()

        self.run(called())

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._main())
        self._loop.close()

    async def _told(self, banner: int, target: str | None) -> None:
        self.told.append((banner, target))

    async def _no_sources(self, _: SourcesRequest) -> SourcesReply:
        return SourcesReply()

    async def _main(self) -> None:
        await migrations.apply_schema(self.dsn)
        self.pool = queries.make_pool(self.dsn)
        self.deps = Deps(
            pool=self.pool,
            progress=self.progress,
            not_ready=lambda: self.not_ready,
            registry=self.registry,
            target_changed=self._told,
            **({"sources": self._no_sources} | self.settings),
        )
        self.answers = make_answers(self.deps)
        self.register = make_register(self.deps)
        async with self.pool:
            web = Web(build_app(self.deps), "127.0.0.1", self.port)
            serving = asyncio.create_task(web.serve())
            await self._stop.wait()
            self.deps.stopping.set()
            serving.cancel()
            await asyncio.wait({serving})

    def get(self, path: str, **params: Any) -> httpx.Response:
        return self.client.get(path, params=params)

    def put(self, minutes: Minutes) -> None:
        """Clicks by (banner, minute as Unix seconds), into minutes and rollups.

        They come from a source that leaves no trace: it is heard of, delivers, and closes.
        """
        put_minutes(self.dsn, minutes)
        self.call(lambda: self._committed(sum(minutes.values())))

    def _committed(self, clicks: int) -> None:
        source = uuid4()
        self.progress.heard(SourceStatus(source, 0, time.time_ns(), False))
        self.progress.committed({source: Mark(1, clicks, time.time_ns(), closed=True)})

    def put_range(self, banner: int, first: int, clicks: list[int]) -> None:
        self.put({(banner, first + 60 * n): v for n, v in enumerate(clicks) if v})


def put_minutes(dsn: str, minutes: Minutes) -> None:
    """Adds clicks to minutes and rollups. Answers read the rollups up to their mark alone."""
    rows = [(banner, at, v) for (banner, at), v in minutes.items()]
    ids, moments, clicks = (list(column) for column in zip(*rows, strict=True))
    with psycopg.connect(dsn, options="-c timezone=UTC") as connection:
        for day in {at // 86_400 for at in moments}:
            connection.execute(
                "SELECT clickmill_make_partition(to_timestamp(%s)::date)", [day * 86_400]
            )
        for table, unit, size in TABLES:
            connection.execute(
                f"INSERT INTO {table} AS t"
                " SELECT id, to_timestamp(at / %(size)s * %(size)s), sum(v) FROM"
                " unnest(%(ids)s::int[], %(at)s::bigint[], %(v)s::bigint[]) AS n (id, at, v)"
                f" GROUP BY 1, 2 ON CONFLICT (banner_id, {unit})"
                " DO UPDATE SET clicks = t.clicks + excluded.clicks".encode(),
                {"size": size, "ids": ids, "at": moments, "v": clicks},
            )


def check_error(answer: Any, status: int, code: str) -> str:
    """The answer is this error, in the one shape that errors have; its sentence."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert set(body) == {"error", "code"}
    assert body["code"] == code
    assert answer.headers["content-type"] == "application/json"
    return str(body["error"])


@contextmanager
def serve(postgres_server: PostgresServer, **settings: Any) -> Iterator[Api]:
    name = f"api_{next(_names)}"
    api = Api(postgres_server.make_database(name), **settings)
    api.start()
    try:
        yield api
    finally:
        api.stop()
        postgres_server.drop_database(name)


@pytest.fixture(scope="session")
def api(postgres_server: PostgresServer) -> Iterator[Api]:
    with serve(postgres_server) as running:
        yield running


class OpenApi(Protocol):
    """`open_api(stats_token="…")`: another application, with these settings."""

    def __call__(self, **settings: Any) -> Api: ...


@pytest.fixture
def open_api(postgres_server: PostgresServer, request: pytest.FixtureRequest) -> OpenApi:
    def start(**settings: Any) -> Api:
        running = serve(postgres_server, **settings)
        api = running.__enter__()
        request.addfinalizer(lambda: running.__exit__(None, None, None))
        return api

    return start


_next_banner = itertools.count(1_000)


@pytest.fixture
def banner() -> int:
    """A banner that no other test uses."""
    return next(_next_banner)


Fetch = Callable[..., httpx.Response]
