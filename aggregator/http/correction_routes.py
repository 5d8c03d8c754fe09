"""The addresses of the corrections."""

from __future__ import annotations

from typing import Final

from litestar import Response, get, post

from aggregator.corrections.request import Correction, CorrectionList, parse
from aggregator.http import openapi
from aggregator.http.middleware import AnyRequest, query_of, read_body, respond_json
from aggregator.http.parts import FromParts
from aggregator.reading.banners import MAX_LISTED
from clickmill.contract import params
from clickmill.contract.params import MAX_ID_DIGITS

LIST_PARAMS: Final = frozenset({"after", "limit", "bannerID"})
MAX_ID: Final = 2**63 - 1
assert len(str(MAX_ID)) <= MAX_ID_DIGITS


@get(
    "/corrections",
    operation_class=openapi.operation(
        "corrections", (openapi.AFTER, openapi.PAGE, openapi.ONE_BANNER)
    ),
    responses=openapi.answers(CorrectionList, 400, 404, 503),
)
async def corrections_list(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """The corrections, by ascending ID, a page at a time."""
    given = query_of(request, LIST_PARAMS)
    limit = params.whole(given, "limit", "invalid_limit", 1, MAX_LISTED, MAX_LISTED)
    after = params.whole(given, "after", "invalid_after", 0, MAX_ID, 0)
    text = params.single(given, "bannerID", "invalid_banner_id")
    banner = params.banner_id(text, parts.max_banner_id) if text is not None else None
    return respond_json(await parts.ledger.page(after, limit, banner))


@post(
    "/corrections",
    status_code=201,
    operation_class=openapi.operation("corrections", body=openapi.CORRECTION_BODY),
    security=openapi.WRITES,
    responses=openapi.answers(Correction, 400, 404, 408, 413, 503, status=201),
)
async def correction_post(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """Corrects statistics, or takes a correction back; with a reason and an author."""
    query_of(request)
    return respond_json(await parts.ledger.add(parse(await read_body(request))), 201)


HANDLERS: Final = [corrections_list, correction_post]
