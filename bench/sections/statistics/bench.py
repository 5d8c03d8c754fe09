"""How fast statistics are read: `make bench-stats`, into docs/benchmarks-stats.md.

On generated data of 10, 100 and 1,000 banners over 400 days, in the whole running system with its
usual settings: every minute of the last `--dense` days, one minute of each hour before (so that
there are as many rollups and partitions as in real life, on a small disk). Each question is asked
over HTTP, one after the other on one connection; then `wrk` asks for the last hour with 16
connections; then both again while 100,000 rows a minute are written.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple

from bench.harness import idle, machine
from bench.harness.servers import DOCS, end_on_sigterm
from bench.harness.system import Clickmill
from bench.load import wrk
from bench.report.tables import markdown
from bench.sections.statistics.data import DAY_S, fill, writing

SIZES: Final = (10, 100, 1_000)
REPORT: Final = DOCS / "benchmarks-stats.md"
SETTINGS: Final = {"RETENTION_DAYS": "0", "MAX_BANNER_ID": "99999"}
WARM_UP: Final = 10
CONNECTIONS: Final = 16
RATE_HEAD: Final = (
    "banners", "minute rows", "requests/s", "CPU µs of aggregator + Postgres",
    "requests a second and core", "requests/s while writing", "rows written a minute",
)  # fmt: skip


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
    """`wrk` asks for the last hour of one banner. WrongAnswersError where an answer is not 200."""
    children = system.children()
    windows = [
        machine.CpuWindow(partial(machine.tree, children[name]))
        for name in ("aggregator", "postgres")
    ]
    load = wrk.Load(
        system.stats_port, None, seconds, "path",
        connections=CONNECTIONS, method="GET", path="/stats/5",
    )  # fmt: skip
    done = wrk.run(load)
    used = [window.used_ns() / 1_000 / done.requests for window in windows]
    return Throughput(done.rate, used[0], used[1])


class Measured(NamedTuple):
    """All that was measured at one size."""

    banners: int
    rows: int
    idle: list[Timing]
    writing: list[Timing]
    idle_rate: Throughput
    writing_rate: Throughput
    written_a_minute: float


def measure(system: Clickmill, banners: int, options: argparse.Namespace) -> Measured:
    """Fills the tables, asks on an idle system, asks again while rows are written."""
    rows = fill(system.dsn(), banners, options.days, options.dense)
    calm = [ask(system.stats_port, question, options.times) for question in QUESTIONS]
    calm_rate = throughput(system, options.seconds)
    began = time.monotonic()
    with writing(system.dsn(), banners) as written:
        busy = [ask(system.stats_port, question, options.times) for question in QUESTIONS]
        busy_rate = throughput(system, options.seconds)
        pace = written[0] * 60 / (time.monotonic() - began)
    return Measured(banners, rows, calm, busy, calm_rate, busy_rate, pace)


def _cell(timing: Timing) -> str:
    return f"{timing.p50:.1f} / {timing.p95:.1f}"


def lines_of(found: Sequence[Measured], options: argparse.Namespace, busy: float) -> list[str]:
    """The page."""
    sizes = [f"{f.banners:,} banners" for f in found]
    lines = ["# How fast statistics are read", "", about(options, busy), ""]
    for title, pick in (("On an idle system", "idle"), ("While rows are written", "writing")):
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
    title = f"## Last hour of one banner, {CONNECTIONS} connections"
    return [*lines, title, "", *markdown(RATE_HEAD, map(_rates, found)), ""]


def about(options: argparse.Namespace, busy: float) -> str:
    """How it was measured, and on what."""
    facts = machine.facts()
    return (
        f"Made by `make bench-stats` on {facts['processor']}, {facts['cores']} cores, "
        f"{facts['memory']}, {facts['kernel']}, Python {facts['python']}; embedded Postgres with "
        f"its usual settings. {options.days} days: every minute of the last {options.dense}, "
        "one an hour before. Over HTTP on one kept connection; milliseconds, median / 95th "
        f"percentile. Before the start other programs used {busy:.2f} cores."
    )


def _rates(f: Measured) -> list[str]:
    return [
        f"{f.banners:,}", f"{f.rows:,}", f"{f.idle_rate.rate:,.0f}",
        f"{f.idle_rate.aggregator_us:,.0f} + {f.idle_rate.postgres_us:,.0f}",
        f"{1e6 / (f.idle_rate.aggregator_us + f.idle_rate.postgres_us):,.0f}",
        f"{f.writing_rate.rate:,.0f}", f"{f.written_a_minute:,.0f}",
    ]  # fmt: skip


def parse_arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make bench-stats", description=__doc__)
    parser.add_argument("--banners", type=int, nargs="+", default=SIZES)
    parser.add_argument("--days", type=int, default=400)
    parser.add_argument("--dense", type=int, default=3, help="days with every minute")
    parser.add_argument("--times", type=int, default=100, help="how often each question is asked")
    parser.add_argument("--seconds", type=int, default=6, help="length of each run of wrk")
    parser.add_argument("--dry", action="store_true", help="print the page, don't write it")
    idle.add_options(parser)
    return parser.parse_args()


def main() -> int:
    """0: the page is made; 1: the machine is busy."""
    options = parse_arguments()
    end_on_sigterm()
    try:
        busy = idle.gate(options, print)
    except idle.BusyMachineError as error:
        print(f"bench-stats: {error}", file=sys.stderr)
        return 1
    with Clickmill(SETTINGS, worker_cores=None) as system:
        found = [measure(system, banners, options) for banners in options.banners]
    text = "\n".join(lines_of(found, options, busy))
    print(text)
    if not options.dry:
        REPORT.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
