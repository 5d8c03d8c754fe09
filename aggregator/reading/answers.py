"""Questions into answers: the one way of statistics, whether they are asked over HTTP or NATS.

It joins the pure parts (params, timerange, buckets, formats) with the reader. `completeThrough`
is taken before the statistics are read, so that it never promises more than they hold.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from msgspec import UNSET

from aggregator.reading import buckets, formats
from aggregator.reading.kept import ALWAYS_S, Kept, Question
from aggregator.reading.queries import Reader
from aggregator.reading.timerange import Range, parse_range
from clickmill import messages
from clickmill.contract import params
from clickmill.contract.params import Params
from clickmill.contract.problem import Problem, bad

TOP_DEFAULT: Final = 20
TOP_MAX: Final = 1_000
MAX_BANNERS_ASKED: Final = 1_000

RANGE_PARAMS: Final = frozenset({"tsFrom", "tsTo", "format"})
SERIES_PARAMS: Final = RANGE_PARAMS | {"step", "tz", "fill"}
MANY_PARAMS: Final = SERIES_PARAMS | {"bannerID"}
TOP_PARAMS: Final = RANGE_PARAMS | {"limit"}


def next_second() -> datetime:
    """The end of the running second: what was clicked in it is in a range until "now"."""
    return (datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=0)


def _whole_second(moment: datetime | None) -> datetime | None:
    return moment and moment.astimezone(UTC).replace(microsecond=0)


class Shape:
    """How a series is to be cut and shown: step, zone, filling, format."""

    def __init__(self, given: Params, now: datetime) -> None:
        self.span = _range(given, now)
        self.step = buckets.parse_step(params.single(given, "step", "invalid_step"))
        self.zone: ZoneInfo = buckets.parse_zone(params.single(given, "tz", "invalid_tz"))
        self.asked = Question(self.span, self.step, self.zone)
        self.filled = params.choice(given, "fill", "invalid_fill", ("zero",)) is not None
        self.form = _form(given)

    def points(self, series: list[tuple[int, int]], starts: list[int]) -> list[formats.Point]:
        """The points of a series, with the empty buckets if they are wanted."""
        return formats.points(formats.fill_zero(series, starts) if self.filled else series)


def _range(given: Params, now: datetime) -> Range:
    ts_from = params.single(given, "tsFrom", "invalid_range")
    ts_to = params.single(given, "tsTo", "invalid_range")
    return parse_range(ts_from, ts_to, now)


def _form(given: Params) -> str:
    return params.choice(given, "format", "invalid_format", formats.FORMATS) or "json"


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

    async def one(self, banner: str, query: bytes, body: bytes) -> formats.Answer:
        """Statistics of one banner, as the raw query and the JSON body ask for them."""
        given = params.merge(params.from_query(query), params.from_body(body))
        return await self._one(banner, given)

    async def _one(self, banner: str, given: Params) -> formats.Answer:
        banner_id = params.banner_id(banner, self._max_banner_id)
        params.check_names(given, SERIES_PARAMS)
        shape = Shape(given, self._now())
        kept = await self._kept(shape.span)
        shape.asked.check(kept)
        starts = buckets.starts_of(shape.span, shape.step, shape.zone)
        complete, but = self._complete(), self._complete_but()
        cover = kept.pieces(buckets.cover(shape.span, starts))
        series = await self._reader.series([banner_id], starts, cover, shape.step)
        clicks = series.get(banner_id, [])
        answer = formats.OneBanner(
            bannerID=banner_id,
            tsFrom=shape.span.since,
            tsTo=shape.span.until,
            Counts=sum(v for _, v in clicks),
            stats=shape.points(clicks, starts),
            completeThrough=complete,
            completeBut=but,
        )
        return formats.render(answer, shape.form, f"stats-{banner_id}")

    async def many(self, given: Params) -> formats.Answer:
        """Statistics of the banners that are named, or of all with clicks in the range."""
        params.check_names(given, MANY_PARAMS)
        shape = Shape(given, self._now())
        named = self._named(given)
        kept = await self._kept(shape.span)
        shape.asked.check(kept, max(1, len(named or ())))
        complete, but = self._complete(), self._complete_but()
        if named is None:
            whole = buckets.cover(shape.span, buckets.total_start(shape.span))
            named = await self._reader.clicked(kept.pieces(whole))
            buckets.check_points(shape.span, shape.step, max(1, len(named)))
        starts = buckets.starts_of(shape.span, shape.step, shape.zone)
        cover = kept.pieces(buckets.cover(shape.span, starts))
        series = await self._reader.series(named, starts, cover, shape.step)
        banners = []
        for banner_id in named:
            clicks = series.get(banner_id, [])
            banners.append(
                formats.BannerSeries(
                    bannerID=banner_id,
                    Counts=sum(v for _, v in clicks),
                    stats=shape.points(clicks, starts),
                )
            )
        answer = formats.ManyBanners(
            tsFrom=shape.span.since,
            tsTo=shape.span.until,
            Counts=sum(banner.Counts for banner in banners),
            banners=banners,
            completeThrough=complete,
            completeBut=but,
        )
        return formats.render(answer, shape.form, "stats")

    async def _kept(self, span: Range) -> Kept:
        """Read before the statistics: what it says is there is not deleted for a while."""
        if span.first >= self._now().timestamp() - ALWAYS_S:
            return Kept()
        return await self._reader.kept()

    def _complete(self) -> datetime | None:
        return _whole_second(self._complete_through())

    def _complete_but(self) -> formats.But:
        found = self._silent()
        return formats.CompleteBut(_whole_second(found[0]), found[1]) if found else UNSET

    def _named(self, given: Params) -> list[int] | None:
        texts = given.get("bannerID")
        if not texts:
            return None
        if len(texts) > MAX_BANNERS_ASKED:
            raise bad(
                "too_many_banners",
                f"{len(texts)} banners are asked for: at most {MAX_BANNERS_ASKED} go in one "
                "request, or leave bannerID out for all",
            )
        return sorted({params.banner_id(text, self._max_banner_id) for text in texts})

    async def top(self, given: Params) -> formats.Answer:
        """The banners with most clicks in a range."""
        params.check_names(given, TOP_PARAMS)
        span = _range(given, self._now())
        form = _form(given)
        limit = params.whole(given, "limit", "invalid_limit", 1, TOP_MAX, TOP_DEFAULT)
        kept = await self._kept(span)
        Question(span, None).check(kept)
        complete, but = self._complete(), self._complete_but()
        cover = kept.pieces(buckets.cover(span, buckets.total_start(span)))
        everything, ranked = await self._reader.top(cover, limit)
        answer = formats.TopList(
            tsFrom=span.since,
            tsTo=span.until,
            Counts=everything,
            top=[
                formats.Ranked(bannerID=t.banner_id, name=t.name, Counts=t.clicks) for t in ranked
            ],
            completeThrough=complete,
            completeBut=but,
        )
        return formats.render(answer, form, "top")

    async def over_nats(self, request: messages.StatsRequest) -> formats.Answer:
        """`one` for a request that came over an ingest port: an error is an answer too.

        A worker of 0.1 sends the parameters themselves, and neither query nor body.
        """
        try:
            if request.params:
                return await self._one(str(request.banner_id), request.params)
            return await self.one(str(request.banner_id), request.query.encode(), request.body)
        except Problem as problem:
            headers = dict(problem.headers)
            return formats.Answer(problem.status, formats.JSON, problem.body, headers)
