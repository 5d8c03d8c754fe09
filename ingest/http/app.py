"""Routes of the ingest port: request, to what is to be counted, to the answer.

This is the ordinary way, a coroutine for each request. Plain clicks are usually answered by
`_fastpath` before they get here, in the same words; a test runs every request over both ways.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final, NamedTuple

from clickmill import messages
from clickmill.batches import KeyedBatch
from clickmill.contract import params
from clickmill.contract.access import Access
from clickmill.contract.problem import Headers, Problem
from ingest._fastcount import Counters
from ingest.http import batch, keyed, script
from ingest.http.bodies import Bodies, UnreadBodyError, cut, timed_out
from ingest.http.caller import Scope, caller_of
from ingest.http.codings import codings_of, inflate
from ingest.http.prefetch import refuse_ahead
from ingest.http.responses import (
    BODY_COUNTED,
    JSON,
    PIXEL_GIF,
    Answer,
    answer,
    cors_headers,
    error_answer,
    no_store,
    send_stream,
)
from ingest.http.routes import Route, Routes
from ingest.metrics import Slot

NO_PARAMETERS: Final = (b"", b"{}")
"""Bodies of a POST to /stats/{id} that make it a click, without JSON's white space."""
JSON_SPACE: Final = b" \t\r\n"
log = logging.getLogger("clickmill.ingest")


class Options(NamedTuple):
    """What the settings say: seconds and bytes."""

    cors_origin: str
    access: Access
    body_timeout: float
    body_max_bytes: int
    batch_max_clicks: int
    backdate_days: int
    prefix: str = ""


class Backend(NamedTuple):
    """What the app needs of the worker beyond its counters.

    `stats`: an aggregator's answer; raises Problem. `problems`: why this worker is not ready, a
    sentence each. `metrics`: (content type, text) for an Accept header. `count_once`: returns once
    a batch with an Idempotency-Key is on disk; raises Problem.
    """

    stats: Callable[[messages.StatsRequest], Awaitable[Answer]]
    problems: Callable[[], list[str]]
    metrics: Callable[[str], tuple[str, bytes]]
    count_once: Callable[[KeyedBatch], Awaitable[None]]


class App:
    """The RSGI application. Every answer is made in here; none of them is ever a surprise 5xx."""

    def __init__(
        self, counters: Counters, slot: Slot, backend: Backend, redirects: dict[int, Headers],
        options: Options,
    ) -> None:  # fmt: skip
        self._counters, self._slot, self._backend = counters, slot, backend
        self._redirects, self._options = redirects, options
        self._cors = cors_headers(options.cors_origin)
        self._bodies = Bodies(options.body_timeout)
        self._routes = self._table()

    async def __rsgi__(self, scope: Scope, proto: Any) -> None:
        """Answer one request, and count it in the metrics."""
        began = time.monotonic_ns()
        route, text = self._routes.find(scope.path)
        headers, unread = scope.headers, False
        refusal = self._refusal(route, scope)
        try:
            body = await self._take_in(route, headers, proto, keep=not refusal)
            if refusal:
                reply = error_answer(refusal)
            else:
                reply = await self._reply(route, scope, text, body)
        except Problem as problem:
            reply, unread = error_answer(problem), isinstance(problem, UnreadBodyError)
        except Exception:
            log.exception("%s %.200r failed", scope.method, scope.path)
            reply = error_answer(
                Problem(500, "internal_error", "this is a defect of ours: the log says more")
            )
        if reply.rest is None:
            self._send(proto, reply)
        else:
            await send_stream(proto, reply, self._cors)
        self._slot.request(route.name, scope.method, reply.status, time.monotonic_ns() - began)
        if unread:
            await self._bodies.linger(headers, proto)

    def refuse(self, proto: Any, is_late: bool) -> None:
        """Answer a click of the fast path whose body is late, or broke off. Any thread."""
        timeout = self._options.body_timeout
        reply = error_answer(timed_out(timeout) if is_late else cut())
        self._send(proto, reply)
        self._slot.request("counter", "POST", reply.status, int(timeout * 1e9) if is_late else 0)

    def _send(self, proto: Any, reply: Answer) -> None:
        headers = [*reply.headers, *self._cors]
        if reply.body:
            proto.response_bytes(reply.status, headers, reply.body)
        else:
            proto.response_empty(reply.status, headers)

    def _refusal(self, route: Route, scope: Scope) -> Problem | None:
        """Why this request may not write, if it would."""
        if not route.writes or scope.method not in route.methods:
            return None
        return self._options.access.write_refusal(caller_of(scope))

    async def _take_in(self, route: Route, headers: Any, proto: Any, keep: bool) -> bytes:
        """The body, where the route reads it. Whatever else is wrong is said after it is in."""
        if route.body_max and keep:
            return await self._bodies.read(headers, proto, route.body_max)
        await self._bodies.skip(headers, proto, self._options.body_max_bytes)
        return b""

    async def _reply(self, route: Route, scope: Scope, text: str, body: bytes) -> Answer:
        method = scope.method
        if method == "OPTIONS":
            return self._preflight(route.methods)
        if method not in route.methods:
            allowed = ", ".join((*route.methods, "OPTIONS"))
            raise Problem(
                405, "method_not_allowed", f"use {allowed}; nothing was counted",
                [("allow", allowed)],
            )  # fmt: skip
        return await route.call(scope, text, body)

    def _preflight(self, methods: tuple[str, ...]) -> Answer:
        allowed = ", ".join((*methods, "OPTIONS"))
        return Answer(204, b"", [
            ("allow", allowed),
            ("access-control-allow-methods", allowed),
            ("access-control-allow-headers", "content-type, authorization, idempotency-key"),
            ("access-control-max-age", "86400"),
        ])  # fmt: skip

    def _table(self) -> Routes:
        get, both = ("GET",), ("GET", "POST")
        routes = (
            Route("counter", True, both, self._counter),
            Route("stats", True, both, self._stats, params.MAX_BODY_BYTES),
            Route("pixel", True, get, self._pixel),
            Route("click", True, get, self._click),
            Route("clicks", False, ("POST",), self._clicks, self._options.body_max_bytes, True),
            Route(script.NAME, False, get, self._script),
            Route("livez", False, get, self._livez),
            Route("readyz", False, get, self._readyz),
            Route("metrics", False, get, self._metrics),
        )
        return Routes(
            routes, Route("other", False, (*both, "HEAD"), self._not_found), self._options.prefix
        )

    # --- clicks ---------------------------------------------------------------------------------

    async def _counter(self, scope: Scope, text: str, body: bytes) -> Answer:
        banner_id = self._banner_id(text)
        refuse_ahead(scope)
        self._count(banner_id)
        headers = JSON if scope.method == "POST" else [*JSON, *no_store()]
        return Answer(200, BODY_COUNTED, headers)

    async def _pixel(self, scope: Scope, text: str, body: bytes) -> Answer:
        banner_id = self._banner_id(text)
        refuse_ahead(scope)
        self._count(banner_id)
        return Answer(200, PIXEL_GIF, [("content-type", "image/gif"), *no_store()])

    async def _click(self, scope: Scope, text: str, body: bytes) -> Answer:
        banner_id = self._banner_id(text)
        refuse_ahead(scope)
        headers = self._redirects.get(banner_id)
        if headers is None:
            raise Problem(
                404, "no_target",
                f"banner {banner_id} has no target: register one at /banners/{banner_id} of the "
                "statistics port",
            )  # fmt: skip
        self._count(banner_id)
        return Answer(302, b"", [h for h in headers if h not in self._cors])

    async def _clicks(self, scope: Scope, text: str, body: bytes) -> Answer:
        headers, most = scope.headers, self._options.batch_max_clicks
        body = inflate(body, codings_of(headers), self._options.body_max_bytes)
        kind = headers.get("content-type") or ""
        if keyed.HEADER in headers:
            return await self._clicks_once(headers.get_all(keyed.HEADER), body, kind)
        items = batch.decode(body, kind)
        counted = self._counters.hit_all(items, most)
        if counted > most:
            raise batch.too_many_clicks(counted, most)
        if counted < 0:
            index = -1 - counted
            raise params.unknown_banner(
                str(items[index].bannerID), self._counters.capacity - 1, 400, f"item {index}: "
            )
        self._slot.add("clickmill_clicks", counted)
        return answer(200, {"status": "counted", "clicks": counted})

    async def _clicks_once(self, keys: list[str], body: bytes, kind: str) -> Answer:
        key, items = keyed.parse_key(keys), batch.decode_timed(body, kind)
        capacity, days = self._counters.capacity, self._options.backdate_days
        asked = keyed.read(key, items, days, capacity, time.time())
        if asked.clicks > (most := self._options.batch_max_clicks):
            raise batch.too_many_clicks(asked.clicks, most)
        await self._backend.count_once(asked)
        return answer(200, {"status": "counted", "clicks": asked.clicks})

    def _count(self, banner_id: int) -> None:
        self._counters.hit(banner_id)
        self._slot.add("clickmill_clicks")

    def _banner_id(self, text: str) -> int:
        return params.banner_id(text, self._counters.capacity - 1)

    # --- statistics -------------------------------------------------------------------------------

    async def _stats(self, scope: Scope, text: str, body: bytes) -> Answer:
        banner_id = self._banner_id(text)
        if scope.method == "POST" and body.translate(None, JSON_SPACE) in NO_PARAMETERS:
            self._count(banner_id)
            return Answer(200, BODY_COUNTED, JSON)
        client = self._check_read(scope)
        request = messages.StatsRequest(banner_id, scope.query_string, body, client=client)
        reply = await self._backend.stats(request)
        return reply._replace(headers=[*reply.headers, *no_store()])

    def _check_read(self, scope: Scope) -> str:
        """The client that may read. Raises Problem 401 or 421."""
        caller = caller_of(scope)
        if refusal := self._options.access.read_refusal(caller):
            raise refusal
        return caller.client

    async def _script(self, scope: Scope, text: str, body: bytes) -> Answer:
        return script.answer(scope.headers.get("accept-encoding") or "")

    # --- about this service ---------------------------------------------------------------------

    async def _livez(self, scope: Scope, text: str, body: bytes) -> Answer:
        return answer(200, {"status": "alive"}, no_store())

    async def _readyz(self, scope: Scope, text: str, body: bytes) -> Answer:
        problems = self._backend.problems()
        if problems:
            raise Problem(503, "not_ready", "; ".join(problems), no_store())
        return answer(200, {"status": "ready"}, no_store())

    async def _metrics(self, scope: Scope, text: str, body: bytes) -> Answer:
        self._check_read(scope)
        kind, body = self._backend.metrics(scope.headers.get("accept") or "")
        return Answer(200, body, [("content-type", kind), *no_store()])

    async def _not_found(self, scope: Scope, text: str, body: bytes) -> Answer:
        raise Problem(
            404, "not_found", "there is /counter/{id}, /stats/{id}, /clicks, /pixel/{id}.gif, "
            "/click/{id}, /clickmill.js, /livez, /readyz and /metrics; nothing was counted",
        )  # fmt: skip
