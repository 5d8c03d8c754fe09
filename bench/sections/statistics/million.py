"""Top lists of a million banners: `python -m bench.sections.statistics.million`.

A month of days and the hours of its edges, in the running system with its usual settings, once with
clicks that fall with the banner's rank (Zipf's law) and once with clicks that are spread evenly.
The aggregator makes the lists of busiest banners; then the top 20 are asked for over HTTP, one
question after the other on one connection; then again without lists.
"""

from __future__ import annotations

import argparse
import http.client
import statistics
import sys
import time
from typing import Final, LiteralString

import psycopg

from bench.harness import idle
from bench.harness.servers import end_on_sigterm
from bench.harness.system import Clickmill
from bench.report.tables import markdown
from bench.sections.statistics.bench import SETTINGS, Timing
from bench.sections.statistics.data import DAY_S, wait_for_lists

DAYS: Final = 31
HOURS: Final = 24
TIMES_WITHOUT: Final = 3
SHAPES: Final[dict[str, LiteralString]] = {
    # Rank 1 is the busiest; ranks are scattered over the IDs. Each day differs by up to a half.
    "by rank": "1 + (%(banners)s / rank::float8 * (0.5 + random()))::bigint",
    "evenly": "900 + (200 * random())::bigint",
}
_RANKS: Final[LiteralString] = """
SELECT (rank * 7919 %% %(banners)s)::int AS banner_id, rank
FROM generate_series(1::bigint, %(banners)s) AS rank ORDER BY 1
"""
_INDEXES: Final[LiteralString] = """
ALTER TABLE rollup_{unit} ADD PRIMARY KEY (banner_id, {unit});
CREATE INDEX rollup_{unit}_by_time ON rollup_{unit} ({unit}, banner_id)
"""
_NO_INDEXES: Final[LiteralString] = """
TRUNCATE rollup_{unit};
ALTER TABLE rollup_{unit} DROP CONSTRAINT rollup_{unit}_pkey;
DROP INDEX rollup_{unit}_by_time
"""
HEAD: Final = ("clicks", "range", "with lists, ms", "without, ms")


def fill(dsn: str, banners: int, clicks: LiteralString, midnight: int) -> None:
    """Rows of whole days before `midnight`, and of the hours at both ends of a shifted month."""
    days = [midnight - n * DAY_S for n in range(DAYS, 0, -1)]
    hours = [*range(days[0] + 22 * 3_600, days[1], 3_600), *range(days[-1], midnight, 3_600)]
    rows: tuple[tuple[LiteralString, list[int]], ...] = (("day", days), ("hour", hours[:HOURS]))
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=UTC") as connection:
        connection.execute("SET synchronous_commit = off; SET maintenance_work_mem = '1GB'")
        connection.execute("SET statement_timeout = 0; TRUNCATE rollup_top")
        for unit, moments in rows:
            connection.execute(_NO_INDEXES.replace("{unit}", unit))
            insert: LiteralString = (
                f"INSERT INTO rollup_{unit} SELECT banner_id, to_timestamp(%(at)s), {clicks}"
                f" FROM ({_RANKS}) AS ranks"
            )
            for at in moments:
                connection.execute(insert, {"banners": banners, "at": at})
            connection.execute(_INDEXES.replace("{unit}", unit))
            connection.execute(f"VACUUM ANALYZE rollup_{unit}")
        for unit, moments in rows:
            connection.execute(
                "SELECT clickmill_top_is_due(%s,"
                " ARRAY (SELECT to_timestamp(unnest(%s::bigint[]))))",
                [unit, moments],
            )


def ask(port: int, path: str, times: int) -> str:
    """Median and 95th percentile, or the status of the answers where one is not 200."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    took: list[float] = []
    for n in range(times + 1):
        began = time.perf_counter()
        connection.request("GET", path)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            return f"answered {answer.status}"
        if n:  # the first one reads from disk
            took.append((time.perf_counter() - began) * 1_000)
    connection.close()
    timing = Timing(statistics.median(took), statistics.quantiles(took, n=20)[-1])
    return f"{timing.p50:.0f} / {timing.p95:.0f}"


def measure(system: Clickmill, options: argparse.Namespace, shape: str) -> list[tuple[str, ...]]:
    """The rows of one shape."""
    midnight = int(time.time()) // DAY_S * DAY_S
    fill(system.dsn(), options.banners, SHAPES[shape], midnight)
    seconds = wait_for_lists(system.dsn())
    print(f"{shape}: {DAYS + HOURS} lists were made in {seconds:.1f} s", flush=True)
    shift = 2 * 3_600
    paths = {
        name: f"/top?tsFrom={midnight - 30 * DAY_S - by}&tsTo={midnight - by}&limit=20"
        for name, by in (("30 days of UTC", 0), ("30 days that begin at 22:00 UTC", shift))
    }
    with_lists = [ask(system.stats_port, path, options.times) for path in paths.values()]
    with psycopg.connect(system.dsn(), autocommit=True) as connection:
        connection.execute("TRUNCATE rollup_top")
    without = [ask(system.stats_port, path, TIMES_WITHOUT) for path in paths.values()]
    return list(zip([shape] * len(paths), paths, with_lists, without, strict=True))


def main() -> int:
    """0: measured; 1: the machine is busy."""
    parser = argparse.ArgumentParser(prog="bench.sections.statistics.million", description=__doc__)
    parser.add_argument("--banners", type=int, default=1_000_000)
    parser.add_argument("--times", type=int, default=50, help="how often each question is asked")
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=list(SHAPES))
    idle.add_options(parser)
    options = parser.parse_args()
    end_on_sigterm()
    try:
        busy = idle.gate(options, print)
    except idle.BusyMachineError as error:
        print(error, file=sys.stderr)
        return 1
    rows: list[tuple[str, ...]] = []
    with Clickmill(SETTINGS, worker_cores=None) as system:
        for shape in options.shapes:
            rows += measure(system, options, shape)
    print(f"{options.banners:,} banners; before the start other programs used {busy:.2f} cores.")
    print("\n".join(markdown(HEAD, rows)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
