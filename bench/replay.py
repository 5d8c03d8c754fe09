"""Replay a web server's access log as clicks: `python bench/replay.py LOG [--speed 3600]`.

Each request target of the log gets an ID, and each line becomes a request to /counter/{ID} with
the line's own method, at the line's own time, `--speed` times faster. GET and POST count; HEAD,
OPTIONS and others are sent too and must count nothing. At the end the clicks of the log are shown
beside the statistics; the exit code is 1 when they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

if __package__ in (None, ""):  # started as a file: make the folder above importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress

from bench.load import accesslog
from bench.load.ledger import Counts, by_banner, compare, shown
from bench.load.sender import Outcome, Sender, Shot
from bench.load.statistics import Gain, StatisticsError, iso
from stack.imports.accesslog import CLICK_METHODS, Request

DEFAULT_SPEED = 3600.0
"""One hour of the log a second."""
TOP = 10
TARGET_WIDTH = 56
NO_CLICK_STATUSES = {"OPTIONS": (200, 204)}
OTHER_METHOD_STATUSES = (405,)


@dataclass(frozen=True, slots=True)
class Options:
    """The command line."""

    log: Path
    url: str
    speed: float
    connections: int
    ids: accesslog.IdOrder
    first_id: int
    mapping: Path | None
    token: str


def parse_arguments(arguments: list[str] | None = None) -> Options:
    """Read the command line; exits with 2 and a sentence when it is wrong."""
    parser = argparse.ArgumentParser(prog="bench/replay.py", description=__doc__)
    parser.add_argument("log", type=Path, help="access log, Common or Combined, plain or gzip")
    parser.add_argument("--url", default="http://127.0.0.1:8080", help="the ingest port")
    parser.add_argument(
        "--speed", default=DEFAULT_SPEED, type=_speed,
        help="times faster than the log (default %(default)g); 0 or max: as fast as possible",
    )  # fmt: skip
    parser.add_argument("--connections", type=_count, default=16, help="keep-alive connections")
    parser.add_argument(
        "--ids", choices=("first", "frequent"), default="first",
        help="IDs in order of first appearance, or the most frequent target first",
    )  # fmt: skip
    parser.add_argument("--first-id", type=int, default=1, help="ID of the first target")
    parser.add_argument("--mapping", type=Path, help="write ID, lines and target here (TSV)")
    parser.add_argument("--token", default="", help="the statistics token, where one is set")
    return Options(**vars(parser.parse_args(arguments)))


def _speed(text: str) -> float:
    value = 0.0 if text == "max" else float(text)
    if not 0 <= value < float("inf"):
        raise argparse.ArgumentTypeError("a speed is a number of 0 or more, or max")
    return value


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1_000:
        raise argparse.ArgumentTypeError("between 1 and 1,000 connections")
    return value


async def shots(requests: list[Request], ids: dict[str, int], speed: float) -> AsyncIterator[Shot]:
    """The requests as shots; with speed 0 all are due at once, in the order of their times."""
    for offset, request in accesslog.arrivals(requests):
        due = offset / speed if speed else 0.0
        yield Shot(due, request.method, ids[request.target], request.is_click)


def send(log: accesslog.Log, ids: dict[str, int], options: Options) -> Outcome:
    """Send the whole log, with a progress bar where somebody sees it."""
    where = urlsplit(options.url)
    host, port = where.hostname or "127.0.0.1", where.port or 80
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), MofNCompleteColumn())
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as bar:
        task = bar.add_task("requests", total=len(log.requests))
        sender = Sender(host, port, options.connections, lambda: bar.advance(task))
        return asyncio.run(sender.run(shots(log.requests, ids, options.speed)))


def table(rows: Iterable[tuple[str, int, int]], title: str) -> list[str]:
    """Lines of a table of three columns, with a mark where the two numbers differ."""
    lines = [f"{title:<{TARGET_WIDTH}} {'log':>10} {'statistics':>11}"]
    for name, expected, found in rows:
        mark = "" if expected == found else "  DIFFERS"
        lines.append(f"{name[:TARGET_WIDTH]:<{TARGET_WIDTH}} {expected:>10,} {found:>11,}{mark}")
    return lines


def unexpected_answers(outcome: Outcome) -> list[str]:
    """Answers that the contract does not give to such a request."""
    wrong = []
    for (method, status), count in sorted(outcome.statuses.items()):
        click = method in CLICK_METHODS
        allowed = (200,) if click else NO_CLICK_STATUSES.get(method, OTHER_METHOD_STATUSES)
        if status not in allowed:
            wrong.append(f"{count:,} × {method} answered {status}, expected {allowed[0]}")
    return wrong


def minutes(outcome: Outcome, counts: Counts) -> list[str]:
    """Lines of a table: answered clicks beside the statistics, by the minute of this run."""
    lines = [f"{'minutes':<{TARGET_WIDTH}} {'answered':>19} {'statistics':>11}"]
    for minute, bounds in outcome.ledger.by_minute(counts):
        room = f" to {bounds.high:,}" if bounds.high != bounds.low else ""
        mark = "" if bounds.hold else "  DIFFERS"
        answered = f"{bounds.low:,}{room}"
        lines.append(
            f"{iso(minute * 60):<{TARGET_WIDTH}} {answered:>19} {bounds.counted:>11,}{mark}"
        )
    return lines


def report(log: accesslog.Log, ids: dict[str, int], outcome: Outcome, counts: Counts) -> bool:
    """Print the clicks of the log beside the statistics; True when they agree."""
    expected, counted = log.clicks_by_target, by_banner(counts)
    top = [(target, n, counted[ids[target]]) for target, n in expected.most_common(TOP)]
    sums = [
        ("targets with clicks", len(expected), sum(1 for n in counted.values() if n)),
        ("clicks (GET and POST lines)", expected.total(), counted.total()),
    ]
    tables = (table(top, "top targets"), table(sums, "totals"), minutes(outcome, counts))
    print("\n\n".join("\n".join(lines) for lines in tables))
    differences = compare("banner", {ids[t]: n for t, n in expected.items()}, {}, counted)
    if differences:
        explain(differences, outcome.ledger.wrong(counts, by_minute=False), len(ids))
    unexpected = unexpected_answers(outcome)
    for line in unexpected:
        print(line)
    return not differences and not unexpected


def explain(from_log: list[str], from_answers: list[str], banners: int) -> None:
    """Print which banners differ from the log, and whether the answers explain it."""
    print(f"\n{len(from_log)} of {banners} banners differ from the log:\n{shown(from_log)}")
    if from_answers:
        print(
            f"{len(from_answers)} banners differ from the answers received:\n{shown(from_answers)}"
        )
    else:
        print("No banner differs from the answers received: the missing clicks got no answer.")


def print_log(log: accesslog.Log, path: Path) -> None:
    """Say what was read, and which lines could not be."""
    methods = ", ".join(f"{n:,} {method}" for method, n in log.methods.most_common())
    targets = len({r.target for r in log.requests})
    print(f"{path}: {len(log.requests):,} requests of {targets:,} targets ({methods})")
    if log.bad_count:
        print(f"{log.bad_count:,} lines are not requests and are left out:")
    for bad in log.bad_shown:
        print(f"  line {bad.number}: {bad.text}")


def print_sending(outcome: Outcome, seconds: float) -> None:
    """Say how the sending went."""
    answers = outcome.statuses.total()
    print(
        f"{answers:,} answers in {seconds:.1f} s ({answers / max(seconds, 1e-9):,.0f} a second), "
        f"at most {outcome.latest:.2f} s behind the log's pattern"
    )
    if outcome.unsent:
        print(
            f"{outcome.unsent:,} requests were not sent, because no connection could be made: "
            "check that `clickmill up` runs"
        )
    if outcome.broken:
        print(f"{len(outcome.broken):,} requests got no answer and were not sent again:")
        print(shown(outcome.broken))


def write_mapping(path: Path, log: accesslog.Log, ids: dict[str, int]) -> None:
    """Write which ID stands for which target, with its clicks."""
    clicks = log.clicks_by_target
    lines = [f"{number}\t{clicks[target]}\t{target}\n" for target, number in ids.items()]
    path.write_text("id\tclicks\ttarget\n" + "".join(lines), encoding="utf-8")


def replay(options: Options) -> bool:
    """Do the whole of it; True when the statistics equal the log."""
    log = accesslog.read(options.log)
    print_log(log, options.log)
    ids = accesslog.give_ids(log.requests, options.ids, options.first_id)
    if options.mapping:
        write_mapping(options.mapping, log, ids)
    gain = Gain(options.url, ids.values(), options.token)
    began = time.monotonic()
    outcome = send(log, ids, options)
    print_sending(outcome, time.monotonic() - began)
    return report(log, ids, outcome, gain.read())


def main() -> int:
    """0: the statistics equal the log; 1: they don't, or could not be read."""
    try:
        equal = replay(parse_arguments())
    except (OSError, StatisticsError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    print("\nThe statistics equal the log." if equal else "\nThe statistics DIFFER from the log.")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
