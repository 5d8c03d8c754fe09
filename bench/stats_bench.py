"""How fast statistics are read: `make bench-stats`, into docs/benchmarks-stats.md.

Data made for it, for 10, 100 and 1,000 banners over 400 days, in the whole running system with
its usual settings: every minute of the last `--dense` days, one minute of each hour before (so
that rollups and partitions are as many as in real life, and the disk is not filled for nothing).
Each question is asked over HTTP, one after the other on one connection; then `wrk` asks for the
last hour with 16 connections; then both again while 100,000 rows a minute are written.
"""

from __future__ import annotations

import argparse
import http.client
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Final, NamedTuple

import psycopg

from bench import machine, wrk
from bench.system import Clickmill
from bench.tables import markdown

SIZES: Final = (10, 100, 1_000)
DAY_S: Final = 86_400
ROWS_A_MINUTE: Final = 100_000
REPORT: Final = Path(__file__).parents[1] / "docs" / "benchmarks-stats.md"
SETTINGS: Final = {"RETENTION_DAYS": "0", "MAX_BANNER_ID": "99999"}
WARM_UP: Final = 10
CONNECTIONS: Final = 16

_MAKE_DAY: Final = "SELECT clickmill_make_partition(to_timestamp(%s)::date)"
_FILL: Final = """
INSERT INTO banner_minute SELECT banner, to_timestamp(at), 1 + (banner * 7 + at / 60) %% 40
FROM generate_series(%(first)s::bigint, %(end)s::bigint - 1, %(gap)s::bigint) AS at,
     generate_series(1, %(banners)s) AS banner
ON CONFLICT DO NOTHING
"""
_ROLL_UP: Final = """
INSERT INTO banner_{unit} SELECT banner_id, date_trunc('{unit}', minute, 'UTC'), sum(clicks)
FROM banner_minute WHERE minute >= to_timestamp(%(first)s) AND minute < to_timestamp(%(end)s)
GROUP BY 1, 2
"""
_UPSERT: Final = """
INSERT INTO banner_{unit} AS t (banner_id, {unit}, clicks)
SELECT id, date_trunc('{unit}', now(), 'UTC'), 1 FROM unnest(%s::int[]) AS n (id) ORDER BY id
ON CONFLICT (banner_id, {unit}) DO UPDATE SET clicks = t.clicks + excluded.clicks
"""


class Question(NamedTuple):
    """A question, with what it is to cost at most (median, milliseconds; 0: no target)."""

    name: str
    path: Callable[[int], str]
    target_ms: float


def _range(now: int, days: float) -> str:
    return f"tsFrom={now - int(days * DAY_S)}&tsTo={now}"


QUESTIONS: Final = (
    Question("last hour of one banner", lambda now: "/stats/5", 3),
    Question("a day of minutes", lambda now: f"/stats/5?{_range(now, 1)}", 10),
    Question("a year by day", lambda now: f"/stats/5?{_range(now, 365)}&step=1d", 30),
    Question(
        "a year by day, Europe/Berlin",
        lambda now: f"/stats/5?{_range(now, 365)}&step=1d&tz=Europe/Berlin",
        30,
    ),
    Question(
        "a year by day, Asia/Kolkata",
        lambda now: f"/stats/5?{_range(now, 365)}&step=1d&tz=Asia/Kolkata",
        0,
    ),
    Question("top 20 of a month", lambda now: f"/top?{_range(now, 30)}&limit=20", 100),
    Question("all banners, last day by day", lambda now: f"/stats?{_range(now, 1)}&step=1d", 0),
)


class Timing(NamedTuple):
    """Milliseconds of one question."""

    p50: float
    p95: float


def fill(dsn: str, banners: int, days: int, dense: int) -> int:
    """Makes the data; the number of minute rows."""
    now = int(time.time()) // 60 * 60
    midnight = now // DAY_S * DAY_S
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute("TRUNCATE banner_minute, banner_hour, banner_day")
        connection.execute("SET synchronous_commit = off")
        for day in range(days, -1, -1):
            first = midnight - day * DAY_S
            connection.execute(_MAKE_DAY, [first])
            gap = 60 if day < dense else 3_600
            values = {"first": first, "end": min(first + DAY_S, now), "gap": gap}
            connection.execute(_FILL, {**values, "banners": banners})
            for unit in ("hour", "day"):
                connection.execute(_ROLL_UP.format(unit=unit).encode(), values)
        connection.execute("VACUUM ANALYZE")
        row = connection.execute("SELECT count(*) FROM banner_minute").fetchone()
    assert row is not None
    return int(row[0])


@contextmanager
def writing(dsn: str, banners: int) -> Iterator[list[int]]:
    """Meanwhile rows are written, once a second, as the writer does; yields rows written."""
    stop = threading.Event()
    written = [0]

    def write() -> None:
        per_second = ROWS_A_MINUTE // 60
        each = min(per_second, banners)
        with psycopg.connect(dsn, autocommit=True) as connection:
            due = time.monotonic()
            while not stop.wait(max(0.0, due - time.monotonic())):
                due += each / per_second
                with connection.transaction():
                    for unit in ("minute", "hour", "day"):
                        sql = _UPSERT.format(unit=unit).encode()
                        connection.execute(sql, [list(range(1, each + 1))])
                written[0] += each

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield written
    finally:
        stop.set()
        thread.join()


def ask(port: int, question: Question, times: int) -> Timing:
    """Asks one after the other on one connection. Raises RuntimeError where one is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    took: list[float] = []
    for n in range(times + WARM_UP):
        path = question.path(int(time.time()))
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path} was answered {answer.status}: {body[:200]!r}")
        if n >= WARM_UP:
            took.append((time.perf_counter() - began) * 1_000)
    connection.close()
    return Timing(statistics.median(took), statistics.quantiles(took, n=20)[-1])


class Throughput(NamedTuple):
    """Requests a second, and CPU of aggregator and Postgres for each, in microseconds."""

    rate: float
    aggregator_us: float
    postgres_us: float


def throughput(system: Clickmill, seconds: int) -> Throughput:
    """`wrk` asks for the last hour of one banner. RuntimeError where an answer is not 200."""
    children = system.children()
    windows = [
        machine.CpuWindow(partial(machine.tree, children[name]))
        for name in ("aggregator", "postgres")
    ]
    url = f"http://127.0.0.1:{system.stats_port}/stats/5"
    command = [wrk.program(), "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        raise RuntimeError(f"not every answer was 200:\n{text}")
    found = re.search(r"(\d+) requests in", text)
    assert found is not None
    requests = int(found[1])
    used = [window.used_ns() / 1_000 / requests for window in windows]
    return Throughput(requests / seconds, used[0], used[1])


class Figures(NamedTuple):
    """All that was measured at one size."""

    banners: int
    rows: int
    calm: list[Timing]
    busy: list[Timing]
    calm_rate: Throughput
    busy_rate: Throughput
    written_a_minute: float


def measure(system: Clickmill, banners: int, options: argparse.Namespace) -> Figures:
    """Fills the tables, asks in calm, asks again while rows are written."""
    rows = fill(system.dsn(), banners, options.days, options.dense)
    calm = [ask(system.stats_port, question, options.times) for question in QUESTIONS]
    calm_rate = throughput(system, options.seconds)
    began = time.monotonic()
    with writing(system.dsn(), banners) as written:
        busy = [ask(system.stats_port, question, options.times) for question in QUESTIONS]
        busy_rate = throughput(system, options.seconds)
        pace = written[0] * 60 / (time.monotonic() - began)
    return Figures(banners, rows, calm, busy, calm_rate, busy_rate, pace)


def _cell(timing: Timing) -> str:
    return f"{timing.p50:.1f} / {timing.p95:.1f}"


def lines_of(found: Sequence[Figures], options: argparse.Namespace) -> list[str]:
    """The report."""
    sizes = [f"{f.banners:,} banners" for f in found]
    facts = machine.facts()
    about = (
        f"Made by `make bench-stats` on {facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory']}, {facts['kernel']}, Python {facts['python']}; embedded Postgres with "
        f"its usual settings. {options.days} days: every minute of the last {options.dense}, "
        "one an hour before. Over HTTP on one kept connection; milliseconds, median / 95th "
        f"percentile. Load average of the machine at the end: {os.getloadavg()[0]:.1f}."
    )
    lines = ["# How fast statistics are read", "", about, ""]
    for title, pick in (("In calm", "calm"), ("While rows are written", "busy")):
        head = ["question", "target (median)", *sizes]
        rows = [
            [
                question.name,
                f"under {question.target_ms:g}" if question.target_ms else "none",
                *(_cell(getattr(f, pick)[n]) for f in found),
            ]
            for n, question in enumerate(QUESTIONS)
        ]
        lines += [f"## {title}", "", *markdown(head, rows), ""]
    rates = [
        [
            f"{f.banners:,}", f"{f.rows:,}", f"{f.calm_rate.rate:,.0f}",
            f"{f.calm_rate.aggregator_us:,.0f} + {f.calm_rate.postgres_us:,.0f}",
            f"{1e6 / (f.calm_rate.aggregator_us + f.calm_rate.postgres_us):,.0f}",
            f"{f.busy_rate.rate:,.0f}", f"{f.written_a_minute:,.0f}",
        ]
        for f in found
    ]  # fmt: skip
    head = [
        "banners", "minute rows", "requests/s", "CPU µs of aggregator + Postgres",
        "requests a second and core", "requests/s while writing", "rows written a minute",
    ]  # fmt: skip
    title = f"## Last hour of one banner, {CONNECTIONS} connections"
    return [*lines, title, "", *markdown(head, rates), ""]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--banners", type=int, nargs="+", default=SIZES)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--dense", type=int, default=3, help="days with every minute")
    parser.add_argument("--times", type=int, default=100, help="how often each question is asked")
    parser.add_argument("--seconds", type=int, default=6, help="length of each run of wrk")
    parser.add_argument("--dry", action="store_true", help="print the report, don't write it")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # or the system would outlive us
    system = Clickmill(SETTINGS, worker_cores=None)
    try:
        found = [measure(system, banners, options) for banners in options.banners]
    finally:
        system.stop()
    text = "\n".join(lines_of(found, options))
    print(text)
    if not options.dry:
        REPORT.write_text(text)


if __name__ == "__main__":
    main()
