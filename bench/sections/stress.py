"""`make stress`: the load scenario by Locust, against a system of its own or `--url`.

It starts the whole of Clickmill on free ports with its data in a temporary folder, runs
bench/locustfile.py against it, and keeps Locust's HTML and CSV reports in bench/reports. The
contract's whole scenario takes ten minutes; its results go into docs/benchmarks.md, if the machine
was idle before.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import msgspec

from bench.harness import idle
from bench.harness.servers import DOCS, ROOT, ServerError, end_on_sigterm
from bench.harness.system import Clickmill
from bench.load import shapes
from bench.report import page, results

REPORTS = ROOT / "bench" / "reports"
LOCUSTFILE = ROOT / "bench" / "locustfile.py"
MAX_USERS = 100_000
STOP_SECONDS = 60


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make stress", description=__doc__)
    parser.add_argument("--users", type=int, default=shapes.CONTRACT_USERS, help="at the peak")
    parser.add_argument("--minutes", type=float, default=shapes.CONTRACT_MINUTES)
    parser.add_argument("--shape", choices=shapes.SHAPES, default="contract")
    parser.add_argument("--scenario", choices=("contract", "mixed"), default="contract")
    parser.add_argument("--url", default="", help="a system that runs already: its ingest port")
    parser.add_argument("--token", default="", help="its statistics token, where one is set")
    idle.add_options(parser)
    options = parser.parse_args(arguments)
    if not 1 <= options.users <= MAX_USERS or options.minutes <= 0:
        parser.error(f"between 1 and {MAX_USERS:,} users, and more than 0 minutes")
    return options


def locust_command(options: argparse.Namespace, url: str, stem: Path) -> list[str]:
    """Locust with our file, its reports, and our own flags."""
    return [
        *(sys.executable, "-m", "locust", "-f", str(LOCUSTFILE), "--headless", "--only-summary"),
        *("--host", url, "--shape", options.shape, "--scenario", options.scenario),
        *("--peak-users", str(options.users), "--minutes", f"{options.minutes:g}"),
        *("--html", f"{stem}.html", "--csv", str(stem), "--results", f"{stem}.json"),
        *(("--stats-token", options.token) if options.token else ()),
        *("--loglevel", "WARNING"),
    ]


def run_locust(options: argparse.Namespace, url: str, stem: Path) -> int:
    """Run Locust to its end; Ctrl-C ends it early, and its ledger is still compared."""
    locust = subprocess.Popen(locust_command(options, url, stem), cwd=ROOT)
    try:
        return locust.wait()
    except KeyboardInterrupt:
        return locust.wait(STOP_SECONDS)  # the terminal told Locust too


def is_published(options: argparse.Namespace) -> bool:
    """True for the contract's scenario as it stands, on a system of this program's own."""
    contract = (shapes.CONTRACT_USERS, shapes.CONTRACT_MINUTES, "contract", "contract", "")
    given = (options.users, options.minutes, options.shape, options.scenario, options.url)
    return given == contract


def busy_before(options: argparse.Namespace) -> float | None:
    """Cores in use; None where the run goes on beside other work, and is not published."""
    try:
        return idle.gate(options, print)
    except idle.BusyMachineError as error:
        print(f"stress: the scenario runs, but its results are not published: {error}", flush=True)
        return None


def publish(measured: Path, busy: float) -> None:
    """Put a whole run's results into docs/benchmarks.md."""
    how = {"busy_cores_before": round(busy, 2)}
    found = msgspec.json.decode(measured.read_bytes())
    results.keep(results.FOLDER, "stress", "make stress", found, how)
    print(f"wrote {page.write(results.FOLDER, DOCS)}")


def run(options: argparse.Namespace, stem: Path) -> int:
    """Locust's exit code, against the given system or one that is started for it."""
    if options.url:
        return run_locust(options, options.url, stem)
    print("Starting Clickmill", flush=True)
    with Clickmill(worker_cores=None) as system:
        return run_locust(options, f"http://127.0.0.1:{system.port}", stem)


def main() -> int:
    """Locust's verdict: 0 when p95, failures and ledger are in order."""
    options = parse_arguments()
    end_on_sigterm()
    REPORTS.mkdir(exist_ok=True)
    stem = REPORTS / time.strftime(f"{options.shape}-{options.scenario}-%Y%m%d-%H%M%S")
    busy = busy_before(options) if is_published(options) else None
    try:
        code = run(options, stem)
    except ServerError as error:
        print(f"stress: {error}", file=sys.stderr)
        return 1
    print(f"reports: {stem.relative_to(ROOT)}.html, {stem.name}_*.csv")
    if code == 0 and busy is not None:
        publish(Path(f"{stem}.json"), busy)
    return code


if __name__ == "__main__":
    sys.exit(main())
