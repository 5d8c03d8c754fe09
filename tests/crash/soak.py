"""`make soak`: the model at length, then every fault at length; a table at the end.

    make soak SEED=7 MINUTES=20                 the crash suite scaled to about so many minutes
    make soak ONLY=nats                         scenarios whose name has this in it, without model
    make soak ONLY=both_away TIMES=1200         so many times or seconds, however long that takes
    make soak ONLY=killed_around_commit TIMES=200

Each scenario is a process of its own with servers of its own, JOBS of them side by side: most of
the time they wait. Each prints its seed. The exit code is 0 only if no click was lost or doubled,
and nothing was left out.
"""

from __future__ import annotations

import argparse
import functools
import os
import subprocess
import sys
import tempfile
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import msgspec

from tests.crash.scenarios import SCENARIOS, Scenario, missing, play
from tests.support.fix_postgres import PostgresServer

FAILED, NOT_SHOWN = "FAILED", "not shown"
MODEL_SCHEDULES: Final = 20_000
WHOLE_MINUTES: Final = 150.0
"""About how long everything takes at full length, one after the other."""
LOG_CHARS: Final = 4000
ROOT: Final = Path(__file__).parents[2]

Row = tuple[str, str, str]
"""(fault, result, what was seen)."""


def main() -> int:
    """Run it; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="scenarios with this in their name")
    parser.add_argument("--no-model", action="store_true", help="the crash suite alone")
    parser.add_argument("--schedules", type=int, default=MODEL_SCHEDULES)
    parser.add_argument("--times", type=int, default=0, help="so often, or so many seconds, each")
    parser.add_argument("--play", nargs=2, metavar=("NAME", "ROW"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    seed = int(os.environ.get("SEED", "1"))
    if given.play:
        return _play_here(given.play[0], Path(given.play[1]), seed, given.times)
    rows = [] if given.no_model else [_model(seed, given.schedules)]
    with ThreadPoolExecutor(int(os.environ.get("JOBS", "1"))) as lanes:
        chosen = [s for s in SCENARIOS if given.only in s.name]
        rows += lanes.map(functools.partial(_row, given.times), chosen)
    print("\n| fault | result | what was seen |\n| --- | --- | --- |")
    for row in rows:
        print(f"| {' | '.join(row)} |")
    return 0 if not any(result in (FAILED, NOT_SHOWN) for _, result, _ in rows) else 1


def _row(times: int, scenario: Scenario) -> Row:
    """Play one scenario in a process of its own, and say how it ended."""
    if reason := missing(scenario):
        return scenario.fault, NOT_SHOWN, reason
    with tempfile.TemporaryDirectory(prefix="clickmill-soak-") as home:
        row, log = Path(home) / "row", Path(home) / "log"
        with log.open("wb") as out:
            code = subprocess.run(
                [sys.executable, "-m", "tests.crash.soak", "--times", str(times),
                 "--play", scenario.name, str(row)],
                cwd=ROOT, stdin=subprocess.DEVNULL, stdout=out, stderr=out, check=False,
            ).returncode  # fmt: skip
        said = log.read_text("utf-8", "replace")
        if code == 0:
            ended: Row = msgspec.json.decode(row.read_bytes(), type=Row)
        else:
            ended = (scenario.fault, FAILED, f"exit code {code}: see its output above")
            print(said[-LOG_CHARS:], flush=True)
    print(f"{scenario.name}: {ended[1]}, {ended[2]}", flush=True)
    return ended


def _play_here(name: str, row: Path, seed: int, times: int) -> int:
    """In the scenario's own process: play it, and write its row."""
    (scenario,) = (s for s in SCENARIOS if s.name == name)
    share = min(1.0, float(os.environ.get("MINUTES", "20")) / WHOLE_MINUTES)
    times = times or max(1, scenario.short, round(scenario.long * share))
    with tempfile.TemporaryDirectory(prefix="clickmill-soak-") as made:
        home = Path(made)
        home.chmod(0o755)
        for part in ("shared", "stage"):
            (home / part).mkdir()
        postgres = PostgresServer(home / "shared")
        postgres.start()
        try:
            outcome = play(scenario, times, home / "stage", seed, postgres)
        except Exception:
            traceback.print_exc()
            return 1
        finally:
            postgres.stop()
    seen = f"N = {times}, {outcome.seconds:.0f} s: {outcome.notes}"
    row.write_bytes(msgspec.json.encode((scenario.fault, scenario.proves, seen)))
    return 0


def _model(seed: int, schedules: int) -> Row:
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
    fault = "model: schedules of steps, deaths, losses, repetitions, and nine mutants"
    seen = f"{schedules} schedules from SEED={seed}, {time.monotonic() - began:.0f} s"
    return fault, FAILED if any(codes) else "exact", seen


if __name__ == "__main__":
    sys.exit(main())
