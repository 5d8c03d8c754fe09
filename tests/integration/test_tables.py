"""CSV and NDJSON of any size: every row once, whatever the pages; a table that is cut shows it."""

from __future__ import annotations

import csv
import io
import json
import random
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4
from zoneinfo import ZoneInfo

import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aggregator.reading.buckets import MAX_POINTS, STEPS
from aggregator.reading.kept import Kept, Question
from aggregator.reading.pieces import Whose
from aggregator.reading.queries import Reader, Row
from aggregator.reading.tables import Cursor, Cut, Table
from aggregator.reading.timerange import Range
from aggregator.writing.fold import Mark
from clickmill.contract.problem import stats_unreadable
from tests.support.fix_api import Api, check_error, serve
from tests.support.fix_postgres import PostgresServer
from tests.support.raw import Connection, connected
from tests.support.wait import eventually

DAY = 86_400
FIRST = int(datetime(2024, 3, 30, tzinfo=UTC).timestamp())
BANNERS = (0, 5, 6, 1_023, 1_024, 70_000)
ZONES = ["UTC", "Europe/Berlin", "Asia/Kolkata", "Australia/Lord_Howe"]
Minutes = dict[tuple[int, int], int]


def make_minutes() -> Minutes:
    chance = random.Random(3)
    return {
        (banner, FIRST + 60 * minute): chance.randint(1, 9)
        for banner in BANNERS
        for minute in [*chance.sample(range(9 * 1440), 400), *range(1_500, 1_600)]
    }


MINUTES = make_minutes()


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[Api]:
    with serve(postgres_server) as api:
        api.put(MINUTES)
        yield api


async def everything(_: Range) -> Kept:
    return Kept()


async def pages_of(api: Api, cut: Cut, banners: list[int] | None, most: int) -> list[bytes]:
    table = Table(Reader(api.pool), cut, banners, everything, most)
    return await all_pages(table, table.begin(FIRST, FIRST + 10 * DAY))


async def all_pages(table: Table, begin: Cursor) -> list[bytes]:
    page = await table.page(begin)
    texts = [page.text]
    while page.next is not None:
        page = await table.page(page.next)
        texts.append(page.text)
    return texts


def in_json(api: Api, banners: list[int] | None, **asked: Any) -> list[dict[str, Any]]:
    """The points as JSON has them, in lines of a table."""
    named = {} if banners is None else {"bannerID": banners}
    body = api.get("/stats", **asked, **named).raise_for_status().json()
    return [
        {"ts": point["ts"], "bannerID": series["bannerID"], "v": point["v"]}
        for series in body["banners"]
        for point in series["stats"]
    ]


def order(line: dict[str, Any]) -> tuple[int, str]:
    return line["bannerID"], line["ts"]


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.sampled_from([None, [5], [5, 6, 7, 70_000]]), st.sampled_from(list(STEPS)),
    st.sampled_from(ZONES), st.booleans(), st.integers(0, 3 * DAY), st.integers(0, 3 * DAY),
    st.sampled_from([1, 61, 300, 1_500, 10_000]),
)  # fmt: skip
def test_pages_of_any_size_hold_every_row_once(
    filled: Api, banners: list[int] | None, step: str, tz: str, zero: bool, since: int,
    length: int, most: int,
) -> None:  # fmt: skip
    if step == "1m":
        length //= 4  # as many points as go into JSON
    asked = {"tsFrom": FIRST + since, "tsTo": FIRST + since + length, "step": step, "tz": tz}
    fill = {"fill": "zero"} if zero and banners else {}
    moments = (datetime.fromtimestamp(FIRST + since + n, UTC) for n in (0, length))
    question = Question(Range(*moments), step, ZoneInfo(tz))
    texts = filled.run(pages_of(filled, Cut(question, bool(fill), "ndjson"), banners, most))
    *lines, last = [json.loads(line) for text in texts for line in text.splitlines()]
    expected = in_json(filled, banners, **asked, **fill)
    assert sorted(lines, key=order) == sorted(expected, key=order)
    assert last["complete"] is True
    assert (last["rows"], last["Counts"]) == (len(lines), sum(line["v"] for line in lines))
    if step in ("1m", "5m", "15m"):
        assert all(len(text.splitlines()) <= max(most, 60) + 1 for text in texts)


def test_more_points_than_json_takes(filled: Api) -> None:
    asked = {"tsFrom": FIRST, "tsTo": FIRST + 9 * DAY}
    check_error(filled.get("/stats/5", **asked), 400, "too_many_points")
    whole = filled.get("/stats/5", format="csv", fill="zero", **asked)
    assert whole.headers["transfer-encoding"] == "chunked"
    rows = list(csv.reader(io.StringIO(whole.text)))
    assert rows[0] == ["ts", "bannerID", "v"]
    points = [(int(at_of(ts)), int(v)) for ts, banner, v in rows[1:-1] if banner == "5"]
    assert points == [(at, MINUTES.get((5, at), 0)) for at in range(FIRST, FIRST + 9 * DAY, 60)]
    assert len(points) == 9 * 1440 > MAX_POINTS
    clicks = sum(v for (banner, _), v in MINUTES.items() if banner == 5)
    assert rows[-1] == ["# complete until 2024-04-08T00:00:00Z", str(9 * 1440), str(clicks)]


def at_of(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_all_banners_in_order_of_days(filled: Api) -> None:
    answer = filled.get("/stats", format="ndjson", tsFrom=FIRST, tsTo=FIRST + 9 * DAY)
    *lines, last = [json.loads(line) for line in answer.text.splitlines()]
    seen = {(line["bannerID"], int(at_of(line["ts"]))): line["v"] for line in lines}
    assert seen == MINUTES
    assert last == {
        "complete": True, "tsTo": "2024-04-08T00:00:00Z", "rows": len(MINUTES),
        "Counts": sum(MINUTES.values()),
    }  # fmt: skip


def test_a_range_of_all_times_costs_what_there_is(filled: Api) -> None:
    """Pages are read only where there can be clicks."""
    asked = {"tsFrom": 0, "tsTo": "9000-01-01T00:00:00Z", "format": "csv"}
    for step in ("1m", "1h", "1mo"):
        last = filled.get("/stats/5", step=step, **asked).text.split("\r\n")[-2]
        assert last.startswith("# complete until 9000-01-01T00:00:00Z,")
        assert last.endswith(f",{sum(v for (b, _), v in MINUTES.items() if b == 5)}")


def test_until_what_is_complete(api: Api, banner: int) -> None:
    """tsTo=complete ends with the last bucket of which every click is counted."""
    ask = {"tsFrom": "2024-12-09T00:00:00Z", "tsTo": "complete"}
    through = datetime(2024, 12, 10, 12, 58, 3, tzinfo=UTC)
    nanoseconds = int(through.timestamp()) * 10**9
    api.put_range(banner, int(through.timestamp()) // 60 * 60 - 60, [30, 12])
    try:
        api.call(lambda: api.progress.reload(held_back(nanoseconds), new_session=True))
        for step, tz, until in (
            ("1m", "UTC", "2024-12-10T12:58:00Z"),
            ("1h", "UTC", "2024-12-10T12:00:00Z"),
            ("1d", "Europe/Berlin", "2024-12-09T23:00:00Z"),
        ):
            body = api.get(f"/stats/{banner}", step=step, tz=tz, **ask).json()
            assert body["tsTo"] == until
        assert api.get(f"/stats/{banner}", **{**ask, "step": "1m"}).json()["Counts"] == 30
        assert api.get("/top", **ask).json()["tsTo"] == "2024-12-10T12:58:00Z"
        empty = api.get(f"/stats/{banner}", step="1mo", **ask).json()
        assert (empty["tsFrom"], empty["tsTo"]) == (ask["tsFrom"], ask["tsFrom"])
        api.call(api.progress.forget)
        check_error(api.get(f"/stats/{banner}", **ask), 503, "stats_unavailable")
    finally:
        api.call(lambda: api.progress.reload({}, new_session=True))


def held_back(nanoseconds: int) -> Any:
    return {uuid4(): (Mark(1, 5, nanoseconds, False), nanoseconds)}


def test_too_many_banners_to_fill(filled: Api) -> None:
    other = FIRST - 300 * DAY
    with psycopg.connect(filled.dsn) as connection:
        connection.execute(
            "INSERT INTO rollup_day SELECT id, to_timestamp(%s), 1 FROM generate_series(1, %s) id",
            [other, MAX_POINTS + 1],
        )
    asked = {"tsFrom": other, "tsTo": other + DAY, "step": "1d", "format": "csv"}
    said = check_error(filled.get("/stats", fill="zero", **asked), 400, "too_many_banners")
    assert "name the banners" in said
    assert filled.get("/stats", **asked).text.count("\n") == MAX_POINTS + 3


def test_a_table_that_is_cut_lacks_its_last_line(postgres_server: PostgresServer) -> None:
    """The table goes away while a slow client reads: its answer breaks off, and shows it."""
    with serve(postgres_server) as api:
        api.put({(1, FIRST): 1})
        with psycopg.connect(api.dsn, autocommit=True) as database:
            database.execute(
                "INSERT INTO banner_minute SELECT b, to_timestamp(%s) + m * interval '1 minute', 7"
                " FROM generate_series(2, 1001) b, generate_series(0, 599) m",
                [FIRST],
            )
            with connected(api.port, timeout=30) as client:
                client.send(b"GET /stats?format=csv&tsTo=complete&tsFrom=%d HTTP/1.1\r\n" % FIRST)
                client.send(b"Host: 127.0.0.1\r\nConnection: close\r\n\r\n")
                got = client.socket.recv(65_536)
                reads = reads_of_minutes(database)
                eventually(lambda: reads() == reads(), 30, "the server waits for its client")
                database.execute("ALTER TABLE banner_minute RENAME TO gone")
                while piece := received(client):
                    got += piece
        assert got.startswith(b"HTTP/1.1 200 OK")
        assert got.count(b"\n") < 600_000
        assert b"# complete" not in got
        assert not got.endswith(b"0\r\n\r\n"), "the answer ended as if it were whole"


def reads_of_minutes(database: psycopg.Connection[Any]) -> Any:
    """Asked a while apart: how many statements this database has seen, but for ours."""

    def count() -> int:
        row = database.execute(
            "SELECT sum(calls) FROM (SELECT pg_sleep(0.5), seq_scan + idx_scan AS calls"
            " FROM pg_stat_user_tables WHERE relname LIKE 'banner_minute_%') AS s"
        ).fetchone()
        assert row is not None
        return int(row[0])

    return count


def received(client: Connection) -> bytes:
    try:
        return client.socket.recv(1 << 20)
    except ConnectionError:
        return b""


class Watched(Reader):
    """It notes how many of MANY banners it is asked for, and answers for `most` of them at once."""

    def __init__(self, api: Api, most: int) -> None:
        super().__init__(api.pool)
        self.most, self.asked = most, [0]

    async def rows(self, whose: Whose, *more: Any) -> list[Row]:
        first, end = (
            int(str(whose.params.get(n, d))) for n, d in (("first", 0), ("end", MANY + 1))
        )
        self.asked.append(max(0, min(end, MANY + 1) - max(first, 1)))
        if self.asked[-1] > self.most:
            raise stats_unreadable()
        return await super().rows(whose, *more)


MANY = 6_000


def test_no_page_asks_for_much_more_than_it_holds(filled: Api) -> None:
    """Where there are no banners a page takes in more and more IDs; the next slice begins small.
    What is too much for one statement is asked for in smaller pages."""
    other = FIRST - 200 * DAY
    with psycopg.connect(filled.dsn) as connection:
        connection.execute(
            "INSERT INTO rollup_hour SELECT id, to_timestamp(%s + 3600 * hour), 1"
            " FROM generate_series(1, %s) id, generate_series(0, 2) hour",
            [other, MANY],
        )
    moments = (datetime.fromtimestamp(other + n, UTC) for n in (0, 3 * 3_600))
    cut = Cut(Question(Range(*moments), "1h", ZoneInfo("UTC")), False, "ndjson")
    for rows, most in ((500, MANY), (3_000, 1_024)):
        reader = Watched(filled, most)
        table = Table(reader, cut, None, everything, rows)
        texts = filled.run(all_pages(table, table.begin(other, other + DAY)))
        lines = [json.loads(line) for text in texts for line in text.splitlines()]
        assert len({(line["bannerID"], line["ts"]) for line in lines[:-1]}) == 3 * MANY
        assert lines[-1]["rows"] == 3 * MANY
        if most == MANY:
            assert max(reader.asked) <= 1_024


def test_streams_are_bounded(filled: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aggregator.reading.tables.MAX_OPEN", 1)
    asked: dict[str, str] = {
        "tsFrom": "0", "tsTo": "3000-01-01T00:00:00Z", "format": "csv", "fill": "zero"
    }  # fmt: skip
    with filled.client.stream("GET", "/stats/5", params=asked) as endless:
        assert endless.status_code == 200
        chunks = endless.iter_bytes()
        for _ in range(3):
            next(chunks)
        check_error(filled.get("/stats/5", **asked), 429, "too_many_tables")
        assert filled.get("/stats/5").status_code == 200

    def free() -> bool:
        with filled.client.stream("GET", "/stats/5", params=asked) as again:
            return again.status_code == 200

    eventually(free, 30, "a client that went away is noticed")
