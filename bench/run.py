"""`make bench`: run the sections, keep their figures, write docs/benchmarks.md and its picture.

Each section's figures go to bench/results/NAME.json, so that sections can be run one by one; the
report is always made from all that are there. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from pathlib import Path

import msgspec

from bench import lineup, machine, report, versions
from bench.measure import (
    DEFAULT_ROUNDS,
    DEFAULT_SECONDS,
    MAX_ROUNDS,
    MIN_ROUNDS,
    MiscountError,
    Plan,
)
from bench.sections import SECTIONS
from bench.servers import LOAD_CORE, ServerError, end_on_sigterm
from bench.wrk import MissingProgramError, WrongAnswersError

RESULTS = Path(__file__).parent / "results"
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
    parser.add_argument("--report-only", action="store_true", help="write the report anew")
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


def run_section(name: str, plan: Plan, results: Path) -> bool:
    """Run one section and keep its figures; False when it gave none, with the reason shown."""
    say(f"── {name}")
    load_before = os.getloadavg()[0]
    try:
        figures = SECTIONS[name](plan)
    except (MissingProgramError, MiscountError, ServerError, WrongAnswersError) as error:
        say(f"{name}: {error}")
        if not isinstance(error, MissingProgramError):
            return False
        figures = {"missing_program": str(error)}
    how = {"rounds": plan.rounds, "seconds": plan.seconds, "load_before": round(load_before, 2)}
    keep(results, name, f"make bench ONLY={name}", figures, how)
    return True


def keep(
    results: Path, name: str, command: str, figures: object, how: dict[str, float] | None = None
) -> None:
    """Write a section's figures with all that a reader needs to judge them."""
    results.mkdir(parents=True, exist_ok=True)
    record = {
        "section": name,
        "command": command,
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **(how or {}),
        "machine": machine.facts(),
        "versions": versions.found(),
        "figures": figures,
    }
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    (results / f"{name}.json").write_bytes(text + b"\n")


def main() -> int:
    """0: every section that was asked for gave figures."""
    options = parse_arguments()
    end_on_sigterm()
    if not options.report_only and len(os.sched_getaffinity(0)) < CORES_NEEDED:
        say(f"bench needs {CORES_NEEDED} cores: one for a server, one for the load")
        return 1
    good = True
    results = options.output or RESULTS
    if not options.report_only:
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, {LOAD_CORE})
        plan = Plan(options.rounds, options.seconds, say, options.contenders)
        outcomes = [run_section(name, plan, results) for name in options.only]
        good = all(outcomes)
    say(f"wrote {report.write(results, options.output or report.DOCS)}")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
