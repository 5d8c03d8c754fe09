"""`/stats` and `/top` against real Postgres: every option and every error of the contract."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from aggregator.writing.fold import Mark
from tests.support.fix_api import Api

T0 = int(datetime(2024, 12, 10, 12, 56, tzinfo=UTC).timestamp())
FROM, TO = "2024-12-10T12:56:00Z", "2024-12-10T12:57:59Z"


def points(answer: dict[str, Any]) -> list[tuple[str, int]]:
    return [(point["ts"], point["v"]) for point in answer["stats"]]


def test_the_contracts_example(api: Api, banner: int) -> None:
    api.put_range(banner, T0 - 60, [9, 30, 12, 7])
    answer = api.get(f"/stats/{banner}", tsFrom=FROM, tsTo=TO)
    body = answer.json()
    assert list(body) == ["bannerID", "tsFrom", "tsTo", "Counts", "stats", "completeThrough"]
    body.pop("completeThrough")
    assert body == {
        "bannerID": banner, "tsFrom": FROM, "tsTo": TO, "Counts": 42,
        "stats": [{"ts": FROM, "v": 30}, {"ts": "2024-12-10T12:57:00Z", "v": 12}],
    }  # fmt: skip
    assert answer.headers["cache-control"] == "no-store"
    alone = api.get(f"/stats/{banner}", tsFrom=FROM, tsTo="2024-12-10T12:57:00Z").json()
    assert points(alone) == [(FROM, 30)]


def test_the_body_forms(api: Api, banner: int) -> None:
    api.put_range(banner, T0, [30, 12])
    body = {"tsFrom": FROM, "tsTo": TO}
    for method in ("GET", "POST"):
        path = f"/stats/{banner}"
        answer = api.client.request(method, path, content=json.dumps(body))
        assert answer.status_code == 200
        assert answer.json()["Counts"] == 42
        unix = api.client.request(method, path, json={"tsFrom": T0, "tsTo": T0 + 61, "step": "1h"})
        assert points(unix.json()) == [("2024-12-10T12:00:00Z", 42)]
        mixed = api.client.request(method, path, params={"step": "1d"}, json=body)
        assert points(mixed.json()) == [("2024-12-10T00:00:00Z", 42)]
        half = api.client.request(method, path, json={"tsFrom": FROM, "step": "1d"})
        assert points(half.json()) == [("2024-12-10T00:00:00Z", 42)]
        assert api.client.request(method, path, content=b"{}").status_code == 200
        assert api.client.request(method, path).status_code == 200


def test_ways_to_write_a_time(api: Api, banner: int) -> None:
    api.put_range(banner, T0, [30, 12])
    path = f"/stats/{banner}"
    for query in (
        f"tsFrom={T0}&tsTo={T0 + 119}",
        "tsFrom=2024-12-10T15:56:00%2B03:00&tsTo=2024-12-10T15:57:59%2B03:00",
        "tsFrom=2024-12-10T15:56:00+03:00&tsTo=2024-12-10T15:57:59+03:00",
    ):
        body = api.client.get(f"{path}?{query}").json()
        assert (body["tsFrom"], body["tsTo"], body["Counts"]) == (FROM, TO, 42)


def test_a_banner_without_clicks_is_no_error(api: Api, banner: int) -> None:
    body = api.get(f"/stats/{banner}", tsFrom=FROM, tsTo=TO).json()
    assert (body["Counts"], body["stats"]) == (0, [])
    empty = api.get(f"/stats/{banner}", tsFrom=FROM, tsTo=FROM, fill="zero").json()
    assert (empty["Counts"], empty["stats"]) == (0, [])


def test_the_last_hour_by_default(api: Api, banner: int) -> None:
    now = int(datetime.now(UTC).timestamp()) // 60 * 60
    api.put({(banner, now): 3, (banner, now - 30 * 60): 2, (banner, now - 62 * 60): 100})
    body = api.get(f"/stats/{banner}").json()
    assert body["Counts"] == 5
    span = datetime.fromisoformat(body["tsTo"]) - datetime.fromisoformat(body["tsFrom"])
    assert span == timedelta(hours=1)


def test_steps_and_filling(api: Api, banner: int) -> None:
    api.put_range(banner, T0, [1, 0, 0, 0, 20, 0, 0, 0, 300])
    span = {"tsFrom": FROM, "tsTo": "2024-12-10T13:05:00Z"}

    def ask(**more: str) -> list[tuple[str, int]]:
        return points(api.get(f"/stats/{banner}", **span, **more).json())

    assert ask(step="5m") == [
        ("2024-12-10T12:55:00Z", 1), ("2024-12-10T13:00:00Z", 320),
    ]  # fmt: skip
    assert ask(step="15m") == [("2024-12-10T12:45:00Z", 1), ("2024-12-10T13:00:00Z", 320)]
    assert ask(step="1h") == [("2024-12-10T12:00:00Z", 1), ("2024-12-10T13:00:00Z", 320)]
    assert ask(step="1d") == [("2024-12-10T00:00:00Z", 321)]
    filled = ask(fill="zero")
    assert len(filled) == 9
    assert [v for _, v in filled] == [1, 0, 0, 0, 20, 0, 0, 0, 300]


def test_days_of_a_zone(api: Api, banner: int) -> None:
    # 23:30 in Berlin on 9 December, 00:30 on the 10th; in Kolkata both are on the 10th.
    api.put(
        {(banner, T0 - 60 * (12 * 60 + 56 + 90)): 5, (banner, T0 - 60 * (12 * 60 + 56 + 30)): 7}
    )
    span = {"tsFrom": "2024-12-08T00:00:00Z", "tsTo": "2024-12-12T00:00:00Z", "step": "1d"}

    def ask(zone: str) -> list[tuple[str, int]]:
        return points(api.get(f"/stats/{banner}", **span, tz=zone).json())

    assert ask("Europe/Berlin") == [("2024-12-08T23:00:00Z", 5), ("2024-12-09T23:00:00Z", 7)]
    assert ask("Asia/Kolkata") == [("2024-12-09T18:30:00Z", 12)]
    assert ask("UTC") == [("2024-12-09T00:00:00Z", 12)]


def test_weeks_and_months_of_a_zone(api: Api, banner: int) -> None:
    # 23:30 in Berlin on Monday, 30 September 2024, and 00:30 on 1 October.
    night = int(datetime(2024, 9, 30, 21, 30, tzinfo=UTC).timestamp())
    api.put({(banner, night): 5, (banner, night + 3600): 7, (banner, night + 35 * 86_400): 9})
    span = {"tsFrom": "2024-09-01T00:00:00Z", "tsTo": "2024-12-01T00:00:00Z"}

    def ask(step: str, zone: str) -> list[str]:
        answer = api.get(f"/stats/{banner}", step=step, tz=zone, format="csv", **span)
        return [row.replace(f",{banner},", ",") for row in answer.text.splitlines()[1:-1]]

    assert ask("1mo", "UTC") == ["2024-09-01T00:00:00Z,12", "2024-11-01T00:00:00Z,9"]
    assert ask("1mo", "Europe/Berlin") == [
        "2024-08-31T22:00:00Z,5", "2024-09-30T22:00:00Z,7", "2024-10-31T23:00:00Z,9",
    ]  # fmt: skip
    assert ask("1w", "Europe/Berlin") == ["2024-09-29T22:00:00Z,12", "2024-11-03T23:00:00Z,9"]


def test_csv_and_ndjson(api: Api, banner: int) -> None:
    api.put_range(banner, T0, [30, 12])
    api.progress.reload({}, new_session=True)
    answer = api.get(f"/stats/{banner}", tsFrom=FROM, tsTo=TO, format="csv")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"
    assert f'filename="stats-{banner}.csv"' in answer.headers["content-disposition"]
    assert list(csv.reader(io.StringIO(answer.text))) == [
        ["ts", "bannerID", "v"],
        [FROM, str(banner), "30"],
        ["2024-12-10T12:57:00Z", str(banner), "12"],
        ["# complete until 2024-12-10T12:58:00Z", "2", "42"],
    ]
    assert answer.headers["clickmill-complete-through"].endswith("Z")
    answer = api.get(f"/stats/{banner}", tsFrom=FROM, tsTo=TO, format="ndjson")
    assert answer.headers["content-type"] == "application/x-ndjson"
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert lines[0] == {"ts": FROM, "bannerID": banner, "v": 30}
    assert lines[2:] == [
        {"complete": True, "tsTo": "2024-12-10T12:58:00Z", "rows": 2, "Counts": 42}
    ]


def test_several_banners_and_all(api: Api, banner: int) -> None:
    # A range of its own, for "all" sees what other tests put.
    first = T0 - 400 * 86_400
    span = {"tsFrom": first, "tsTo": first + 180}
    api.put({(banner, first): 1, (banner, first + 60): 2, (90_001, first + 120): 4})
    body = api.get("/stats", bannerID=[banner, 90_001, 90_002, banner], **span).json()
    assert body["Counts"] == 7
    assert [(b["bannerID"], b["Counts"]) for b in body["banners"]] == [
        (banner, 3), (90_001, 4), (90_002, 0),
    ]  # fmt: skip
    body = api.get("/stats", step="1h", **span).json()
    assert [(b["bannerID"], b["Counts"]) for b in body["banners"]] == [(banner, 3), (90_001, 4)]
    text = api.get("/stats", format="csv", **span).text
    assert text.splitlines()[1:-1] == [
        f"{iso(first)},{banner},1", f"{iso(first + 60)},{banner},2", f"{iso(first + 120)},90001,4",
    ]  # fmt: skip
    zero = api.get("/stats", bannerID=90_002, fill="zero", **span).json()
    assert [p["v"] for p in zero["banners"][0]["stats"]] == [0, 0, 0]


def iso(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def test_top(api: Api, banner: int) -> None:
    first = T0 - 500 * 86_400
    span = {"tsFrom": first, "tsTo": first + 86_400 * 40}
    api.put({(91_000 + n, first + 3_000 * n): 10 - n // 2 for n in range(10)})
    api.client.put("/banners/91001", json={"name": "=cmd()"}).raise_for_status()
    body = api.get("/top", limit=3, **span).json()
    assert body["Counts"] == 80
    assert body["top"] == [
        {"bannerID": 91_000, "name": None, "Counts": 10},
        {"bannerID": 91_001, "name": "=cmd()", "Counts": 10},
        {"bannerID": 91_002, "name": None, "Counts": 9},
    ]
    assert len(api.get("/top", **span).json()["top"]) == 10
    table = api.get("/top", limit=2, format="csv", **span).text.splitlines()
    assert table == ["bannerID,name,Counts", "91000,,10", "91001,'=cmd(),10"]
    empty = api.get("/top", tsFrom=first, tsTo=first).json()
    assert (empty["Counts"], empty["top"]) == (0, [])


def test_complete_through_is_the_known_value(api: Api, banner: int) -> None:
    said = api.get(f"/stats/{banner}").json()["completeThrough"]
    assert abs(datetime.fromisoformat(said) - datetime.now(UTC)) < timedelta(seconds=5)
    # One source that went silent holds it back.
    sealed = datetime(2024, 12, 10, 12, 58, 3, 999_999, tzinfo=UTC)
    nanoseconds = int(sealed.timestamp()) * 10**9 + 999_999_000
    source = UUID("0195d1f4-3c00-7000-8000-000000000001")
    api.progress.reload({source: (Mark(1, 5, nanoseconds, False), nanoseconds)}, new_session=True)
    try:
        answer = api.get(f"/stats/{banner}").json()
        assert answer["completeThrough"] == "2024-12-10T12:58:03Z"
        assert api.get("/top").json()["completeThrough"] == "2024-12-10T12:58:03Z"
    finally:
        api.progress.reload({}, new_session=True)
