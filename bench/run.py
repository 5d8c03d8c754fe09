"""`make bench`: run the sections, keep their results, write docs/benchmarks.md and its picture.

Each section's results go to bench/results/NAME.json, so that sections can be run one by one; the
page is always made from all that are there. A section is measured only on a machine that does
nothing else: `bench/harness/idle.py` looks, waits, and refuses.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from pathlib import Path

from bench.contenders import lineup
from bench.harness import idle, machine
from bench.harness.measure import (
    DEFAULT_ROUNDS,
    DEFAULT_SECONDS,
    MAX_ROUNDS,
    MIN_ROUNDS,
    MiscountError,
    Plan,
)
from bench.harness.servers import DOCS, LOAD_CORE, ServerError, end_on_sigterm
from bench.load.programs import MissingProgramError
from bench.load.wrk import WrongAnswersError
from bench.report import page, results
from bench.sections import PROGRAMS, SECTIONS

FAILURES = (MiscountError, ServerError, WrongAnswersError, idle.BusyMachineError)
MIN_SECONDS, MAX_SECONDS = 1.0, 600.0
CORES_NEEDED = 2


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    keys = [contender.key for contender in lineup.CONTENDERS]
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=DEFAULT_ROUNDS, help="turns of each")
    parser.add_argument("--seconds", type=float, default=DEFAULT_SECONDS, help="of one turn")
    parser.add_argument(
        "--only", default="", metavar="A,B", help=f"of the sections {','.join(SECTIONS)}"
    )
    parser.add_argument(
        "--contenders", default="", metavar="A,B",
        help=f"that Clickmill is compared with: {','.join(keys)}",
    )  # fmt: skip
    parser.add_argument(
        "--output", type=Path, metavar="DIR", help="page, picture and results go there instead"
    )
    parser.add_argument(
        "--report-only", action="store_true", help="measure nothing, write the page"
    )
    idle.add_options(parser)
    options = parser.parse_args(arguments)
    options.only = _names(parser, options.only, list(SECTIONS)) or list(SECTIONS)
    options.contenders = tuple(_names(parser, options.contenders, keys))
    if not MIN_ROUNDS <= options.rounds <= MAX_ROUNDS:
        parser.error(f"--rounds is between {MIN_ROUNDS} and {MAX_ROUNDS}")
    if not MIN_SECONDS <= options.seconds <= MAX_SECONDS:
        parser.error(f"--seconds is between {MIN_SECONDS:g} and {MAX_SECONDS:g}")
    return options


def _names(parser: argparse.ArgumentParser, text: str, known: list[str]) -> list[str]:
    names = [name for name in text.split(",") if name]
    unknown = [name for name in names if name not in known]
    if unknown:
        parser.error(f"{unknown[0]!r} is not known: choose from {', '.join(known)}")
    return names


def say(line: str) -> None:
    """Show progress."""
    print(line, flush=True)


def run_section(name: str, plan: Plan, options: argparse.Namespace) -> bool:
    """Run one section and keep its results; False when there are none, with the reason shown."""
    say(f"── {name}")
    try:
        busy = idle.gate(options, say)
        measured = SECTIONS[name](plan)
    except MissingProgramError as error:
        say(f"{name}: {error}")
        measured, busy = {"missing_program": str(error)}, 0.0
    except FAILURES as error:
        say(f"{name}: {error}")
        return False
    how: dict[str, float] = {"busy_cores_before": round(busy, 2)}
    if name not in PROGRAMS:
        how |= {"rounds": plan.rounds, "seconds": plan.seconds}
    folder = options.output or results.FOLDER
    results.keep(folder, name, f"make bench ONLY={name}", measured, how)
    return True


def main() -> int:
    """0: every section that was asked for gave results."""
    options = parse_arguments()
    end_on_sigterm()
    good = options.report_only or measure(options)
    written = page.write(options.output or results.FOLDER, options.output or DOCS)
    say(f"wrote {written}")
    return 0 if good else 1


def measure(options: argparse.Namespace) -> bool:
    """Run the sections, one after the other; False when one of them gave no results."""
    if machine.CORES < CORES_NEEDED:
        say(f"bench needs {CORES_NEEDED} cores: one for a server, one for the load")
        return False
    with contextlib.suppress(OSError):
        os.sched_setaffinity(0, {LOAD_CORE})
    plan = Plan(options.rounds, options.seconds, say, options.contenders)
    outcomes = [run_section(name, plan, options) for name in options.only]
    return all(outcomes)


if __name__ == "__main__":
    sys.exit(main())
