"""Corrections: net everywhere, raw on request, never changed, taken back by their opposite."""

from __future__ import annotations

import csv
import io
import json
import random
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import httpx
import psycopg
import pytest

from aggregator.postgres.connection import LOCK_CLASS, LOCK_CLOSING
from aggregator.writing.fold import Mark
from clickmill import messages
from tests.support.fix_api import Api, OpenApi, check_error, serve
from tests.support.fix_postgres import PostgresServer

FIRST = int(datetime(2024, 12, 10, tzinfo=UTC).timestamp())
HOUR, DAY = 3_600, 86_400
WHY = {"author": "jo", "reason": "a robot"}
Minutes = Counter[tuple[int, int]]


@pytest.fixture(scope="module")
def filled(postgres_server: PostgresServer) -> Iterator[Api]:
    with serve(postgres_server) as api:
        yield api


class Books:
    """Banners of one test: what was counted and what it is corrected by, minute by minute."""

    def __init__(self, api: Api, first: int) -> None:
        self.api, self.first = api, first
        self.banners = [first * 10 + n for n in range(3)]
        self.raw: Minutes = Counter()
        self.fixed: Minutes = Counter()

    def click(self, seed: int) -> None:
        chance = random.Random(seed)
        new = {
            (banner, FIRST + 60 * minute): chance.randint(1, 9)
            for banner in self.banners
            for minute in chance.sample(range(2 * 1440), 500)
        }
        self.api.put(new)
        self.raw.update(new)

    def post(self, **body: Any) -> httpx.Response:
        return self.api.client.post("/corrections", json={**WHY, **body})

    def correct(self, **body: Any) -> dict[str, Any]:
        answer = self.post(**body)
        assert answer.status_code == 201, answer.text
        correction: dict[str, Any] = answer.json()
        return correction

    def net(self, banner: int, since: int, until: int) -> int:
        both = (*self.raw.items(), *self.fixed.items())
        return sum(v for (b, at), v in both if b == banner and since <= at < until)

    def check(self) -> None:
        """Every way to ask says the same, and it is the truth."""
        for since, until in (
            (FIRST, FIRST + 2 * DAY), (FIRST + 5 * HOUR + 120, FIRST + 30 * HOUR + 1_020),
        ):  # fmt: skip
            truth = {banner: self.net(banner, since, until) for banner in self.banners}
            span = {"tsFrom": since, "tsTo": until}
            for step in ("5m", "15m", "1h", "1d", "1mo"):
                for tz in ("UTC", "Asia/Kolkata"):
                    self._check_series(truth, {**span, "step": step, "tz": tz})
            ranked = self.api.get("/top", limit=1_000, **span).json()["top"]
            seen = {x["bannerID"]: x["Counts"] for x in ranked if x["bannerID"] in truth}
            assert seen == {banner: clicks for banner, clicks in truth.items() if clicks}
        self._check_raw()

    def _check_series(self, truth: dict[int, int], asked: dict[str, Any]) -> None:
        body = self.api.get("/stats", bannerID=self.banners, **asked).json()
        assert {x["bannerID"]: x["Counts"] for x in body["banners"]} == truth
        assert body["Counts"] == sum(truth.values())
        assert all(p["v"] > 0 for x in body["banners"] for p in x["stats"])
        one = self.banners[0]
        over_nats = messages.StatsRequest(one, str(httpx.QueryParams(asked)))
        alone = self.api.run(self.api.answers.over_nats(over_nats, 2**20))
        assert json.loads(alone.body)["Counts"] == truth[one]
        for form in ("csv", "ndjson"):
            text = self.api.get("/stats", bannerID=self.banners, format=form, **asked).text
            assert counts_in(text, form) == {b: n for b, n in truth.items() if n}

    def _check_raw(self) -> None:
        asked = {"tsFrom": FIRST, "tsTo": FIRST + 2 * DAY, "include": "raw"}
        for banner in self.banners:
            raw = sum(v for (b, _), v in self.raw.items() if b == banner)
            fixed = sum(v for (b, _), v in self.fixed.items() if b == banner)
            body = self.api.get(f"/stats/{banner}", step="1h", **asked).json()
            assert (body["raw"], body["correction"], body["Counts"]) == (raw, fixed, raw + fixed)
            assert all(p["raw"] + p["correction"] == p["v"] for p in body["stats"])
            assert sum(p["raw"] for p in body["stats"]) == raw
            text = self.api.get(f"/stats/{banner}", format="csv", **asked).text
            head, *rows, last = csv.reader(io.StringIO(text))
            assert head == ["ts", "bannerID", "v", "raw", "correction"]
            sums = [sum(int(row[n]) for row in rows) for n in (2, 3, 4)]
            assert sums == [raw + fixed, raw, fixed]
            assert len(last) == 5
            ranked = self.api.get("/top", limit=1_000, **asked).json()["top"]
            for entry in ranked:
                if entry["bannerID"] == banner:
                    assert (entry["raw"], entry["correction"]) == (raw, fixed)


def counts_in(text: str, form: str) -> dict[int, int]:
    found: Counter[int] = Counter()
    if form == "csv":
        for row in csv.DictReader(line for line in text.splitlines() if not line.startswith("#")):
            found[int(row["bannerID"])] += int(row["v"])
    else:
        *lines, last = map(json.loads, text.splitlines())
        for line in lines:
            found[line["bannerID"]] += line["v"]
        assert last["Counts"] == found.total()
    return dict(found)


@pytest.fixture
def books(filled: Api, banner: int) -> Books:
    books = Books(filled, banner)
    books.click(banner)
    return books


def test_statistics_are_net_in_every_shape_and_can_be_raw(books: Books) -> None:
    books.check()
    one, two, _ = books.banners
    since, until = FIRST + 3 * HOUR + 420, FIRST + 20 * HOUR + 60
    made = books.correct(bannerID=one, tsFrom=since, tsTo=until, void=True)
    gone = {k: -v for k, v in books.raw.items() if k[0] == one and since <= k[1] < until}
    assert made["clicks"] == sum(gone.values())
    books.fixed.update(gone)
    books.check()
    added = books.correct(
        bannerID=[one, two], tsFrom=FIRST + 10 * HOUR, tsTo=FIRST + 11 * HOUR, clicksPerMinute=3
    )
    assert added["clicks"] == 2 * 60 * 3
    more = {(b, FIRST + 10 * HOUR + 60 * n): 3 for b in (one, two) for n in range(60)}
    books.fixed.update(more)
    books.check()
    books.click(7)  # late clicks come on top
    books.check()
    for correction, minutes in ((made, gone), (added, more)):
        back = books.correct(takesBack=correction["id"])
        assert back["clicks"] == -correction["clicks"]
        assert back["bannerID"] == correction["bannerID"]
        books.fixed.subtract(minutes)
        books.check()


def test_the_list_is_the_audit_trail(books: Books) -> None:
    banner = books.banners[0]
    span = {"tsFrom": "2024-12-10T12:00:00+01:00", "tsTo": "2024-12-10T11:30:30Z"}
    first = books.correct(bannerID=banner, clicksPerMinute=5, **span)
    assert first == {
        "id": first["id"], "madeAt": first["madeAt"], "author": "jo", "reason": "a robot",
        "bannerID": [banner], "tsFrom": "2024-12-10T11:00:00Z", "tsTo": "2024-12-10T11:31:00Z",
        "clicks": 5 * 31, "clicksPerMinute": 5,
    }  # fmt: skip
    back = books.correct(takesBack=first["id"])
    again = books.correct(takesBack=back["id"])
    listed = books.api.get("/corrections", bannerID=banner).json()
    assert [x["id"] for x in listed["corrections"]] == [first["id"], back["id"], again["id"]]
    assert listed["corrections"][0] == {**first, "takenBackBy": back["id"]}
    assert listed["corrections"][1]["takenBackBy"] == again["id"]
    assert listed["next"] is None
    page = books.api.get("/corrections", bannerID=banner, limit=2).json()
    assert page["next"] == back["id"]
    rest = books.api.get("/corrections", bannerID=banner, after=page["next"]).json()
    assert [x["id"] for x in rest["corrections"]] == [again["id"]]
    assert books.api.get("/corrections", bannerID=99_998).json()["corrections"] == []


def test_no_row_of_the_ledger_can_be_changed(books: Books) -> None:
    books.correct(bannerID=books.banners[0], tsFrom=FIRST, tsTo=FIRST + 60, clicksPerMinute=1)
    with psycopg.connect(books.api.dsn, autocommit=True) as connection:
        for table in ("correction", "correction_minute"):
            for sql in (
                f"UPDATE {table} SET clicks = 0",
                f"DELETE FROM {table}",
                f"TRUNCATE {table}",
            ):
                with pytest.raises(psycopg.errors.RaiseException, match="never changed"):
                    connection.execute(sql.encode())


def test_no_minute_falls_below_zero(books: Books) -> None:
    one = books.banners[0]
    span = {"bannerID": one, "tsFrom": FIRST, "tsTo": FIRST + DAY}
    said = check_error(books.post(clicksPerMinute=-1, **span), 400, "negative_clicks")
    assert f"banner {one} would have -1 clicks at 2024-12-10T00:0" in said
    added = books.correct(clicksPerMinute=4, **span)
    books.correct(void=True, **span)
    said = check_error(books.post(takesBack=added["id"]), 400, "negative_clicks")
    assert "take later corrections of it back first" in said
    assert (
        books.api.get(
            f"/stats/{one}", step="1d", **{k: span[k] for k in ("tsFrom", "tsTo")}
        ).json()["Counts"]
        == 0
    )


def test_a_correction_is_taken_back_once(books: Books) -> None:
    made = books.correct(
        bannerID=books.banners[0], tsFrom=FIRST, tsTo=FIRST + 60, clicksPerMinute=1
    )
    with ThreadPoolExecutor(4) as pool:
        answers = [*pool.map(lambda _: books.post(takesBack=made["id"]), range(4))]
    assert [answer.status_code for answer in answers].count(201) == 1
    check_error(books.post(takesBack=made["id"]), 400, "already_taken_back")
    check_error(books.post(takesBack=10**9), 404, "unknown_correction")


def test_two_voids_at_once_void_every_click_once(books: Books) -> None:
    span = {"bannerID": books.banners, "tsFrom": FIRST, "tsTo": FIRST + 2 * DAY}
    with ThreadPoolExecutor(3) as pool:
        answers = [*pool.map(lambda _: books.post(void=True, **span), range(3))]
    assert [answer.status_code for answer in answers] == [201] * 3
    assert sorted(answer.json()["clicks"] for answer in answers)[1:] == [0, 0]
    for key, clicks in books.raw.items():
        books.fixed[key] = -clicks
    books.check()


def test_a_correction_and_a_writer_do_not_wait_for_each_other(books: Books) -> None:
    """A batch holds the lock that the closing of a rollup waits for."""
    books.click(1)
    with psycopg.connect(books.api.dsn) as connection:
        held = [LOCK_CLASS, LOCK_CLOSING]
        connection.execute("SELECT pg_advisory_xact_lock_shared(%s, %s)", held)
        books.correct(bannerID=books.banners[0], tsFrom=FIRST, tsTo=FIRST + HOUR, clicksPerMinute=1)


def test_void_waits_until_every_click_is_counted(books: Books) -> None:
    api, span = books.api, {"bannerID": 5, "tsFrom": FIRST, "tsTo": FIRST + HOUR}
    at = (FIRST + HOUR - 1) * 10**9
    held_back = {uuid4(): (Mark(1, 5, at, False), at)}
    try:
        api.call(lambda: api.progress.reload(held_back, new_session=True))
        before = api.get("/stats/5").json()["completeThrough"]
        said = check_error(books.post(void=True, **span), 400, "not_complete")
        assert "completeThrough is 2024-12-10T00:59:59Z" in said
        books.correct(void=True, **{**span, "tsTo": FIRST + HOUR - 60})
        books.correct(clicksPerMinute=1, **span)
        assert api.get("/stats/5").json()["completeThrough"] == before
    finally:
        api.call(lambda: api.progress.reload({}, new_session=True))


@pytest.mark.parametrize(
    ("body", "code", "words"),
    [
        ({"reason": None}, "invalid_body", "reason"),
        ({"author": " "}, "invalid_author", "not only spaces"),
        ({"reason": "a\x00b"}, "invalid_reason", "control characters"),
        ({"void": False}, "invalid_body", "give one of"),
        ({"clicksPerMinute": 1}, "invalid_body", "give one of"),
        ({"void": False, "clicksPerMinute": 0}, "invalid_clicks", "not 0"),
        ({"void": False, "clicksPerMinute": 10**12}, "invalid_clicks", "1,000,000,000"),
        ({"tsFrom": None}, "invalid_body", "give all"),
        ({"takesBack": 1, "void": False}, "invalid_body", "leave the rest out"),
        ({"bannerID": []}, "too_many_banners", "1 to 1,000"),
        ({"bannerID": -1}, "invalid_banner_id", "-1"),
        ({"bannerID": 100_000_000}, "unknown_banner", "CLICKMILL_MAX_BANNER_ID"),
        ({"tsTo": FIRST}, "invalid_range", "at least a minute"),
        ({"tsTo": "9000-01-01T00:00:00Z"}, "invalid_range", "none of the future"),
        ({"tsFrom": "yesterday"}, "invalid_range", "yesterday"),
        ({"tsFrom": 0}, "too_many_points", "make several"),
        ({"Void": True}, "invalid_body", "did you mean void?"),
    ],
)
def test_what_is_refused(filled: Api, body: dict[str, Any], code: str, words: str) -> None:
    whole = {**WHY, "bannerID": 17, "tsFrom": FIRST, "tsTo": FIRST + 60, "void": True, **body}
    status = 404 if code == "unknown_banner" else 400
    said = check_error(filled.client.post("/corrections", json=whole), status, code)
    assert words in said


def test_corrections_want_the_write_token(open_api: OpenApi) -> None:
    api = open_api(stats_token="read", write_token="write")
    body = {**WHY, "bannerID": 17, "tsFrom": FIRST, "tsTo": FIRST + 60, "clicksPerMinute": 1}

    def post(token: str) -> httpx.Response:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        return api.client.post("/corrections", json=body, headers=headers)

    check_error(post(""), 401, "unauthorized")
    check_error(post("read"), 403, "read_only_token")
    assert post("write").status_code == 201
    listed = api.client.get("/corrections", headers={"Authorization": "Bearer read"})
    assert len(listed.json()["corrections"]) == 1
    check_error(api.client.get("/corrections"), 401, "unauthorized")


def test_web_pages_of_others_correct_nothing(filled: Api) -> None:
    """No token is set, and the request comes from this machine: its page does not."""
    body = {**WHY, "bannerID": 17, "tsFrom": FIRST, "tsTo": FIRST + 60, "clicksPerMinute": 1}
    before = filled.get("/corrections").json()
    for headers, status, code in (
        ({"Origin": "https://evil.example"}, 403, "foreign_origin"),
        ({"Host": "evil.example"}, 421, "unknown_host"),
        ({"X-Forwarded-For": "192.0.2.1"}, 403, "write_token_not_set"),
    ):
        answer = filled.client.post("/corrections", json=body, headers=headers)
        check_error(answer, status, code)
    assert filled.get("/corrections").json() == before


def test_the_live_page_and_sql_are_net(open_api: OpenApi) -> None:
    api = open_api()
    now = int(datetime.now(UTC).timestamp()) // 60 * 60 - 60
    api.put({(3, now): 10, (4, now): 5})
    body = {**WHY, "bannerID": 3, "tsFrom": now, "tsTo": now + 60, "clicksPerMinute": -7}
    assert api.client.post("/corrections", json=body).status_code == 201
    with api.client.stream("GET", "/live") as stream:
        lines = stream.iter_lines()
        data = next(line for line in lines if line.startswith("data: "))
        assert dict(json.loads(data[6:])["minutes"])[now] == 8
        tick = next(line for line in lines if line.startswith("data: "))
        assert dict(json.loads(tick[6:])["minutes"])[now] == 8
    with psycopg.connect(api.dsn) as connection:
        for view in ("clicks_by_minute", "clicks_by_hour", "clicks_by_day"):
            sql = f"SELECT sum(clicks) FROM {view} WHERE banner_id = 3"
            assert connection.execute(sql.encode()).fetchone() == (3,)
