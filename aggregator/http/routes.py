"""The addresses of the statistics and of the process itself: request → question → answer."""

from __future__ import annotations

from typing import Final

import msgspec
from litestar import Response, get, post
from litestar.params import FromPath
from litestar.response import Stream

from aggregator.http import openapi
from aggregator.http.metrics import expose
from aggregator.http.middleware import AnyRequest, read_body, respond
from aggregator.http.parts import FromParts, Parts
from aggregator.reading.formats import Answer, ManyBanners, OneBanner, TopList
from aggregator.reading.sharing import asker
from clickmill.contract import params
from clickmill.contract.problem import unavailable

# Proxies that gather an answer before they hand it on would turn "live" into "in a minute".
NOT_BUFFERED: Final = {"X-Accel-Buffering": "no"}
# The errors of a request for one banner.
_ASKED: Final = (400, 404, 408, 413, 503)
_PROCESS: Final = openapi.operation("process")
_ALIVE: Final = Answer(200, "application/json", b'{"status":"alive"}')
_READY: Final = Answer(200, "application/json", b'{"status":"ready"}')


class Status(msgspec.Struct, frozen=True):
    """A word about the process."""

    status: str


def _query(request: AnyRequest) -> dict[str, list[str]]:
    return params.from_query(request.scope["query_string"])


@get(
    "/stats/{banner_id:str}",
    operation_class=openapi.operation("statistics", openapi.SERIES, tables=True),
    responses=openapi.answers(OneBanner, *_ASKED),
)
async def stats_get(
    banner_id: FromPath[str], request: AnyRequest, parts: FromParts
) -> Response[bytes]:
    """Statistics of one banner."""
    return await _one(banner_id, request, parts)


@post(
    "/stats/{banner_id:str}",
    status_code=200,
    operation_class=openapi.operation("statistics", body=openapi.STATS_BODY, tables=True),
    responses=openapi.answers(OneBanner, *_ASKED),
)
async def stats_post(
    banner_id: FromPath[str], request: AnyRequest, parts: FromParts
) -> Response[bytes]:
    """Statistics of one banner, with the range in a JSON body."""
    return await _one(banner_id, request, parts)


async def _one(banner_id: str, request: AnyRequest, parts: Parts) -> Response[bytes]:
    body = await read_body(request)
    return respond(await parts.answers.one(banner_id, request.scope["query_string"], body))


@get(
    "/stats",
    operation_class=openapi.operation("statistics", openapi.MANY, tables=True),
    responses=openapi.answers(ManyBanners, 400, 404, 503),
)
async def stats_many(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """Statistics of several banners, or of all, in one answer."""
    return respond(await parts.answers.many(_query(request)))


@get(
    "/top",
    operation_class=openapi.operation("statistics", openapi.TOP, tables=True),
    responses=openapi.answers(TopList, 400, 503),
)
async def top(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """The banners with most clicks in a range."""
    return respond(await parts.answers.top(_query(request)))


@get("/livez", operation_class=_PROCESS, responses=openapi.answers(Status))
async def livez() -> Response[bytes]:
    """Whether the process lives."""
    return respond(_ALIVE)


@get("/readyz", operation_class=_PROCESS, responses=openapi.answers(Status, 503))
async def readyz(parts: FromParts) -> Response[bytes]:
    """Whether it can do its work; 503 and the reason while it can't."""
    reason = parts.not_ready()
    if reason is not None:
        raise unavailable("not_ready", reason)
    return respond(_READY)


@get("/metrics", operation_class=_PROCESS, responses=openapi.answers(str, media_type="text/plain"))
async def metrics(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """Metrics for Prometheus."""
    text, content_type = expose(parts.registry, request.headers.get("accept", ""))
    return respond(Answer(200, content_type, text))


@get(
    "/live",
    operation_class=openapi.operation("statistics"),
    responses=openapi.answers(str, 429, media_type="text/event-stream"),
)
async def live(parts: FromParts) -> Stream:
    """Server-sent events, one a second: clicks per second in all and by banner."""
    return Stream(
        parts.live.listen(asker.get()), media_type="text/event-stream", headers=NOT_BUFFERED
    )


HANDLERS: Final = [stats_get, stats_post, stats_many, top, live, livez, readyz, metrics]
