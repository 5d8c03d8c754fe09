"""Load at a fixed rate, measured from when each request was due.

Why a loader of our own (bench/load/fixedrate, in Go): it must share one core with NATS, Postgres
and the aggregator, compare every body, and report how late it was itself. docs/benchmarks.md has
the comparison with oha and vegeta.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import msgspec

from bench.load import programs
from bench.load.wrk import FIRST_ID, LAST_ID, WrongAnswersError

SOURCES = Path(__file__).with_name("fixedrate")
GRACE_SECONDS = 20.0
REAL_TIME_PRIORITY = 10
"""The loader shares its core with NATS, Postgres and aggregator: as root it runs before them."""


class Fixed(msgspec.Struct, frozen=True):
    """What the loader saw; latencies in microseconds from when a request was due."""

    rate: float
    achieved: float
    sent: int
    answered: int
    wrong: int
    broken: int
    p50_us: float
    p90_us: float
    p99_us: float
    p999_us: float
    max_us: float
    send_late_p99_us: float
    send_late_p999_us: float


def _first_in_line() -> list[str]:
    """What starts a program that never waits for others on its core; nothing where not allowed."""
    if os.geteuid() != 0 or shutil.which("chrt") is None:
        return []
    return ["chrt", "--fifo", str(REAL_TIME_PRIORITY)]


def start(
    port: int,
    core: int,
    rate: float,
    seconds: float,
    ids: tuple[int, int] = (FIRST_ID, LAST_ID),
) -> subprocess.Popen[str]:
    """Start the loader on a core, against a port of this machine."""
    command = [
        *_first_in_line(),
        *("taskset", "-c", str(core), programs.build_go(SOURCES, "loader"), "-port", str(port)),
        *("-rate", f"{rate:.0f}", "-seconds", f"{seconds:g}"),
        *("-first-id", str(ids[0]), "-last-id", str(ids[1])),
    ]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str], seconds: float) -> Fixed:
    """Wait for a loader's report. WrongAnswersError when any answer was wrong or missing."""
    out, err = process.communicate(timeout=seconds + GRACE_SECONDS)
    if process.returncode:
        raise WrongAnswersError(f"loader: {err.strip() or out.strip()}")
    result = msgspec.json.decode(out, type=Fixed)
    if result.sent != result.answered:
        raise WrongAnswersError(f"loader: {result.sent - result.answered} answers never came")
    return result


def run(port: int, core: int, rate: float, seconds: float) -> Fixed:
    """Start and finish."""
    return finish(start(port, core, rate, seconds), seconds)
