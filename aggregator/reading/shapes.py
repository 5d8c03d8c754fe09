"""What is asked: parameters into the shape of an answer. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from aggregator.reading import buckets, formats
from aggregator.reading.kept import Question
from aggregator.reading.tables import Cut
from aggregator.reading.timerange import Range, iso, parse_range
from clickmill.contract import params
from clickmill.contract.params import Params
from clickmill.contract.problem import bad, completeness_unknown

COMPLETE: Final = "complete"
"""The value of tsTo that stands for the end of the last bucket that is complete."""
TOP_DEFAULT: Final = 20
TOP_MAX: Final = 1_000
MAX_BANNERS_ASKED: Final = 1_000

RANGE_PARAMS: Final = frozenset({"tsFrom", "tsTo", "format", "include"})
SERIES_PARAMS: Final = RANGE_PARAMS | {"step", "tz", "fill"}
MANY_PARAMS: Final = SERIES_PARAMS | {"bannerID"}
TOP_PARAMS: Final = RANGE_PARAMS | {"limit"}


def next_second() -> datetime:
    """The end of the running second: what was clicked in it is in a range until "now"."""
    return (datetime.now(UTC) + timedelta(seconds=1)).replace(microsecond=0)


def whole_second(moment: datetime | None) -> datetime | None:
    """Down to the second, in UTC."""
    return moment and moment.astimezone(UTC).replace(microsecond=0)


class Shape:
    """How a series is to be cut and shown: step, zone, filling, format."""

    def __init__(self, given: Params, now: datetime, complete: datetime | None) -> None:
        self.step = params.choice(given, "step", "invalid_step", buckets.STEPS) or "1m"
        self.zone: ZoneInfo = buckets.parse_zone(params.single(given, "tz", "invalid_tz"))
        self.span = range_of(given, now, complete, self.step, self.zone)
        self.asked = Question(self.span, self.step, self.zone)
        self.filled = params.choice(given, "fill", "invalid_fill", ("zero",)) is not None
        self.form = form_of(given)
        self.raw = raw_in(given)

    def points(self, series: list[tuple[int, int, int]], starts: list[int]) -> list[formats.Point]:
        """The points of a series, with the empty buckets if they are wanted."""
        return formats.points(
            formats.fill_zero(series, starts) if self.filled else series, self.raw
        )

    def series(
        self, banner_id: int, values: list[tuple[int, int, int]], starts: list[int]
    ) -> formats.BannerSeries:
        """One banner of several."""
        net, fixed = totals(values)
        return formats.BannerSeries(
            bannerID=banner_id,
            Counts=net,
            **formats.parts(net, fixed, self.raw),
            stats=self.points(values, starts),
        )

    @property
    def cut(self) -> Cut:
        """The same for a table."""
        return Cut(self.asked, self.filled, self.form, self.raw)


def totals(values: Iterable[tuple[int, int, int]]) -> tuple[int, int]:
    """Clicks, and how many of these are corrections, of all buckets together."""
    net = fixed = 0
    for _, clicks, correction in values:
        net += clicks
        fixed += correction
    return net, fixed


def range_of(
    given: Params, now: datetime, complete: datetime | None, step: str = "1m",
    zone: ZoneInfo = buckets.UTC_ZONE,
) -> Range:  # fmt: skip
    """The range; `tsTo=complete`: as far as every bucket is complete."""
    ts_from = params.single(given, "tsFrom", "invalid_range")
    ts_to = params.single(given, "tsTo", "invalid_range")
    if ts_to != COMPLETE:
        return parse_range(ts_from, ts_to, now)
    if complete is None:
        raise completeness_unknown()
    until = buckets.start_of(complete, step, zone)
    return parse_range(ts_from, iso(until), now, or_empty=True)


def form_of(given: Params) -> str:
    """One of formats.FORMATS."""
    return params.choice(given, "format", "invalid_format", formats.FORMATS) or "json"


def raw_in(given: Params) -> bool:
    """Whether clicks are wanted as they were counted, and what corrects them."""
    return params.choice(given, "include", "invalid_include", ("raw",)) is not None


def named_in(given: Params, max_banner_id: int) -> list[int] | None:
    """The banners that are named, ascending; None: all."""
    texts = given.get("bannerID")
    if not texts:
        return None
    if len(texts) > MAX_BANNERS_ASKED:
        raise bad(
            "too_many_banners",
            f"{len(texts)} banners are asked for: at most {MAX_BANNERS_ASKED} go in one "
            "request, or leave bannerID out for all",
        )
    return sorted({params.banner_id(text, max_banner_id) for text in texts})


def check_filled(banners: list[int]) -> list[int]:
    """The banners of a table with empty buckets. Raises Problem (too_many_banners)."""
    if len(banners) > buckets.MAX_POINTS:
        raise bad(
            "too_many_banners",
            f"more than {buckets.MAX_POINTS:,} banners have clicks in the range, too many for "
            "fill=zero: leave it out, or name the banners with bannerID",
        )
    return banners
