"""Top lists from the lists of busiest banners: always what the sum over all banners says.

Lists are made as short as five banners here, so that a few dozen banners are many.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any, Final

import psycopg
import pytest
from psycopg import AsyncConnection

from aggregator.postgres import connection as postgres
from aggregator.postgres import retention
from aggregator.postgres.migrations import apply_schema
from aggregator.reading import top
from aggregator.reading.cover import Cover, cover_of, total_start
from aggregator.reading.pieces import fetch, snapshot
from aggregator.reading.queries import Reader, make_pool
from aggregator.reading.timerange import Range
from aggregator.writing import rollup, top_lists
from aggregator.writing.rollup import DAY, HOUR, QUARTER, floor, roll_up
from aggregator.writing.store import Store
from tests.integration.test_rollup import marks, minute_of, now, put_mark, rolling
from tests.support import sql
from tests.support.fakes import FakeSource
from tests.support.stores import with_store
from tests.support.wait import eventually

BANNERS: Final = 60
DAYS: Final = 4
LISTED: Final = 5


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_lists, "LISTED", LISTED)
    monkeypatch.setattr(top, "CANDIDATES", 10)


def skewed(chance: random.Random) -> dict[int, int]:
    """Clicks of a minute: the lower its ID, the more a banner has."""
    drawn = [min(BANNERS - 1, int(chance.paretovariate(0.7)) - 1) for _ in range(300)]
    return {banner: drawn.count(banner) for banner in set(drawn)}


def even(chance: random.Random) -> dict[int, int]:
    """Clicks of a minute: no banner stands out."""
    return {banner: chance.randint(90, 110) for banner in range(BANNERS)}


class Data:
    """A database with some days of clicks, rolled up, and lists made of it."""

    def __init__(self, dsn: str, clicks: Any = skewed, seed: int = 1) -> None:
        self.dsn, self._clicks = dsn, clicks
        self.chance, self.source = random.Random(seed), FakeSource()
        self.first = floor(now(), DAY) - DAYS * DAY

        async def fill(store: Store) -> None:
            await store.apply([])
            put_mark(dsn, self.first)
            await store.apply(
                [
                    self.arrival(moment)
                    for n in range(DAYS * 24 + 24)
                    if (moment := self.first + n * HOUR + self.chance.randrange(60) * MINUTE)
                    < now()
                ]
            )

        with_store(dsn, fill)
        self.roll_up()

    def roll_up(self) -> None:
        """All that is due, and the lists of it."""

        async def roll(connection: AsyncConnection[Any]) -> None:
            while await roll_up(connection, now()):
                pass

        asyncio.run(rolling(self.dsn, roll))

    def arrival(self, moment: datetime) -> Any:
        return self.source.arrival(self._clicks(self.chance), minute_of(moment))

    def late(self, moments: list[datetime]) -> None:
        """Clicks for times that are rolled up already."""

        async def write(store: Store) -> None:
            await store.apply([self.arrival(moment) for moment in moments])

        with_store(self.dsn, write)

    def correct(self, banner: int, moment: datetime, clicks: int) -> None:
        """A correction of one minute."""
        sql.query(
            self.dsn,
            "WITH made AS (INSERT INTO correction (author, reason, kind, banners, ts_from, ts_to,"
            " per_minute, clicks) VALUES ('a', 'b', 'clicks', '{}', %(t)s, %(t)s, %(n)s, %(n)s)"
            " RETURNING id) INSERT INTO correction_minute SELECT %(b)s, %(t)s, id, %(n)s FROM made"
            .replace("%(t)s", f"'{moment.isoformat()}'").replace("%(n)s", str(clicks))
            .replace("%(b)s", str(banner)),
        )  # fmt: skip

    def any_cover(self) -> Cover:
        """A range of any length, often on the edges of units."""
        unit = self.chance.choice([DAY, HOUR, QUARTER, MINUTE])
        span = now() - self.first
        left, right = sorted(floor(self.first + self.chance.random() * span, unit) for _ in "ab")
        return cover(left, right)

    def tops(self, asked: list[tuple[Cover, int, bool]]) -> list[tuple[top.Top, top.Top, bool]]:
        """For each: the answer, the sum over all banners, and whether lists decided it."""

        async def ask() -> list[tuple[top.Top, top.Top, bool]]:
            found = []
            async with make_pool(self.dsn) as pool:
                reader = Reader(pool)
                for pieces, limit, raw in asked:
                    answer = await reader.top(pieces, limit, raw)
                    async with (
                        pool.connection() as connection,
                        snapshot(connection, pieces) as within,
                    ):
                        rows = await fetch(connection, *top.sum_all(limit, raw)(within))
                        listed = await top._by_lists(connection, within, limit, raw)
                    found.append((answer, top.top_of(rows), listed is not None))
            return found

        return asyncio.run(ask())


MINUTE: Final = timedelta(minutes=1)


def cover(left: datetime, right: datetime) -> Cover:
    span = Range(left, right)
    return cover_of(span, total_start(span))


@pytest.fixture
def data(database: str) -> Iterator[Data]:
    made = Data(database)
    yield made
    sql.assert_rollups_equal_minutes(database)


def check(data: Data, times: int, raw: bool = False) -> float:
    """Asks for top lists of any range and length; the part that lists decided."""
    asked = [
        (pieces, data.chance.choice([1, 3, 5, 20, 100]), raw)
        for _ in range(times)
        if any(pieces := data.any_cover())
    ]
    found = data.tops(asked)
    for (pieces, limit, _), (answer, truth, _) in zip(asked, found, strict=True):
        assert answer.ranked == truth.ranked, (pieces, limit)
        assert answer.everything[0] == truth.everything[0]
        assert not raw or answer.everything == truth.everything
    return sum(listed for *_, listed in found) / len(found)


def test_every_unit_that_is_rolled_up_has_its_list(data: Data) -> None:
    lists = sql.lists(data.dsn)
    assert lists["day"] == (DAYS, 0)
    assert lists["hour"][0] >= DAYS * 24
    assert lists["quarter"][0] >= DAYS * 96
    assert {due for _, due in lists.values()} == {0}
    sizes = sql.query(data.dsn, "SELECT DISTINCT cardinality(banners) FROM rollup_top")
    assert {size for (size,) in sizes} == {0, LISTED}


def test_any_range_and_limit_is_as_the_sum_over_all_banners(data: Data) -> None:
    assert check(data, 150) > 0.2


def test_whole_days_of_skewed_clicks_are_decided_by_the_lists(data: Data) -> None:
    ((answer, truth, listed),) = data.tops([(cover(data.first, data.first + 3 * DAY), 3, False)])
    assert listed
    assert answer == truth
    assert answer.ranked[0].banner_id == 0


def test_evenly_spread_clicks_are_summed(database: str) -> None:
    data = Data(database, even)
    ((answer, truth, listed),) = data.tops([(cover(data.first, data.first + 3 * DAY), 3, False)])
    assert not listed
    assert answer == truth
    check(data, 30)


def test_late_clicks_are_in_the_list_before_and_after_they_are_moved(data: Data) -> None:
    """A banner that was in no list has most clicks by them."""
    data._clicks = lambda chance: {BANNERS + 7: 5_000}
    data.late([data.first + DAY + HOUR, data.first + DAY + 3 * HOUR])
    asked = [(cover(data.first, data.first + 3 * DAY), 3, False)]
    before = data.tops(asked)
    data.roll_up()
    assert {due for _, due in sql.lists(data.dsn).values()} == {0}
    for answer, truth, listed in (*before, *data.tops(asked)):
        assert listed
        assert answer == truth
        assert answer.ranked[0][:3] == (BANNERS + 7, None, 10_000)


def test_late_clicks_make_the_lists_of_their_units_due(
    data: Data, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever release moves them: one that makes no lists, too."""

    async def no_lists(_: object) -> bool:
        return False

    monkeypatch.setattr(rollup, "make_lists", no_lists)
    mark = marks(data.dsn)
    moments = [mark[unit] - MINUTE for unit in ("day", "hour", "quarter")] + [mark["quarter"]]
    data.late([*moments, data.first + DAY])
    data.roll_up()
    expected = {
        (unit, floor(moment, size))
        for moment in (*moments, data.first + DAY)
        for unit, size in (("day", DAY), ("hour", HOUR), ("quarter", QUARTER))
        if moment < mark[unit]
    }
    due = sql.query(data.dsn, "SELECT unit, start FROM rollup_top WHERE banners IS NULL")
    assert expected <= set(due)
    later = {(unit, start) for unit, start in due if start >= mark[unit]}
    assert set(due) == expected | later


def test_clicks_of_a_time_before_the_first_list(data: Data) -> None:
    data.late([data.first - 2 * DAY + HOUR])
    data.roll_up()
    assert sql.lists(data.dsn)["day"] == (DAYS + 1, 0)
    ((answer, truth, listed),) = data.tops(
        [(cover(data.first - 3 * DAY, data.first + 3 * DAY), 3, False)]
    )
    assert listed
    assert answer == truth


@pytest.mark.parametrize("raw", [False, True])
def test_corrections_count_for_listed_and_other_banners(data: Data, raw: bool) -> None:
    for banner, clicks in ((0, -400), (1, 30), (BANNERS - 1, 900), (BANNERS + 1, 5), (2, -9_999)):
        moment = data.first + data.chance.randrange(3 * 1440) * MINUTE
        data.correct(banner, moment, clicks)
    assert check(data, 80, raw) > 0.2


def test_fewer_banners_than_asked_for(database: str) -> None:
    data = Data(database, lambda chance: {5: 3, 6: chance.randint(1, 9)})
    ((answer, truth, listed),) = data.tops([(cover(data.first, data.first + 3 * DAY), 20, False)])
    assert listed
    assert answer == truth
    assert len(answer.ranked) == 2


def test_lists_that_are_not_made_yet_are_done_without(data: Data) -> None:
    sql.query(
        data.dsn, "UPDATE rollup_top SET banners = NULL WHERE unit = 'day' AND start > %s",
        data.first + DAY,
    )  # fmt: skip
    sql.query(data.dsn, "DELETE FROM rollup_top WHERE unit = 'hour'")
    ((answer, truth, listed),) = data.tops([(cover(data.first, data.first + 4 * DAY), 3, False)])
    assert listed
    assert answer == truth
    check(data, 50)
    sql.query(data.dsn, "DELETE FROM rollup_top")
    check(data, 20)


# --- the bounds -----------------------------------------------------------------------------------


class Days:
    """Two days of given clicks by banner, rolled up, with lists of one banner each."""

    def __init__(self, dsn: str, *days: dict[int, int]) -> None:
        self.dsn, self.first = dsn, floor(now(), DAY) - len(days) * DAY
        asyncio.run(apply_schema(dsn))
        for n, clicks in enumerate(days):
            for banner, count in clicks.items():
                sql.query(
                    dsn, "INSERT INTO rollup_day VALUES (%s, %s, %s)",
                    banner, self.first + n * DAY, count,
                )  # fmt: skip
            sql.query(
                dsn, "SELECT clickmill_top_is_due('day', ARRAY[%s::timestamptz])",
                self.first + n * DAY,
            )  # fmt: skip
        asyncio.run(rolling(dsn, self._make))
        self.cover = cover(self.first, self.first + len(days) * DAY)

    async def _make(self, connection: AsyncConnection[Any]) -> None:
        async with connection.transaction():
            assert not await top_lists.make_lists(connection)

    def by_lists(self, limit: int) -> list[tuple[int, int]] | None:
        """(banner, clicks) if lists decide it."""

        async def ask() -> top.Top | None:
            async with make_pool(self.dsn) as pool, pool.connection() as connection:
                return await top._by_lists(connection, self.cover, limit, False)

        found = asyncio.run(ask())
        return [(one.banner_id, one.clicks) for one in found.ranked] if found else None


@pytest.fixture
def one_each(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(top_lists, "LISTED", 1)


@pytest.mark.usefixtures("one_each")
@pytest.mark.parametrize(
    ("days", "expected"),
    [
        # 3 has the lower bound (105 against 110) and more clicks.
        (({9: 100, 5: 10, 3: 9}, {3: 95, 5: 10}), [(3, 104)]),
        # As many clicks, and as its bound: the lower ID is first.
        (({9: 100, 5: 10, 3: 10}, {3: 90, 5: 10}), [(3, 100)]),
        # 4 and 5 are in no list and may have as many clicks as 9: it takes a sum to know.
        (({9: 20, 5: 10, 4: 10}, {9: 0, 8: 10, 5: 10, 4: 10}), None),
        # One more, and they can't.
        (({9: 21, 5: 10, 4: 10}, {9: 0, 8: 10, 5: 10, 4: 10}), [(9, 21)]),
    ],
)
def test_who_is_first(
    database: str, days: tuple[dict[int, int], ...], expected: list[tuple[int, int]] | None
) -> None:
    assert Days(database, *days).by_lists(1) == expected


@pytest.mark.usefixtures("one_each")
def test_a_banner_that_is_listed_everywhere_is_known_exactly(database: str) -> None:
    days = Days(database, {7: 50, 8: 30, 9: 2}, {7: 40, 8: 10})

    async def bounds() -> Any:
        async with make_pool(database) as pool, pool.connection() as connection:
            return await top._bounds(connection, days.cover, 1)

    found = asyncio.run(bounds())
    assert found.everything == (132, 0)
    assert found.below == 30 + 10
    assert found.excess == [(7, 90 - 40)]
    assert not found.cut


def test_bounds_that_corrections_have_made_negative() -> None:
    """A banner that is nowhere listed has none of these."""
    bounds = top._Bounds((0, 0), below=10, excess=[(1, 90), (2, -50)], cut=True)
    assert top._decides(bounds, 11)
    assert not top._decides(bounds, 10)
    assert not top._decides(bounds._replace(excess=[(1, 90), (2, 5)]), 15)


# --- what a release before these lists has left ---------------------------------------------------

_WITHOUT: Final = """
DROP TRIGGER rolled_up ON rollup_mark; DROP TRIGGER late_moved ON rollup_late; DROP TABLE rollup_top
"""


def test_tables_without_lists_get_them(data: Data) -> None:
    """And what is rolled up from then on, whichever release does it, is due by itself."""
    before = sql.lists(data.dsn)
    sql.query(data.dsn, _WITHOUT)
    asyncio.run(apply_schema(data.dsn))
    due = {unit: (0, sum(both)) for unit, both in before.items()}
    first = {unit: n for unit, (_, n) in sql.lists(data.dsn).items()}
    assert first["day"] == due["day"][1]
    assert first["hour"] <= due["hour"][1] < first["hour"] + 24
    data.roll_up()
    assert {n for _, n in sql.lists(data.dsn).values()} == {0}
    assert check(data, 50) > 0.2


@pytest.mark.parametrize("trigger", ["rolled_up ON rollup_mark", "late_moved ON rollup_late"])
def test_lists_of_tables_that_lost_a_trigger_are_made_anew(data: Data, trigger: str) -> None:
    """As where an older release, which does not know them, has restored a backup."""
    sql.query(data.dsn, f"DROP TRIGGER {trigger}")
    sql.query(data.dsn, "UPDATE rollup_top SET banners = '{1}', clicks = '{1}', below = 0")
    asyncio.run(apply_schema(data.dsn))
    assert {made for made, _ in sql.lists(data.dsn).values()} == {0}
    asyncio.run(apply_schema(data.dsn))
    data.roll_up()
    before = sql.lists(data.dsn)
    asyncio.run(apply_schema(data.dsn))
    assert sql.lists(data.dsn) == before, "once they are there, nothing is made again"


def test_the_tables_are_changed_beside_a_rollup_under_way(data: Data) -> None:
    """It locks late clicks and then the mark: the schema waits for it, and never the other way."""
    sql.query(data.dsn, _WITHOUT)
    with psycopg.connect(data.dsn) as rolling:
        rolling.execute("SELECT FROM rollup_mark FOR UPDATE")
        rolling.execute("DELETE FROM rollup_late")

        async def race() -> None:
            changing = asyncio.create_task(apply_schema(data.dsn))
            await asyncio.to_thread(eventually, waiting, 10, "the schema waits")
            await asyncio.to_thread(rolling.execute, "UPDATE rollup_mark SET day = day")
            await asyncio.to_thread(rolling.commit)
            await changing

        def waiting() -> bool:
            return bool(
                sql.query(
                    data.dsn,
                    "SELECT 1 FROM pg_stat_activity WHERE datname = current_database()"
                    " AND application_name = 'clickmill schema' AND wait_event_type = 'Lock'",
                )
            )

        asyncio.run(race())
    assert sql.lists(data.dsn)["day"] == (0, DAYS)


def test_lists_go_with_their_rollups(database: str) -> None:
    data = Data(database)

    async def maintain() -> None:
        async with postgres.session(data.dsn, "partitions") as connection:
            days = retention.Days(0, DAYS - 1)
            while not await retention.maintain(connection, days, grace_s=0):
                pass

    asyncio.run(maintain())
    oldest = sql.query(data.dsn, "SELECT unit, min(start) FROM rollup_top GROUP BY 1")
    assert {start for _, start in oldest} == {data.first + DAY}
    assert len(oldest) == 3
