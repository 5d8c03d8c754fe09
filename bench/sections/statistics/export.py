"""Memory of a large export: `python -m bench.sections.statistics.export`; docs/analysis.md has the
result.

Two days of every minute of many banners are exported as CSV from a whole running system, first a
tenth of them, then all: what grows with the rows would show as ten times as much.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

from bench.harness import idle
from bench.harness.servers import end_on_sigterm
from bench.harness.system import Clickmill
from bench.report.tables import markdown
from bench.sections.statistics.bench import SETTINGS
from bench.sections.statistics.data import DAY_S, fill

DAYS: Final = 2
BANNERS: Final = 3_500
LOOK_S: Final = 0.05
MB: Final = 1e6
HEAD: Final = ("rows", "seconds", "rows/s", "file MB", "aggregator MB", "`clickmill export` MB")


class Exported(NamedTuple):
    """One export: rows, its time in seconds, bytes of the file, most resident bytes of both."""

    rows: int
    seconds: float
    size: int
    aggregator: int
    client: int


def resident(pid: int) -> int:
    """Bytes of a process in memory; 0 where it has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0
    kilobytes = [line.split()[1] for line in status.splitlines() if line.startswith("VmRSS:")]
    return int(kilobytes[0]) * 1024 if kilobytes else 0


def _text(moment: int) -> str:
    return datetime.fromtimestamp(moment, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def export(system: Clickmill, since: int, until: int, rows: int) -> Exported:
    """Export a range. Raises RuntimeError where the file does not have so many rows."""
    aggregator = system.children()["aggregator"]
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory, "clicks.csv")
        began = time.monotonic()
        client = subprocess.Popen(
            [
                sys.executable, "-m", "stack.cli", "export", str(file), "--since", _text(since),
                "--until", _text(until), "--port", str(system.port),
                "--stats-port", str(system.stats_port),
            ]
        )  # fmt: skip
        most = [0, 0]
        while client.poll() is None:
            most = [max(most[0], resident(aggregator)), max(most[1], resident(client.pid))]
            time.sleep(LOOK_S)
        took = time.monotonic() - began
        with file.open("rb") as lines:
            found = sum(1 for line in lines if not line.startswith((b"ts,", b"#")))
        if client.returncode or found != rows:
            raise RuntimeError(f"exit code {client.returncode}, {found:,} rows instead of {rows:,}")
        return Exported(found, took, file.stat().st_size, *most)


def row_of(done: Exported) -> list[str]:
    """Its line of the table."""
    return [
        f"{done.rows:,}", f"{done.seconds:.1f}", f"{done.rows / done.seconds:,.0f}",
        *(f"{size / MB:,.0f}" for size in (done.size, done.aggregator, done.client)),
    ]  # fmt: skip


def main() -> int:
    """0: measured, and every row was in the files; 1: the machine is busy."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--banners", type=int, default=BANNERS)
    idle.add_options(parser)
    options = parser.parse_args()
    end_on_sigterm()
    try:
        idle.gate(options, print)
    except idle.BusyMachineError as error:
        print(f"export: {error}", file=sys.stderr)
        return 1
    with Clickmill(SETTINGS, worker_cores=None) as system:
        fill(system.dsn(), options.banners, DAYS, DAYS + 1)
        first = (int(time.time()) // DAY_S - DAYS) * DAY_S
        done = []
        for span in (DAYS * DAY_S // 10, DAYS * DAY_S):
            rows = options.banners * span // 60
            done.append(export(system, first, first + span, rows))
    print("\n".join(markdown(HEAD, map(row_of, done))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
