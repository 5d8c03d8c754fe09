"""`make soak`: the model at length, then every fault at length; a table at the end.

    make soak SEED=7 MINUTES=20          the crash suite within so many minutes
    make soak ARGS="--only nats"         scenarios whose name has this in it

Scenarios are scaled to the time that there is; each prints its seed. The exit code is 0 only if
no click was lost or doubled, and nothing was left out.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.crash.scenarios import SCENARIOS, Scenario, missing, play
from tests.fix_postgres import PostgresServer

FAILED, NOT_SHOWN = "FAILED", "not shown"
MODEL_SCHEDULES = 20_000
WHOLE_MINUTES = 90.0
"""About how long everything takes at full length."""
ROOT = Path(__file__).parents[2]


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--no-model", action="store_true", help="the crash suite alone")
    parser.add_argument("--schedules", type=int, default=MODEL_SCHEDULES)
    given = parser.parse_args()
    seed, minutes = int(os.environ.get("SEED", "1")), float(os.environ.get("MINUTES", "20"))
    rows = [] if given.no_model else [_model(seed, given.schedules)]
    with tempfile.TemporaryDirectory(prefix="clickmill-soak-") as home:
        Path(home).chmod(0o755)
        (Path(home) / "shared").mkdir()
        postgres = PostgresServer(Path(home) / "shared")
        postgres.start()
        try:
            for scenario in SCENARIOS:
                if given.only in scenario.name:
                    place = Path(home) / scenario.name
                    place.mkdir()
                    rows.append(_row(scenario, place, seed, minutes, postgres))
        finally:
            postgres.stop()
    print("\n| fault | result | what was seen |\n| --- | --- | --- |")
    for fault, result, seen in rows:
        print(f"| {fault} | {result} | {seen} |")
    return 0 if not any(result in (FAILED, NOT_SHOWN) for _, result, _ in rows) else 1


def _row(
    scenario: Scenario, home: Path, seed: int, minutes: float, postgres: PostgresServer
) -> tuple[str, str, str]:
    if reason := missing(scenario):
        return scenario.fault, NOT_SHOWN, reason
    share = min(1.0, minutes / WHOLE_MINUTES)
    times = max(1, scenario.short, round(scenario.long * share))
    try:
        outcome = play(scenario, times, home, seed, postgres)
    except Exception as error:
        traceback.print_exc()
        return scenario.fault, FAILED, f"N = {times}: {str(error).splitlines()[:1]}"
    return scenario.fault, scenario.proves, f"N = {times}, {outcome.seconds:.0f} s: {outcome.notes}"


def _model(seed: int, schedules: int) -> tuple[str, str, str]:
    """The model's schedules, in as many processes as there are cores."""
    began, cores = time.monotonic(), len(os.sched_getaffinity(0))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider",
               "-o", "timeout=7200", "tests/model"]  # fmt: skip
    running = [
        subprocess.Popen(
            command, cwd=ROOT,
            env=os.environ | {"SEED": str(seed + n), "SCHEDULES": str(-(-schedules // cores))},
        )
        for n in range(cores)
    ]  # fmt: skip
    codes = [process.wait() for process in running]
    fault = "model: schedules of steps, deaths, losses, repetitions, and six mutants"
    seen = f"{schedules} schedules from SEED={seed}, {time.monotonic() - began:.0f} s"
    return fault, FAILED if any(codes) else "exact", seen


if __name__ == "__main__":
    sys.exit(main())
