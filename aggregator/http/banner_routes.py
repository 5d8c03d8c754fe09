"""The addresses of the register of banners."""

from __future__ import annotations

from typing import Final

from litestar import Response, delete, get, patch, put
from litestar.params import FromPath

from aggregator.http import openapi
from aggregator.http.middleware import AnyRequest, query_of, read_body, respond_json
from aggregator.http.parts import FromParts, Parts
from aggregator.reading.banners import (
    MAX_LISTED,
    Banner,
    BannerList,
    Register,
    parse_change,
    parse_entry,
)
from clickmill.contract import params

LIST_PARAMS: Final = frozenset({"after", "limit"})
MAX_ID: Final = 2**31 - 1


def _register(parts: Parts, text: str, request: AnyRequest) -> tuple[Register, int]:
    query_of(request)
    return parts.register, params.banner_id(text, parts.max_banner_id)


@get(
    "/banners",
    operation_class=openapi.operation("register", (openapi.AFTER, openapi.PAGE)),
    responses=openapi.answers(BannerList, 400, 503),
)
async def banners_list(request: AnyRequest, parts: FromParts) -> Response[bytes]:
    """The register, by ascending ID, a page at a time."""
    given = query_of(request, LIST_PARAMS)
    limit = params.whole(given, "limit", "invalid_limit", 1, MAX_LISTED, MAX_LISTED)
    after = params.whole(given, "after", "invalid_after", 0, MAX_ID, -1)
    return respond_json(await parts.register.page(after, limit))


@get(
    "/banners/{banner_id:str}",
    operation_class=openapi.operation("register"),
    responses=openapi.answers(Banner, 400, 404, 503),
)
async def banner_get(
    banner_id: FromPath[str], request: AnyRequest, parts: FromParts
) -> Response[bytes]:
    """One banner's name and target."""
    register, number = _register(parts, banner_id, request)
    return respond_json(await register.get(number))


@put(
    "/banners/{banner_id:str}",
    operation_class=openapi.operation("register", body=openapi.ENTRY_BODY),
    security=openapi.WRITES,
    responses=openapi.answers(Banner, 400, 404, 408, 413, 503),
)
async def banner_put(
    banner_id: FromPath[str], request: AnyRequest, parts: FromParts
) -> Response[bytes]:
    """Registers a banner, or replaces its entry; workers redirect to the target at once."""
    register, number = _register(parts, banner_id, request)
    entry = parse_entry(await read_body(request))
    return respond_json(await register.put(number, entry))


@patch(
    "/banners/{banner_id:str}",
    operation_class=openapi.operation("register", body=openapi.ENTRY_BODY),
    security=openapi.WRITES,
    responses=openapi.answers(Banner, 400, 404, 408, 413, 503),
)
async def banner_patch(
    banner_id: FromPath[str], request: AnyRequest, parts: FromParts
) -> Response[bytes]:
    """Changes the name or the target of a registered banner; null removes it."""
    register, number = _register(parts, banner_id, request)
    change = parse_change(await read_body(request))
    return respond_json(await register.patch(number, change))


@delete(
    "/banners/{banner_id:str}",
    status_code=204,
    operation_class=openapi.operation("register"),
    security=openapi.WRITES,
    responses=openapi.answers(None, 400, 404, 503, status=204),
)
async def banner_delete(banner_id: FromPath[str], request: AnyRequest, parts: FromParts) -> None:
    """Takes a banner out of the register; its clicks stay."""
    register, number = _register(parts, banner_id, request)
    await register.delete(number)


HANDLERS: Final = [banners_list, banner_get, banner_put, banner_patch, banner_delete]
