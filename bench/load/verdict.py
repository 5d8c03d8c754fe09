"""Whether a run of the load scenario passes: p95, failures, and the ledger.

Apart from the Locust file so that it can be read without Locust.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from bench.load.ledger import Ledger, shown
from bench.load.statistics import Gain, StatisticsError

if TYPE_CHECKING:
    from locust.env import Environment

P95_LIMIT_MS = 200.0
FAILED_LIMIT = 0.01
Verdicts = tuple[tuple[bool, str], ...]
"""Whether something is right, with a sentence about it."""


def p95(environment: Environment, recent: bool = False) -> float:
    """Milliseconds, over the run or (recent) over the last ten seconds."""
    total = environment.stats.total
    if recent:
        return float(total.get_current_response_time_percentile(0.95) or 0.0)
    return float(total.get_response_time_percentile(0.95) or 0.0)


def in_order(environment: Environment, recent: bool = False) -> bool:
    """True while p95 and failures are under their limits."""
    failed = environment.stats.total.fail_ratio
    return p95(environment, recent) < P95_LIMIT_MS and failed < FAILED_LIMIT


def reconcile(ledger: Ledger, gain: Gain) -> str:
    """What is wrong with the statistics, against the ledger; empty where nothing is."""
    try:
        wrong = ledger.wrong(gain.read(), by_minute=False)
    except StatisticsError as error:
        return str(error)
    return f"{len(wrong)} banners do not add up:\n{shown(wrong)}" if wrong else ""


def sentences(environment: Environment, ledger: Ledger, problem: str) -> tuple[Verdicts, Verdicts]:
    """(of the limits, of the rest)."""
    total, slow = environment.stats.total, p95(environment)
    loose = ledger.in_flight.total()
    summary = (
        f"ledger: the statistics of every banner are the {ledger.clicks:,} clicks answered 200"
        + (f"; {loose:,} more got no answer" if loose else "")
    )
    limits = (
        (slow < P95_LIMIT_MS, f"p95 {slow:.0f} ms, limit {P95_LIMIT_MS:.0f}"),
        (
            total.fail_ratio < FAILED_LIMIT,
            f"failed {total.fail_ratio:.2%}, limit {FAILED_LIMIT:.0%}",
        ),
    )
    rest = (
        (total.num_requests > 0, f"{total.num_requests:,} requests"),
        (not problem, problem or summary),
    )
    return limits, rest


def results(environment: Environment, ledger: Ledger, problem: str) -> dict[str, Any]:
    """What docs/benchmarks.md shows of a run."""
    total, options = environment.stats.total, environment.parsed_options
    assert options is not None
    quantiles = {f"p{q}": total.get_response_time_percentile(q / 100) for q in (50, 95, 99)}
    return {
        "shape": options.shape,
        "scenario": options.scenario,
        "peak_users": options.peak_users,
        "minutes": options.minutes,
        "requests": total.num_requests,
        "failed": total.num_failures,
        "requests_per_second": total.total_rps,
        "latency_ms": quantiles,
        "clicks_answered": ledger.clicks,
        "ledger": problem or "equal",
    }
