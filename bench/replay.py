"""Replay a web server's access log as clicks: `python bench/replay.py LOG [--speed 3600]`.

Each request target of the log gets an ID, and each line becomes a request to /counter/{ID} with
the line's own method, at the line's own time, `--speed` times faster. GET and POST count; HEAD,
OPTIONS and others are sent too and must count nothing. At the end the log's figures stand beside
the statistics'; the exit code is 1 when they differ.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

if __package__ in (None, ""):  # started as a file: make the folder above importable
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from bench import accesslog, reconcile
from bench.progress import Progress
from bench.sender import Ledger, Sender, Shot

DEFAULT_SPEED = 3600.0
"""One hour of the log a second."""
TOP = 10
TARGET_WIDTH = 56
NO_CLICK_STATUSES = {"OPTIONS": (200, 204)}
OTHER_METHOD_STATUSES = (405,)


@dataclass(frozen=True, slots=True)
class Options:
    """What the command line says."""

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


async def shots(
    requests: list[accesslog.Request], ids: dict[str, int], speed: float
) -> AsyncIterator[Shot]:
    """The requests as shots; with speed 0 all are due at once, in the order of their times."""
    for offset, request in accesslog.arrivals(requests):
        due = offset / speed if speed else 0.0
        yield Shot(due, request.method, ids[request.target], request.is_click)


def send(log: accesslog.Log, ids: dict[str, int], options: Options) -> Ledger:
    """Send the whole log and return the ledger."""
    where = urlsplit(options.url)
    host, port = where.hostname or "127.0.0.1", where.port or 80
    with Progress(len(log.requests), "requests") as progress:
        sender = Sender(host, port, options.connections, progress.step)
        return asyncio.run(sender.run(shots(log.requests, ids, options.speed)))


def table(rows: Iterable[tuple[str, int, int]], title: str) -> list[str]:
    """Lines of a table of three columns, with a mark where the two figures differ."""
    lines = [f"{title:<{TARGET_WIDTH}} {'log':>10} {'statistics':>11}"]
    for name, expected, found in rows:
        mark = "" if expected == found else "  DIFFERS"
        lines.append(f"{name[:TARGET_WIDTH]:<{TARGET_WIDTH}} {expected:>10,} {found:>11,}{mark}")
    return lines


def unexpected_answers(ledger: Ledger) -> list[str]:
    """Answers that the contract does not give to such a request."""
    wrong = []
    for (method, status), count in sorted(ledger.statuses.items()):
        click = method in accesslog.CLICK_METHODS
        allowed = (200,) if click else NO_CLICK_STATUSES.get(method, OTHER_METHOD_STATUSES)
        if status not in allowed:
            wrong.append(f"{count:,} × {method} answered {status}, expected {allowed[0]}")
    return wrong


def minute_rows(ledger: Ledger, figures: reconcile.Figures) -> list[tuple[str, int, int]]:
    """Answered clicks against the statistics, by the minute of this run."""
    counted: Counter[int] = sum(figures.values(), Counter())
    minutes = sorted(ledger.by_minute.keys() | {m for m, v in counted.items() if v})
    return [(reconcile.iso(m * 60), ledger.by_minute[m], counted[m]) for m in minutes]


def report(
    log: accesslog.Log, ids: dict[str, int], ledger: Ledger, figures: reconcile.Figures
) -> bool:
    """Print the log's figures beside the statistics'; True when they agree."""
    expected = log.clicks_by_target
    counted = reconcile.totals(figures)
    top = [(target, n, counted[ids[target]]) for target, n in expected.most_common(TOP)]
    print("\n".join(table(top, "top targets")))
    sums = [
        ("targets with clicks", len(expected), sum(1 for n in counted.values() if n)),
        ("clicks (GET and POST lines)", expected.total(), counted.total()),
    ]
    print("\n".join(["", *table(sums, "totals")]))
    print("\n".join(["", *table(minute_rows(ledger, figures), "minutes (answers for log)")]))
    straddling = ledger.straddling.total()
    if straddling:
        print(f"{straddling} clicks were on their way at a minute's edge: either minute is right")
    by_id = {ids[target]: n for target, n in expected.items()}
    differences = reconcile.compare(by_id, {}, counted)
    unexpected = unexpected_answers(ledger)
    if differences:
        print(f"\n{len(differences)} of {len(ids)} banners differ from the log:")
        print(reconcile.describe(differences))
        not_ours = reconcile.compare(ledger.answered, ledger.in_flight, counted)
        print(
            f"Against the answers received {len(not_ours)} banners differ"
            + (
                f":\n{reconcile.describe(not_ours)}"
                if not_ours
                else ": what is missing was never answered"
            )
        )
    for line in unexpected:
        print(line)
    return not differences and not unexpected


def print_log(log: accesslog.Log, path: Path) -> None:
    """Say what was read, and which lines could not be."""
    methods = ", ".join(f"{n:,} {method}" for method, n in log.methods.most_common())
    targets = len({r.target for r in log.requests})
    print(f"{path}: {len(log.requests):,} requests of {targets:,} targets ({methods})")
    if log.bad_count:
        print(f"{log.bad_count:,} lines are no requests and are left out:")
    for bad in log.bad_shown:
        print(f"  line {bad.number}: {bad.text}")


def print_sending(ledger: Ledger, seconds: float) -> None:
    """Say how the sending went."""
    rate = ledger.total / seconds if seconds else 0.0
    print(
        f"{ledger.total:,} answers in {seconds:.1f} s ({rate:,.0f} a second), "
        f"at most {ledger.latest:.2f} s behind the log's pattern"
    )
    if ledger.unsent:
        print(
            f"{ledger.unsent:,} requests were never sent: no connection. Does `clickmill up` run?"
        )
    for line in ledger.broken[: reconcile.MAX_SHOWN]:
        print(f"  broken, not sent again: {line}")
    if len(ledger.broken) > reconcile.MAX_SHOWN:
        print(f"  … and {len(ledger.broken) - reconcile.MAX_SHOWN:,} more")


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
    with reconcile.StatsClient(options.url, options.token) as stats:
        start = time.time() // 60 * 60
        stats.wait_complete(time.time())
        before = stats.figures(ids.values(), start, time.time() + 60)
        began = time.monotonic()
        ledger = send(log, ids, options)
        print_sending(ledger, time.monotonic() - began)
        stats.wait_complete(time.time())
        after = stats.figures(ids.values(), start, time.time() + 60)
    return report(log, ids, ledger, reconcile.subtract(after, before))


def main() -> int:
    """0: the statistics equal the log; 1: they don't, or could not be read."""
    try:
        equal = replay(parse_arguments())
    except (OSError, reconcile.ReconcileError) as error:
        print(f"replay: {error}", file=sys.stderr)
        return 1
    print("\nThe statistics equal the log." if equal else "\nThe statistics DIFFER from the log.")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
