"""The aggregator's HTTP face: which address asks what. The asking itself is in `answers`.

`build_app(deps)` gives an ASGI application; what it needs is handed in as `Deps`, so that a test
can put its own clock or pool there.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from litestar import Litestar
from litestar.di import Provide
from litestar.exceptions import HTTPException
from litestar.types import ASGIApp
from prometheus_client import CollectorRegistry

from aggregator.corrections.ledger import Ledger
from aggregator.http import (
    banner_routes,
    correction_routes,
    openapi,
    openapi_clicks,
    pages,
    routes,
    source_routes,
)
from aggregator.http.compression import compressing
from aggregator.http.metrics import HttpMetrics
from aggregator.http.middleware import (
    Middleware,
    on_defect,
    on_framework_error,
    on_problem,
)
from aggregator.http.parts import Parts
from aggregator.reading.answers import Answers
from aggregator.reading.banners import Register
from aggregator.reading.live import Live
from aggregator.reading.live_events import Pipeline
from aggregator.reading.queries import Pool, Reader
from aggregator.reading.sharing import Sharing
from aggregator.writing.completeness import Progress
from clickmill import messages
from clickmill.contract.access import Access, Hosts
from clickmill.contract.params import MAX_BODY_BYTES
from clickmill.contract.problem import Problem
from clickmill.contract.tokens import Tokens


@dataclass(frozen=True, slots=True, kw_only=True)
class Deps:
    """What the API needs from the process around it."""

    pool: Pool
    progress: Progress
    # The reason why this aggregator is not ready, None while it is.
    not_ready: Callable[[], str | None]
    registry: CollectorRegistry
    stats_token: str = ""
    write_token: str = ""
    allowed_hosts: str = ""
    max_banner_id: int = 99_999
    # Where clicks are counted; "{host}" stands for the host that a request came to.
    click_url: str = f"http://{openapi_clicks.HOST}:8080"
    # Called after each change of the register with the ID and its target (None: no target).
    target_changed: Callable[[int, str | None], Awaitable[None]]
    # Lists sources, or gives some up.
    sources: Callable[[messages.SourcesRequest], Awaitable[messages.SourcesReply]]
    # Shares the reading between clients; the same for both ports.
    sharing: Sharing = field(default_factory=Sharing)
    # Set when the process begins to stop: open streams end, or they would hold the stop up.
    stopping: asyncio.Event = field(default_factory=asyncio.Event)


def make_answers(deps: Deps) -> Answers:
    """The statistics questions over these parts; NATS and HTTP use the same."""
    reader = Reader(deps.pool, deps.sharing)
    progress = deps.progress
    return Answers(
        reader, progress.complete_through, deps.max_banner_id, complete_but=progress.complete_but
    )


def make_register(deps: Deps) -> Register:
    """The register over these parts; NATS and HTTP use the same."""
    return Register(Reader(deps.pool, deps.sharing), deps.target_changed)


def make_ledger(deps: Deps) -> Ledger:
    """The corrections over these parts."""
    return Ledger(Reader(deps.pool), deps.progress.complete_through, deps.max_banner_id)


def pipeline_of(progress: Progress) -> Pipeline:
    """The pipeline's state as the live page shows it."""
    return Pipeline(
        completeThrough=progress.complete_through(),
        freshnessSeconds=progress.freshness_seconds(),
        sources=progress.sources_live,
        silentSources=progress.sources_silent,
    )


def build_app(deps: Deps) -> ASGIApp:
    """The ASGI application of port 8081. The pool must be open before the first request."""
    metrics = HttpMetrics(deps.registry)
    live = Live(
        Reader(deps.pool),
        deps.progress.rates,
        lambda: pipeline_of(deps.progress),
        deps.stopping,
        metrics.listeners.set,
    )
    files = pages.read_files()
    described = [
        *routes.HANDLERS,
        *banner_routes.HANDLERS,
        *correction_routes.HANDLERS,
        *source_routes.HANDLERS,
    ]
    parts = Parts(
        answers=make_answers(deps),
        register=make_register(deps),
        ledger=make_ledger(deps),
        live=live,
        not_ready=deps.not_ready,
        registry=deps.registry,
        max_banner_id=deps.max_banner_id,
        sources=deps.sources,
        files=files,
        document=functools.cache(lambda: openapi.document(described, deps.click_url)),
    )
    app = Litestar(
        route_handlers=[*described, *pages.HANDLERS],
        dependencies={"parts": Provide(lambda: parts, sync_to_thread=False)},
        exception_handlers={
            Problem: on_problem,
            HTTPException: on_framework_error,
            Exception: on_defect,
        },
        middleware=[compressing],
        request_max_body_size=MAX_BODY_BYTES,
        openapi_config=None,
        logging_config=None,
        debug=False,
    )
    return Middleware(app, _access(deps), metrics, functools.partial(pages.asking, files))


def _access(deps: Deps) -> Access:
    read, write = Tokens.parse(deps.stats_token), Tokens.parse(deps.write_token)
    return Access(read, write, Hosts.parse(deps.allowed_hosts))
