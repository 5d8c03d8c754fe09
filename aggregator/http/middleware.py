"""What every request passes, in and out: token, body limits, error shape, headers, metrics.

One ASGI layer around the framework and the handlers for its errors, so that no answer of this
port, whoever gives it, has another shape than the contract's.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

from litestar import Litestar, Request, Response
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException, InternalServerException
from litestar.types import ASGIApp, Message, Method, Receive, Scope, Send
from litestar.utils import normalize_path

from aggregator.http.auth import OPEN_PATHS, OPEN_PREFIX, unauthorized
from aggregator.http.metrics import OTHER, HttpMetrics
from aggregator.reading.errors import RefusedError, bad
from aggregator.reading.formats import JSON, Answer
from clickmill.tokens import Tokens

MAX_BODY_BYTES: Final = 65_536
BODY_TIMEOUT_S: Final = 2.0
LIVE_PATH: Final = "/live"

HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
METHODS: Final[tuple[Method, ...]] = ("GET", "POST", "PUT", "DELETE")
_RAW_HEADERS: Final = [(k.lower().encode(), v.encode()) for k, v in HEADERS.items()]

_CODES: Final = {
    HTTPStatus.NOT_FOUND: ("not_found", "there is nothing at this address: see /docs"),
    HTTPStatus.METHOD_NOT_ALLOWED: (
        "method_not_allowed",
        "this address does not take that method: see the Allow header and /docs",
    ),
    HTTPStatus.REQUEST_ENTITY_TOO_LARGE: (
        "body_too_large",
        f"the body is too large: at most {MAX_BODY_BYTES:,} bytes",
    ),
}

log = logging.getLogger("clickmill.middleware")
AnyRequest = Request[Any, Any, Any]


def respond(answer: Answer) -> Response[bytes]:
    """An Answer as the framework's response."""
    return Response(
        answer.body,
        status_code=answer.status,
        media_type=answer.content_type,
        # As a header, for the framework would add a second charset to it.
        headers={**answer.headers, "content-type": answer.content_type},
    )


def refuse(refusal: RefusedError, headers: dict[str, str] | None = None) -> Response[bytes]:
    """A refusal as the framework's response."""
    headers = dict(headers or {})
    if refusal.status == HTTPStatus.UNAUTHORIZED:
        headers["WWW-Authenticate"] = "Bearer"
    if refusal.retry:
        headers["Retry-After"] = "2"
    return respond(Answer(refusal.status, JSON, refusal.body, headers))


def on_refusal(_: AnyRequest, refusal: RefusedError) -> Response[bytes]:
    """Handler of our own refusals."""
    return refuse(refusal)


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
    refusal = RefusedError(HTTPStatus.NOT_FOUND, *_CODES[HTTPStatus.NOT_FOUND])
    if allow:
        await send_plain(send, 204, [(b"allow", allow.encode())], b"")
    else:
        await send_plain(send, refusal.status, [(b"content-type", JSON.encode())], refusal.body)


def on_framework_error(request: AnyRequest, error: HTTPException) -> Response[bytes]:
    """Handler of the framework's errors: same shape, same kind of sentence."""
    status = HTTPStatus(error.status_code)
    default = ("invalid_request", f"the request can't be understood ({error.detail}): see /docs")
    code, sentence = _CODES.get(status, default)
    refusal = RefusedError(status, code, sentence)
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        return refuse(refusal, {"Allow": _allowed_methods(request.app, request.scope["path"])})
    return refuse(refusal)


def on_defect(request: AnyRequest, error: Exception) -> Response[bytes]:
    """Handler of what must not happen: told in the log, not to the client."""
    log.error("%s %s failed", request.method, request.scope.get("path_template"), exc_info=error)
    sentence = "this is a defect of ours: the log of the aggregator says more"
    return refuse(RefusedError(HTTPStatus.INTERNAL_SERVER_ERROR, "internal_error", sentence))


async def read_body(request: AnyRequest) -> bytes:
    """The request's body, at most MAX_BODY_BYTES, waited for at most BODY_TIMEOUT_S."""
    try:
        async with asyncio.timeout(BODY_TIMEOUT_S):
            return await request.body()
    except InternalServerException:  # the framework's word for a client that went away
        raise bad("body_cut", "the body ended before its Content-Length: send all of it") from None
    except TimeoutError:
        sentence = f"the body did not arrive within {BODY_TIMEOUT_S:g} s: send it at once"
        raise RefusedError(HTTPStatus.REQUEST_TIMEOUT, "body_timeout", sentence) from None


class Door:
    """The layer around the application: asks for the token, adds headers, counts requests."""

    def __init__(self, app: Litestar, tokens: Tokens, metrics: HttpMetrics, gate: ASGIApp) -> None:
        self._app = app
        self._tokens = tokens
        self._metrics = metrics
        self._gate = gate

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """ASGI: requests go through the door, everything else straight on."""
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

        if not self._allowed(scope):
            await self._gate(scope, receive, send_on)
        elif scope["method"] == "OPTIONS":
            await _options(self._app, scope, send_on)
        else:
            await self._app(scope, receive, send_on)
        route = str(scope.get("path_template") or OTHER)
        if route != LIVE_PATH:
            seconds = time.perf_counter() - began
            self._metrics.observe(scope["method"], route, status, seconds)

    def _allowed(self, scope: Scope) -> bool:
        path = scope["path"]
        if not self._tokens or path in OPEN_PATHS or path.startswith(OPEN_PREFIX):
            return True
        given = [value for name, value in scope["headers"] if name.lower() == b"authorization"]
        return self._tokens.allow(given)


async def send_plain(
    send: Send, status: int, headers: list[tuple[bytes, bytes]], body: bytes
) -> None:
    """ASGI: a whole answer without the framework."""
    length = [(b"content-length", str(len(body)).encode())] if status != 204 else []
    start: Any = {"type": "http.response.start", "status": status, "headers": headers + length}
    await send(start)
    await send({"type": "http.response.body", "body": body, "more_body": False})


def closed_gate(page: Callable[[str], Answer | None]) -> ASGIApp:
    """ASGI application: the answer to whoever has no token.

    `page` gives the page that asks for the token, for the paths that have one.
    """

    async def gate(scope: Scope, _: Receive, send: Send) -> None:
        refusal = unauthorized()
        answer = Answer(refusal.status, JSON, refusal.body, {"www-authenticate": "Bearer"})
        if _wants_html(scope):
            answer = page(scope["path"]) or answer
        headers = {**answer.headers, "content-type": answer.content_type}
        raw = [(name.lower().encode(), value.encode()) for name, value in headers.items()]
        await send_plain(send, answer.status, raw, answer.body)

    return gate


def _wants_html(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/html" in value for name, value in scope["headers"])
