"""Statistics against the minutes themselves: whatever is asked, the sums are the same.

Data: three banners over days around both changes of daylight saving in three zones, as the
tables hold them; the oracle is a plain dictionary of (banner, minute).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any
from urllib.parse import urlencode
from uuid import UUID
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.postgres import migrations
from aggregator.reading.buckets import STEPS
from aggregator.writing.fold import Arrival
from aggregator.writing.store import Store
from clickmill import messages
from clickmill.wire import Frame
from tests.support import sql
from tests.support.fix_api import Api, put_minutes, serve
from tests.support.fix_postgres import PostgresServer

ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kolkata"]
# Around each change: New York and Berlin in March, Lord Howe in April and October, and so on.
CHANGES = ["2024-03-10", "2024-03-31", "2024-04-07", "2024-10-06", "2024-10-27", "2024-11-03"]
BANNERS = (1, 2, 3)
Clicks = dict[tuple[int, int], int]
WIDE = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def unix(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


def make_clicks() -> Clicks:
    chance = random.Random(5)
    made: Clicks = {}
    for change in CHANGES:
        first = unix(change) - 86_400
        for banner in BANNERS:
            for minute in chance.sample(range(3 * 1440), 700):
                made[banner, first + 60 * minute] = chance.randint(1, 50)
    return made


CLICKS = make_clicks()
FIRST = min(minute for _, minute in CLICKS)
moments = st.sampled_from(CHANGES).flatmap(
    lambda day: st.integers(-86_400, 3 * 86_400).map(lambda s: unix(day) + s)
)
lengths = st.one_of(st.integers(0, 7_200), st.integers(0, 4 * 86_400), st.integers(0, 240 * 86_400))


@pytest.fixture(scope="module")
def data_api(postgres_server: PostgresServer) -> Iterator[Api]:
    with serve(postgres_server) as api:
        api.put(CLICKS)
        yield api


def truth(banner: int, since: int, until: int) -> Clicks:
    """What the range takes in: every minute that overlaps it."""
    first, end = since // 60 * 60, -(-until // 60) * 60 if until > since else since // 60 * 60
    return {k: v for k, v in CLICKS.items() if k[0] == banner and first <= k[1] < end}


def ask(api: Api, banner: int, since: int, until: int, **more: str) -> dict[str, Any]:
    query = urlencode({"tsFrom": since, "tsTo": until, **more})
    answer = api.run(api.answers.over_nats(messages.StatsRequest(banner, query), 2**20))
    return {"status": answer.status, **json.loads(answer.body)}


@WIDE
@given(st.sampled_from(BANNERS), moments, lengths, st.sampled_from(["1h", "1d"]))
def test_totals_are_the_sum_of_the_minutes(
    data_api: Api, banner: int, since: int, length: int, step: str
) -> None:
    got = ask(data_api, banner, since, since + length, step=step)
    assert got["Counts"] == sum(truth(banner, since, since + length).values())


@WIDE
@given(
    st.sampled_from(BANNERS), moments, st.integers(0, 6 * 86_400), st.sampled_from(list(STEPS)),
    st.sampled_from(ZONES),
)  # fmt: skip
def test_every_bucket_is_the_sum_of_its_minutes(
    data_api: Api, banner: int, since: int, length: int, step: str, tz: str
) -> None:
    until = since + length
    filled = ask(data_api, banner, since, until, step=step, tz=tz, fill="zero")
    points = [(unix(p["ts"].removesuffix("Z")), p["v"]) for p in filled["stats"]]
    edges = [at for at, _ in points] + [2**40]
    minutes = truth(banner, since, until)
    for n, (at, clicks) in enumerate(points):
        inside = [v for (_, minute), v in minutes.items() if at <= minute < edges[n + 1]]
        assert clicks == sum(inside), (at, tz)
    assert filled["Counts"] == sum(minutes.values())
    sparse = ask(data_api, banner, since, until, step=step, tz=tz)
    assert sparse["stats"] == [p for p in filled["stats"] if p["v"]]


@WIDE
@given(
    st.sampled_from(BANNERS), moments, st.lists(st.integers(0, 3_000), min_size=1, max_size=5),
    st.sampled_from(list(STEPS)), st.sampled_from(ZONES),
)  # fmt: skip
def test_any_split_of_a_range_adds_up(
    data_api: Api, banner: int, since: int, parts: list[int], step: str, tz: str
) -> None:
    # Splits lie on minutes: a minute that two ranges overlap is in both, by the contract.
    edges = [since // 60 * 60]
    for part in parts:
        edges.append(edges[-1] + part * 60)
    whole = ask(data_api, banner, edges[0], edges[-1], step="1h")["Counts"]
    split = [
        ask(data_api, banner, a, b, step=step if b - a < 600_000 else "1d", tz=tz)["Counts"]
        for a, b in pairwise(edges)
    ]
    assert sum(split) == whole


@pytest.mark.parametrize("tz", ["Europe/Berlin", "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("change", CHANGES)
def test_days_around_a_change_of_the_clock(data_api: Api, tz: str, change: str) -> None:
    """Each local day is what its minutes say, by the date on a wall clock."""
    zone = ZoneInfo(tz)
    first = datetime.fromisoformat(change).replace(tzinfo=zone) - timedelta(days=1)
    last = first + timedelta(days=3)
    days: dict[str, int] = {}
    for (banner, minute), clicks in CLICKS.items():
        if banner == 1 and first.timestamp() <= minute < last.timestamp():
            name = datetime.fromtimestamp(minute, zone).date().isoformat()
            days[name] = days.get(name, 0) + clicks
    got = ask(data_api, 1, int(first.timestamp()), int(last.timestamp()), step="1d", tz=tz)
    seen = {
        datetime.fromisoformat(p["ts"]).astimezone(zone).date().isoformat(): p["v"]
        for p in got["stats"]
    }
    assert seen == days


@pytest.mark.parametrize("tz", ZONES)
@pytest.mark.parametrize("step", ["1w", "1mo"])
def test_weeks_and_months_of_a_wall_calendar(data_api: Api, tz: str, step: str) -> None:
    zone = ZoneInfo(tz)
    sums: dict[tuple[int, int], int] = {}
    for (banner, minute), clicks in CLICKS.items():
        if banner == 2:
            name = period(datetime.fromtimestamp(minute, zone), step)
            sums[name] = sums.get(name, 0) + clicks
    until = max(minute for _, minute in CLICKS) + 60
    got = ask(data_api, 2, FIRST, until, step=step, tz=tz)
    seen = {
        period(datetime.fromisoformat(p["ts"]).astimezone(zone), step): p["v"] for p in got["stats"]
    }
    assert seen == sums


def period(local: datetime, step: str) -> tuple[int, int]:
    return (local.year, local.month) if step == "1mo" else local.isocalendar()[:2]


def test_several_banners_and_top_say_the_same(data_api: Api) -> None:
    for since, until in ((FIRST, FIRST + 86_400 * 300), (FIRST + 3_000, FIRST + 99_999)):
        sums = {b: sum(truth(b, since, until).values()) for b in BANNERS}
        body = data_api.get("/stats", tsFrom=since, tsTo=until, step="1d", tz="Asia/Kolkata").json()
        assert {b["bannerID"]: b["Counts"] for b in body["banners"]} == sums
        ranked = data_api.get("/top", tsFrom=since, tsTo=until).json()
        assert {b["bannerID"]: b["Counts"] for b in ranked["top"]} == sums
        assert ranked["Counts"] == sum(sums.values())


def frame(source: UUID, seq: int, minute: int, pairs: dict[int, int], total: int) -> Frame:
    ids = b"".join(banner.to_bytes(4, "little") for banner in sorted(pairs))
    counts = b"".join(pairs[banner].to_bytes(8, "little") for banner in sorted(pairs))
    return Frame(source, seq, minute, minute * 60 * 10**9, total, False, ids, counts)


def test_rollups_equal_the_minutes_after_late_deltas(database: str) -> None:
    """The writer itself, with deltas up to a month late, in any order of the minutes."""
    chance = random.Random(8)
    now = int(datetime.now(UTC).timestamp()) // 60
    total, sent = 0, 0

    async def write() -> None:
        nonlocal total, sent
        await migrations.apply_schema(database)
        store = Store(database)
        source = UUID(int=chance.getrandbits(128))
        seq = 0
        for _ in range(12):
            batch = []
            for _ in range(chance.randint(1, 8)):
                seq += 1
                late = chance.choice([0, 1, 59, 60, 61, 1440, 30 * 1440, chance.randint(0, 45_000)])
                pairs = {b: chance.randint(1, 9) for b in chance.sample(range(20), 5)}
                total += sum(pairs.values())
                batch.append(Arrival(source, seq, frame(source, seq, now - late, pairs, total)))
            await store.apply(batch)
        await store.close()

    asyncio.run(write())
    sql.assert_rollups_equal_minutes(database)
    assert sum(sql.counts(database).values()) == total


def test_the_oracle_can_fail(postgres_server: PostgresServer) -> None:
    """A rollup that is wrong by one is found: the answers really read the rollups."""
    with serve(postgres_server) as api:
        put_minutes(api.dsn, {(1, FIRST): 5})
        with psycopg.connect(api.dsn) as connection:
            connection.execute("UPDATE rollup_day SET clicks = clicks + 1")
        day = FIRST // 86_400 * 86_400
        assert ask(api, 1, day, day + 86_400, step="1d")["Counts"] == 6
        assert ask(api, 1, day, day + 86_400, step="1d", tz="Europe/Berlin")["Counts"] == 5
