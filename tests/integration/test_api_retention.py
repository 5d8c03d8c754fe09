"""Statistics over ranges whose minutes are gone: from hours and days, exact, or refused.

Clicks of 40 days, of which the minutes of the last 30 are left; the oracle is a plain dictionary.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

import pytest

from aggregator.postgres import connection as postgres
from aggregator.postgres.retention import Days, maintain
from clickmill import messages
from tests.support import sql
from tests.support.fix_api import Api, check_error, serve
from tests.support.fix_postgres import PostgresServer

HOUR, DAY = 3_600, 86_400
KEPT_DAYS = 30
BANNERS = (1, 2)


class Old:
    """The application, its clicks by (banner, minute), and the first minute that is left."""

    def __init__(self, api: Api) -> None:
        self.api = api
        self.today = int(datetime.now(UTC).timestamp()) // DAY * DAY
        self.kept_from = self.today - KEPT_DAYS * DAY
        self.first = self.today - 40 * DAY
        chance = random.Random(12)
        self.clicks = {
            (banner, self.first + 60 * minute): chance.randint(1, 50)
            for banner in BANNERS
            for minute in chance.sample(range(40 * 1_440), 4_000)
        }
        api.put(self.clicks)

    def truth(self, since: int, until: int, banner: int = 1) -> int:
        return sum(v for (b, at), v in self.clicks.items() if b == banner and since <= at < until)

    def retain(self, days: Days) -> None:
        async def run() -> None:
            async with postgres.session(self.api.dsn, "test") as connection:
                assert await maintain(connection, days, grace_s=0)

        asyncio.run(run())

    def ask(self, since: int, until: int, **more: str) -> Any:
        return self.api.get("/stats/1", tsFrom=since, tsTo=until, **more)


@pytest.fixture(scope="module")
def old(postgres_server: PostgresServer) -> Iterator[Old]:
    with serve(postgres_server) as api:
        old = Old(api)
        old.retain(Days(KEPT_DAYS, 0))
        ((first,),) = sql.query(api.dsn, "SELECT min(minute) FROM banner_minute")
        assert first.timestamp() >= old.kept_from
        yield old


@pytest.mark.parametrize("step", ["15m", "1h", "1d"])
@pytest.mark.parametrize("tz", ["UTC", "Europe/Berlin", "Asia/Kolkata", "Asia/Kathmandu"])
def test_rollups_stay_the_same_after_minutes_are_deleted(old: Old, step: str, tz: str) -> None:
    body = old.ask(old.first, old.today, step=step, tz=tz).json()
    assert body["Counts"] == old.truth(old.first, old.today)
    starts = [int(datetime.fromisoformat(point["ts"]).timestamp()) for point in body["stats"]]
    for point, since, until in zip(body["stats"], starts, [*starts[1:], old.today], strict=True):
        assert point["v"] == old.truth(since, until)


def test_a_step_that_needs_minutes_is_refused_with_the_one_that_works(old: Old) -> None:
    for step in ("1m", "5m"):
        sentence = check_error(old.ask(old.first, old.first + DAY, step=step), 400, "too_fine")
        assert "use step=15m, or a tsFrom from " in sentence
    across = old.ask(old.kept_from - 60, old.kept_from + HOUR)
    check_error(across, 400, "too_fine")
    inside = old.ask(old.kept_from, old.kept_from + 5 * HOUR)
    assert inside.json()["Counts"] == old.truth(old.kept_from, old.kept_from + 5 * HOUR)


def test_a_range_that_begins_before_and_ends_after(old: Old) -> None:
    """From rollups where minutes are gone, and by the minute at its end."""
    since, until = old.first + 7 * HOUR, old.kept_from + 5 * HOUR + 780
    for step in ("1h", "1d"):
        assert old.ask(since, until, step=step).json()["Counts"] == old.truth(since, until)
    sentence = check_error(old.ask(since + 60, until, step="1h"), 400, "too_fine")
    assert f"use tsFrom={datetime.fromtimestamp(since, UTC):%Y-%m-%dT%H:%M:%SZ}, or" in sentence


def test_zones_with_half_hours_need_minutes_where_there_are_no_quarter_hours(old: Old) -> None:
    """As on tables of a release before 0.3."""
    sql.query(old.api.dsn, "UPDATE rollup_mark SET quarter_from = quarter")
    try:
        check_half_hours(old)
    finally:
        sql.query(old.api.dsn, "UPDATE rollup_mark SET quarter_from = 'epoch'")


def check_half_hours(old: Old) -> None:
    sentence = check_error(
        old.ask(old.first, old.today, step="1d", tz="Asia/Kolkata"), 400, "too_fine"
    )
    assert "use tz=UTC, or" in sentence
    since = old.kept_from + DAY
    body = old.ask(since, old.today, step="1d", tz="Asia/Kolkata").json()
    assert body["Counts"] == old.truth(since, old.today)


def test_every_answer_is_exact_or_refused(old: Old) -> None:
    chance = random.Random(13)
    refused = 0
    for _ in range(150):
        unit = chance.choice([60, HOUR, DAY])
        since = old.first + unit * chance.randrange(38 * DAY // unit)
        until = min(since + unit * chance.randrange(20 * DAY // unit), old.today)
        step, tz = (
            chance.choice(["1m", "5m", "15m", "1h", "1d"]),
            chance.choice(["UTC", "Asia/Kolkata"]),
        )
        answer = old.ask(since, until, step=step, tz=tz)
        if answer.status_code == 200:
            assert answer.json()["Counts"] == old.truth(since, until), (since, until, step, tz)
        elif answer.json()["code"] == "too_fine":
            refused += 1
            assert since < old.kept_from
        else:
            check_error(answer, 400, "too_many_points")
    assert 10 < refused < 130


def test_several_banners_all_of_them_and_the_top(old: Old) -> None:
    since, until = old.first + HOUR, old.kept_from + 900
    sums = {banner: old.truth(since, until, banner) for banner in BANNERS}
    for named in ({}, {"bannerID": list(BANNERS)}):
        span = {"tsFrom": since, "tsTo": until, **named}
        body = old.api.get("/stats", step="1h", **span).json()
        assert {b["bannerID"]: b["Counts"] for b in body["banners"]} == sums
        check_error(old.api.get("/stats", **span), 400, "too_fine")
    ranked = old.api.get("/top", tsFrom=since, tsTo=until).json()
    assert {entry["bannerID"]: entry["Counts"] for entry in ranked["top"]} == sums
    sentence = check_error(old.api.get("/top", tsFrom=since + 60, tsTo=until), 400, "too_fine")
    assert "use tsFrom=" in sentence


def test_other_formats_and_carriers_say_the_same(old: Old) -> None:
    span = {"tsFrom": old.first, "tsTo": old.first + DAY}
    clicks = old.truth(old.first, old.first + DAY)
    for form in ("csv", "ndjson"):
        table = old.ask(old.first, old.first + DAY, step="1d", format=form)
        assert str(clicks) in table.text
        check_error(old.ask(old.first, old.first + DAY, format=form), 400, "too_fine")
    posted = old.api.client.post("/stats/1", json=span)
    check_error(posted, 400, "too_fine")
    for step, status in (("1m", 400), ("1h", 200)):
        request = messages.StatsRequest(1, urlencode(span | {"step": step}))
        answer = old.api.run(old.api.answers.over_nats(request, 2**20))
        assert answer.status == status
        assert json.loads(answer.body).get("code") == ("too_fine" if status == 400 else None)
        assert json.loads(answer.body).get("Counts") == (clicks if status == 200 else None)


def test_nothing_is_refused_while_all_minutes_are_kept(old: Old) -> None:
    """The last hour, and the time before the first click."""
    for span in ({}, {"tsFrom": "2024-12-10T12:56:00Z", "tsTo": "2024-12-10T12:57:59Z"}):
        for path in ("/stats/1", "/stats", "/top"):
            assert old.api.get(path, **span).status_code == 200


def test_hours_and_days_past_their_retention_are_gone(postgres_server: PostgresServer) -> None:
    """Announced, they are out of every answer at once, though rows go one batch at a time."""
    with serve(postgres_server) as api:
        old = Old(api)
        gone = old.today - 35 * DAY
        moment = datetime.fromtimestamp(gone, UTC)
        sql.query(api.dsn, "INSERT INTO retention VALUES ('rollup', '2020-01-01', %s)", moment)
        for _ in range(2):
            for step in ("1h", "1d"):
                body = old.ask(old.first, old.today, step=step).json()
                assert body["Counts"] == old.truth(gone, old.today)
                assert datetime.fromisoformat(body["stats"][0]["ts"]) >= moment
            total = api.get("/top", tsFrom=old.first, tsTo=old.today).json()["Counts"]
            assert total == sum(old.truth(gone, old.today, banner) for banner in BANNERS)
            old.retain(Days(KEPT_DAYS, 35))
        ((first,),) = sql.query(api.dsn, "SELECT min(hour) FROM rollup_hour")
        assert moment <= first < moment + timedelta(days=1)
