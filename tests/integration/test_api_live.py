"""`GET /live`: events once a second, one computation for all, bounded in life and in number."""

from __future__ import annotations

import contextlib
import itertools
import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import psycopg
import pytest

from aggregator.reading import live
from aggregator.reading.live_events import REREAD_S
from aggregator.reading.queries import Reader
from tests.support.fix_api import Api, OpenApi
from tests.support.wait import eventually

PAGE_WAITS_S = 2.0
"""After so much silence the page says that it is disconnected (SILENT_MS in live.js)."""


def events(answer: httpx.Response) -> Iterator[tuple[str, dict[str, Any]]]:
    name = ""
    for line in answer.iter_lines():
        if line.startswith("event: "):
            name = line.removeprefix("event: ")
        elif line.startswith("data: "):
            yield name, json.loads(line.removeprefix("data: "))


def this_minute() -> int:
    return int(time.time()) // 60 * 60


def test_clicks_come_as_events(open_api: OpenApi, banner: int) -> None:
    api = open_api()
    before = this_minute() - 600
    api.put({(banner, before): 40})
    with httpx.stream("GET", api.url + "/live", timeout=10) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        stream = events(answer)
        name, snapshot = next(stream)
        assert name == "snapshot"
        assert dict(snapshot["minutes"])[before] >= 40
        assert set(snapshot["pipeline"]) == {
            "completeThrough", "freshnessSeconds", "sources", "silentSources",
        }  # fmt: skip
        name, first = next(stream)
        assert name == "tick"
        api.put({(banner, this_minute()): 30})
        began = time.monotonic()
        while str(banner) not in first["banners"]:
            _, first = next(stream)
            assert time.monotonic() - began < 5
        assert time.monotonic() - began < 1.5
        assert first["clicks"] == 30
        assert first["clicksPerSecond"] > 0
        assert first["banners"][str(banner)] > 0
        times = [time.monotonic()]
        for _ in range(3):
            next(stream)
            times.append(time.monotonic())
        assert 1.5 < times[-1] - times[0] < 4.5


def test_a_later_listener_sees_late_clicks(open_api: OpenApi, banner: int) -> None:
    api = open_api()
    long_ago = this_minute() - 1200

    def history() -> dict[int, int]:
        with httpx.stream("GET", api.url + "/live", timeout=10) as answer:
            return dict(next(events(answer))[1]["minutes"])

    was = history().get(long_ago, 0)
    with httpx.stream("GET", api.url + "/live", timeout=10) as ticks:  # keeps the loop running
        stream = events(ticks)
        api.put({(banner, long_ago): 7})
        began = time.monotonic()
        while history().get(long_ago, 0) != was + 7:
            next(stream)
            assert time.monotonic() - began < REREAD_S + 3


def test_a_later_listener_sees_earlier_seconds(open_api: OpenApi, banner: int) -> None:
    api = open_api()
    api.put({(banner, this_minute()): 525_750})

    def seconds() -> list[tuple[int, float]]:
        with httpx.stream("GET", api.url + "/live", timeout=10) as answer:
            return list(next(events(answer))[1]["seconds"])

    known = eventually(lambda: [s for s in seconds() if s[1] > 0], what="the second is over")
    assert known[0][1] * 3 >= 525_750, "a mean over three seconds at most"
    assert time.time() - 15 < known[0][0] <= time.time()


def test_while_postgres_is_slow_the_stream_sends_comments(open_api: OpenApi) -> None:
    api = open_api()
    with (
        httpx.stream("GET", api.url + "/live", timeout=10) as answer,
        psycopg.connect(api.dsn) as connection,
    ):
        lines = answer.iter_lines()
        while next(lines) != "event: tick":
            pass
        connection.execute("LOCK TABLE banner_minute")  # readers wait for 2 s, then give up
        heard = [time.monotonic()]
        while len(heard) < 4:
            if next(lines).startswith(":"):
                heard.append(time.monotonic())
        pauses = [after - before for before, after in itertools.pairwise(heard)]
        assert max(pauses) < PAGE_WAITS_S, pauses


def queries_so_far(api: Api) -> int:
    return int(api.pool.get_stats()["requests_num"])


def test_many_listeners_cost_one_computation(open_api: OpenApi) -> None:
    api = open_api()
    many = 30
    got = [0] * many

    def listen(n: int) -> None:
        with httpx.stream("GET", api.url + "/live", timeout=10) as answer:
            for got[n], _ in enumerate(events(answer), 1):
                if stop.is_set():
                    return

    stop = threading.Event()
    threads = [threading.Thread(target=listen, args=(n,)) for n in range(many)]
    for thread in threads:
        thread.start()
    eventually(lambda: min(got) >= 2, 20, "all listen")
    before, began = queries_so_far(api), time.monotonic()
    eventually(lambda: min(got) >= 5, 20, "three seconds more for everyone")
    spent = time.monotonic() - began
    asked = queries_so_far(api) - before
    stop.set()
    for thread in threads:
        thread.join()
    assert asked <= spent / live.QUIET_POLL_S + 4
    listeners = "clickmill_live_listeners"
    eventually(lambda: f"{listeners} 0.0" in api.client.get("/metrics").text, 10, "all are gone")


def test_a_stream_ends_and_too_many_are_refused(
    open_api: OpenApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LIFE_S", 1.5)
    monkeypatch.setattr(live, "MAX_LISTENERS", 2)
    api = open_api()
    with contextlib.ExitStack() as stack:
        open_streams = []
        for _ in range(2):
            answer = stack.enter_context(httpx.stream("GET", api.url + "/live", timeout=10))
            open_streams.append(answer.iter_lines())  # one that is dropped closes its answer
            next(open_streams[-1])
        third = api.client.get("/live")
        assert (third.status_code, third.json()["code"]) == (429, "too_many_listeners")
        assert "retry-after" in third.headers
    with httpx.stream("GET", api.url + "/live", timeout=10) as answer:
        began = time.monotonic()
        assert sum(1 for _ in answer.iter_lines()) > 3
        assert time.monotonic() - began < 6


def test_an_open_stream_does_not_delay_shutdown(open_api: OpenApi) -> None:
    api = open_api()
    with httpx.stream("GET", api.url + "/live", timeout=10) as answer:
        lines = answer.iter_lines()
        next(lines)
        began = time.monotonic()
        stopping = threading.Thread(target=api.stop)
        stopping.start()
        with contextlib.suppress(httpx.RemoteProtocolError):
            for _ in lines:
                pass
        stopping.join()
        assert time.monotonic() - began < 4


def test_the_last_minutes_are_found_without_reading_the_whole_day(open_api: OpenApi) -> None:
    """The live page asks for them once a second."""
    api = open_api()
    day = int(time.time()) // 86_400 * 86_400
    with psycopg.connect(api.dsn, autocommit=True) as connection:
        connection.execute("SELECT clickmill_make_partition(to_timestamp(%s)::date)", [day])
        connection.execute(
            "INSERT INTO banner_minute SELECT b, to_timestamp(%s) + m * interval '1 minute', 1"
            " FROM generate_series(0, 71) m, generate_series(1, 4000) b",
            [day],
        )
        part = f"banner_minute_{datetime.fromtimestamp(day, UTC):%Y%m%d}"
        options = connection.execute(
            "SELECT reloptions FROM pg_class WHERE relname = %s", [f"{part}_by_time"]
        ).fetchone()
        assert options is not None
        assert "autosummarize=on" in options[0]
        # What autovacuum does for each part of the table that is full.
        connection.execute("SELECT brin_summarize_new_values(%s::regclass)", [f"{part}_by_time"])
        connection.execute(f"ANALYZE {part}".encode())
        pages = connection.execute("SELECT pg_relation_size(%s) / 8192", [part]).fetchone()
        reader = Reader(api.pool)

        def touched() -> int:
            api.run(reader.fetch("SELECT pg_stat_force_next_flush()", {}))
            row = connection.execute(
                "SELECT heap_blks_read + heap_blks_hit + idx_blks_read + idx_blks_hit"
                " FROM pg_statio_user_tables WHERE relname = %s",
                [part],
            ).fetchone()
            assert row is not None
            return int(row[0])

        before = touched()
        recent = api.run(reader.recent(day + 70 * 60, 5_000))
        assert sum(recent.minutes.values()) == 8_000
        assert pages is not None
        assert 0 < touched() - before < pages[0] // 4
