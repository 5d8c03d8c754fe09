"""The addresses of the sources: which workers report, and giving up those of a lost machine.

What `clickmill sources` does over NATS, for whoever has the write token and no access to NATS.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Final
from uuid import UUID

import msgspec
from litestar import Response, get, post
from msgspec import Meta

from aggregator.http import openapi
from aggregator.http.middleware import AnyRequest, query_of, read_body, respond_json
from aggregator.http.parts import FromParts
from aggregator.reading.banners import check_name
from clickmill import messages
from clickmill.contract import params
from clickmill.contract.problem import bad

EXAMPLE: Final = '{"source": "web-3", "by": "alice"}'


class Source(msgspec.Struct, frozen=True):
    """A worker's source that is not closed."""

    source: UUID
    node: Annotated[str, Meta(description="its machine; empty: not known")]
    lastSeen: datetime  # noqa: N815
    lastFrame: Annotated[int, Meta(ge=0, description="of those committed")]  # noqa: N815
    completeThrough: datetime | None  # noqa: N815
    silent: Annotated[bool, Meta(description="no heartbeat came for 10 s")]


class SourceList(msgspec.Struct, frozen=True):
    """Open sources, or those that were given up."""

    sources: list[Source]


def _moment(seconds: float) -> datetime:
    return datetime.fromtimestamp(int(seconds), UTC)


def _answer(reply: messages.SourcesReply) -> Response[bytes]:
    rows = [
        Source(
            row.source, row.node, _moment(row.last_seen), row.last_seq,
            _moment(row.complete_through) if row.complete_through else None, row.silent,
        )
        for row in reply.sources
    ]  # fmt: skip
    return respond_json(SourceList(rows))


@get(
    "/sources",
    operation_class=openapi.operation("sources"),
    responses=openapi.answers(SourceList, 400, 503),
)
async def sources_list(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """The workers that report."""
    query_of(request)
    return _answer(await parts.sources(messages.SourcesRequest()))


@post(
    "/sources/give-up",
    status_code=200,
    operation_class=openapi.operation("sources", body=openapi.GIVE_UP_BODY),
    security=openapi.WRITES,
    responses=openapi.answers(SourceList, 400, 403, 404, 408, 409, 413, 503),
)
async def sources_give_up(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """Closes the sources of a machine that is lost for good, and writes down who said so."""
    query_of(request)
    given = params.texts(await read_body(request), ("source", "by"), EXAMPLE)
    source, by = given.get("source"), given.get("by")
    if not source or not by:
        raise bad("invalid_body", f"source and by are both needed, as in {EXAMPLE}")
    return _answer(await parts.sources(messages.SourcesRequest(source, check_name(by))))


HANDLERS: Final = [sources_list, sources_give_up]
