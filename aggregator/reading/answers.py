"""Questions into answers: the one way of statistics, whether they are asked over HTTP or NATS.

It joins the pure parts (params, timerange, buckets, formats) with the reader. `completeThrough`
is taken before the statistics are read, so that it never promises more than they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Final

from msgspec import UNSET

from aggregator.reading import buckets, formats
from aggregator.reading.cover import cover_of, total_start
from aggregator.reading.kept import ALWAYS_S, Kept, Question
from aggregator.reading.queries import Reader
from aggregator.reading.shapes import (
    MANY_PARAMS,
    SERIES_PARAMS,
    TOP_DEFAULT,
    TOP_MAX,
    TOP_PARAMS,
    Shape,
    check_filled,
    form_of,
    named_in,
    next_second,
    range_of,
    raw_in,
    totals,
    whole_second,
)
from aggregator.reading.tables import PAGE_ROWS, Opened, Table, Tables
from aggregator.reading.timerange import MINUTE_S, Range
from clickmill import messages
from clickmill.contract import params
from clickmill.contract.params import Params
from clickmill.contract.problem import Problem, answer_too_large

# Clicks are taken an hour ahead of Postgres' time at most, and its clock may differ from ours.
AHEAD_S: Final = 2 * buckets.HOUR_S

Reply = formats.Answer | Opened


class Answers:
    """Answers to statistics questions. Each method raises Problem where there is none."""

    def __init__(
        self,
        reader: Reader,
        complete_through: Callable[[], datetime | None],
        max_banner_id: int,
        now: Callable[[], datetime] = next_second,
        complete_but: Callable[[], tuple[datetime | None, list[str]] | None] = lambda: None,
    ) -> None:
        self._reader = reader
        self._complete_through = complete_through
        self._silent = complete_but
        self._max_banner_id = max_banner_id
        self._now = now
        self._tables = Tables()

    async def one(self, banner: str, query: bytes, body: bytes) -> formats.Answer:
        """Statistics of one banner, as the raw query and the JSON body ask for them."""
        given = params.merge(params.from_query(query), params.from_body(body))
        return await self._whole(await self._one(banner, given))

    async def _one(self, banner: str, given: Params, most: int = PAGE_ROWS) -> Reply:
        banner_id = params.banner_id(banner, self._max_banner_id)
        params.check_names(given, SERIES_PARAMS)
        complete, but = self._complete(), self._complete_but()
        shape = Shape(given, self._now(), complete)
        if shape.form != "json":
            name = f"stats-{banner_id}"
            return await self._table(shape, [banner_id], name, complete, most)
        kept = await self._kept(shape.span)
        shape.asked.check(kept)
        starts = buckets.starts_of(shape.span, shape.step, shape.zone)
        cover = kept.pieces(cover_of(shape.span, starts))
        series = await self._reader.series([banner_id], starts, cover, shape.step, shape.raw)
        clicks = series.get(banner_id, [])
        net, fixed = totals(clicks)
        answer = formats.OneBanner(
            bannerID=banner_id,
            tsFrom=shape.span.since,
            tsTo=shape.span.until,
            Counts=net,
            **formats.parts(net, fixed, shape.raw),
            stats=shape.points(clicks, starts),
            completeThrough=complete,
            completeBut=but,
        )
        return formats.render(answer)

    async def many(self, given: Params) -> formats.Answer:
        """Statistics of the banners that are named, or of all with clicks in the range."""
        params.check_names(given, MANY_PARAMS)
        complete, but = self._complete(), self._complete_but()
        shape = Shape(given, self._now(), complete)
        named = named_in(given, self._max_banner_id)
        if shape.form != "json":
            return await self._whole(await self._table(shape, named, "stats", complete))
        kept = await self._kept(shape.span)
        shape.asked.check(kept, max(1, len(named or ())))
        if named is None:
            whole = cover_of(shape.span, total_start(shape.span))
            named = await self._reader.clicked(kept.pieces(whole), shape.raw)
            buckets.check_points(shape.span, shape.step, max(1, len(named)))
        starts = buckets.starts_of(shape.span, shape.step, shape.zone)
        cover = kept.pieces(cover_of(shape.span, starts))
        series = await self._reader.series(named, starts, cover, shape.step, shape.raw)
        banners = [
            shape.series(banner_id, series.get(banner_id, []), starts) for banner_id in named
        ]
        net, fixed = totals(value for values in series.values() for value in values)
        answer = formats.ManyBanners(
            tsFrom=shape.span.since,
            tsTo=shape.span.until,
            Counts=net,
            **formats.parts(net, fixed, shape.raw),
            banners=banners,
            completeThrough=complete,
            completeBut=but,
        )
        return formats.render(answer)

    async def _table(
        self, shape: Shape, named: list[int] | None, name: str, complete: datetime | None,
        most: int = PAGE_ROWS,
    ) -> Opened:  # fmt: skip
        kept = await self._kept(shape.span)
        shape.asked.check_kept(kept)
        if shape.filled and named is None:
            whole = cover_of(shape.span, total_start(shape.span))
            named = check_filled(await self._reader.clicked(kept.pieces(whole), shape.raw))
        table = Table(self._reader, shape.cut, named, self._kept, most)
        headers = formats.headers_of(shape.form, name, complete)
        oldest = 0 if shape.filled else await self._reader.oldest()
        return Opened(table, table.begin(oldest, self._latest()), shape.form, headers)

    def _latest(self) -> int:
        """No click is later than this."""
        return int(self._now().timestamp()) // MINUTE_S * MINUTE_S + AHEAD_S

    async def _whole(self, reply: Reply) -> formats.Answer:
        return await self._tables.answer(reply) if isinstance(reply, Opened) else reply

    async def _kept(self, span: Range) -> Kept:
        """Read before the statistics: what it says is there is not deleted for a while."""
        if span.first >= self._now().timestamp() - ALWAYS_S:
            return Kept()
        return await self._reader.kept()

    def _complete(self) -> datetime | None:
        return whole_second(self._complete_through())

    def _complete_but(self) -> formats.But:
        found = self._silent()
        return formats.CompleteBut(whole_second(found[0]), found[1]) if found else UNSET

    async def top(self, given: Params) -> formats.Answer:
        """The banners with most clicks in a range."""
        params.check_names(given, TOP_PARAMS)
        complete, but = self._complete(), self._complete_but()
        span = range_of(given, self._now(), complete)
        form = form_of(given)
        raw = raw_in(given)
        limit = params.whole(given, "limit", "invalid_limit", 1, TOP_MAX, TOP_DEFAULT)
        kept = await self._kept(span)
        Question(span, None).check(kept)
        cover = kept.pieces(cover_of(span, total_start(span)))
        (net, fixed), ranked = await self._reader.top(cover, limit, raw)
        answer = formats.TopList(
            tsFrom=span.since,
            tsTo=span.until,
            Counts=net,
            **formats.parts(net, fixed, raw),
            top=[
                formats.Ranked(
                    bannerID=t.banner_id,
                    name=t.name,
                    Counts=t.clicks,
                    **formats.parts(t.clicks, t.correction, raw),
                )
                for t in ranked
            ],
            completeThrough=complete,
            completeBut=but,
        )
        return formats.render_top(answer, form)

    async def over_nats(self, request: messages.StatsRequest, room: int) -> formats.Answer:
        """`one` for a request that came over an ingest port: an error is an answer too.

        `room`: bytes that a message may have. A table comes in pages, if the worker can ask for
        the next one. A worker of 0.1 sends the parameters themselves, and neither query nor body.
        """
        try:
            given = request.params or params.merge(
                params.from_query(request.query.encode()), params.from_body(request.body)
            )
            most = min(PAGE_ROWS, room // formats.MAX_LINE_BYTES)
            reply = await self._one(str(request.banner_id), given, most)
            if isinstance(reply, Opened):
                reply = await self._tables.message(reply, request, room)
            if len(reply.body) > room:
                raise answer_too_large(room)
        except Problem as problem:
            headers = dict(problem.headers)
            return formats.Answer(problem.status, formats.JSON, problem.body, headers)
        return reply
