"""Middleware of the statistics port: who may ask, body limits, error shape, headers, metrics.

One ASGI layer around the framework and the handlers for its errors, so that every response of this
port has the shape of the contract.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Collection
from http import HTTPStatus
from typing import Any, Final

import msgspec
from litestar import Litestar, Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, InternalServerException
from litestar.response import Stream
from litestar.types import HTTPScope, Message, Method, Receive, Scope, Send
from litestar.utils import normalize_path

from aggregator.http.metrics import OTHER, HttpMetrics
from aggregator.reading.formats import JSON, Answer
from aggregator.reading.sharing import asker
from clickmill.contract import params
from clickmill.contract.access import Access, Caller, is_of_a_proxy
from clickmill.contract.params import MAX_BODY_BYTES
from clickmill.contract.problem import Problem, body_cut, body_timeout, body_too_large

BODY_TIMEOUT_S: Final = 2.0
LIVE_PATH: Final = "/live"
# Answered without a token: what a load balancer asks.
OPEN_PATHS: Final = frozenset({"/livez", "/readyz"})
# Files of the pages: the same for everyone, without statistics; the token form needs them.
OPEN_PREFIX: Final = "/page/"
READING_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# A POST there only reads: the range of a statistics request may be in its body.
READING_POSTS: Final = "/stats/"

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
METHODS: Final[tuple[Method, ...]] = ("GET", "POST", "PUT", "PATCH", "DELETE")
_RAW_HEADERS: Final = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]

_TOO_LARGE: Final = body_too_large(MAX_BODY_BYTES)
_CODES: Final = {
    HTTPStatus.NOT_FOUND: ("not_found", "there is nothing at this address: see /docs"),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "this address does not take that method: see the Allow header and /docs",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (_TOO_LARGE.code, _TOO_LARGE.sentence),
}

log = logging.getLogger("clickmill.middleware")
AnyRequest = Request[Any, Any, Any]


def respond(answer: Answer) -> Response[Any]:
    """An Answer as the framework's response."""
    # The type as a header, for the framework would add a second charset to it.
    headers = {**answer.headers, "content-type": answer.content_type}
    if answer.rest is not None:
        pages = _joined(answer.body, answer.rest)
        return Stream(pages, media_type=answer.content_type, headers=headers)
    return Response(
        answer.body, status_code=answer.status, media_type=answer.content_type, headers=headers
    )


def respond_json(value: msgspec.Struct, status: int = 200) -> Response[Any]:
    """A value as JSON."""
    return respond(Answer(status, JSON, msgspec.json.encode(value)))


def query_of(request: AnyRequest, known: Collection[str] = ()) -> dict[str, list[str]]:
    """The parameters of the query. Raises Problem for one that is not `known`."""
    given = params.from_query(request.scope["query_string"])
    params.check_names(given, known)
    return given


async def _joined(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for page in rest:
        yield page


def on_problem(_: AnyRequest, problem: Problem) -> Response[bytes]:
    """Handler of the contract's own errors."""
    return respond(Answer(problem.status, JSON, problem.body, dict(problem.headers)))


def _allowed_methods(app: Litestar, path: str) -> str:
    """The Allow header of a path: the methods for which it has a handler."""
    allowed = []
    for method in METHODS:
        with contextlib.suppress(HTTPException):
            app.asgi_router.handle_routing(path=normalize_path(path), method=method)
            allowed.append(method)
    return ", ".join([*allowed, "OPTIONS"]) if allowed else ""


async def _options(app: Litestar, scope: Scope, send: Send) -> None:
    """ASGI: the answer to OPTIONS; no other origin is invited to read statistics."""
    allow = _allowed_methods(app, scope["path"])
    if allow:
        await send_plain(send, 204, [(b"allow", allow.encode())], b"")
    else:
        missing = Problem(HTTPStatus.NOT_FOUND, *_CODES[HTTPStatus.NOT_FOUND])
        await send_plain(send, missing.status, [(b"content-type", JSON.encode())], missing.body)


def on_framework_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Handler of the framework's errors: same shape, same kind of sentence."""
    status = HTTPStatus(error.status_code)
    default = ("invalid_request", f"the request can't be understood ({error.detail}): see /docs")
    code, sentence = _CODES.get(status, default)
    headers = []
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers = [("Allow", _allowed_methods(request.app, request.scope["path"]))]
    return on_problem(request, Problem(status, code, sentence, headers))


def on_defect(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Handler of what must not happen: told in the log, not to the client."""
    log.error("%s %s failed", request.method, request.scope.get("path_template"), exc_info=error)
    sentence = "this is a defect of ours: the log of the aggregator says more"
    problem = Problem(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", sentence)
    return on_problem(request, problem)


async def read_body(request: AnyRequest) -> bytes:
    """The request's body, at most MAX_BODY_BYTES, waited for at most BODY_TIMEOUT_S."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.body()
    except InternalServerException:  # the framework's word for a client that went away
        raise body_cut() from None
    except TimeoutError:
        raise body_timeout(BODY_TIMEOUT_S) from None


class Middleware:
    """The layer around the application: checks who asks, adds headers, counts requests."""

    def __init__(
        self, app: Litestar, access: Access, metrics: HttpMetrics,
        page: Callable[[str], Answer | None],
    ) -> None:  # fmt: skip
        """`page` gives the page that asks for the token, for the paths that have one."""
        self._app, self._access, self._metrics, self._page = app, access, metrics, page

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: HTTP requests pass through here, everything else goes straight on."""
        if scope["type"] != ScopeType.HTTP:
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        status = 0

        async def send_on(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                given = {name.lower() for name, _ in message["headers"]}
                added = [pair for pair in _RAW_HEADERS if pair[0] not in given]
                message["headers"] = [*message["headers"], *added]
            await send(message)

        if refusal := self._refusal(scope):
            await self._refuse(scope, send_on, refusal)
        elif scope["method"] == "OPTIONS":
            await _options(self._app, scope, send_on)
        else:
            await self._app(scope, receive, send_on)
        route = str(scope.get("path_template") or OTHER)
        if route != LIVE_PATH:
            seconds = time.perf_counter() - began
            self._metrics.observe(scope["method"], route, status, seconds)

    def _refusal(self, scope: HTTPScope) -> Problem | None:
        """Why this request is not answered. Everything that is not known to read writes."""
        path, caller = scope["path"], _caller_of(scope)
        asker.set(caller.client)
        refusal = self._access.host_refusal(caller)
        if refusal or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return refusal
        refusal = self._access.read_refusal(caller)
        if refusal or scope["method"] in READING_METHODS or path.startswith(READING_POSTS):
            return refusal
        return self._access.write_refusal(caller)

    async def _refuse(self, scope: HTTPScope, send: Send, problem: Problem) -> None:
        answer = Answer(problem.status, JSON, problem.body, dict(problem.headers))
        if problem.status == HTTPStatus.UNAUTHORIZED and _wants_html(scope):
            answer = self._page(scope["path"]) or answer
        headers = {**answer.headers, "content-type": answer.content_type}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send_plain(send, answer.status, raw, answer.body)


def _caller_of(scope: HTTPScope) -> Caller:
    headers: dict[str, list[bytes]] = {}
    for name, value in scope["headers"]:
        headers.setdefault(name.decode("latin-1"), []).append(value)
    peer = scope["client"]
    return Caller(
        address=peer[0] if peer else "",
        http_version=scope["http_version"],
        hosts=[value.decode("latin-1") for value in headers.get("host", [])],
        origins=[value.decode("latin-1") for value in headers.get("origin", [])],
        authorization=headers.get("authorization", []),
        is_proxied=any(map(is_of_a_proxy, headers)),
        forwarded_for=[value.decode("latin-1") for value in headers.get("x-forwarded-for", [])],
    )


async def send_plain(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """ASGI: a whole answer without the framework."""
    length = [(b"content-length", str(len(body)).encode())] if status != 204 else []
    start: Any = {"type": "http.response.start", "status": status, "headers": headers + length}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def _wants_html(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
