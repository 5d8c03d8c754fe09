"""The contract's load scenario in its short form: the same shape, 50 users, about 40 s.

The whole of it is `make stress`. Locust's exit code is its verdict: p95, failures, and every
banner's statistics against the number of 200 answers.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.fix_system import System, SystemFactory

ROOT = Path(__file__).resolve().parents[2]
SHORT_SECONDS, PEAK_USERS = 40, 50
LIMIT_SECONDS = 110


def locust(running: System, results: Path, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the Locust file as `make stress` does."""
    command = [
        *(sys.executable, "-m", "locust", "-f", "bench/locustfile.py", "--headless"),
        *("--only-summary", "--loglevel", "WARNING", "--host", running.url),
        *("--results", str(results), *flags),
    ]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )


def test_the_contracts_scenario_in_short(system: SystemFactory, tmp_path: Path) -> None:
    running = system()
    results = tmp_path / "results.json"
    minutes = f"{SHORT_SECONDS / 60:.4f}"
    done = locust(running, results, "--peak-users", str(PEAK_USERS), "--minutes", minutes)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(results.read_text())
    # 50 users at the peak, 5/9 of them on average, each with up to 10 requests a second
    assert seen["clicks_answered"] == seen["requests"] > 2_000
    assert seen["failed"] == 0
    assert "got no answer" not in done.stdout
    assert seen["ledger"] == "equal"


def test_the_mixed_scenario_counts_every_kind_of_click(
    system: SystemFactory, tmp_path: Path
) -> None:
    running = system()
    results = tmp_path / "results.json"
    flags = ("--scenario", "mixed", "--shape", "soak", "--peak-users", "10", "--minutes", "0.1")
    done = locust(running, results, *flags)
    assert done.returncode == 0, done.stdout + done.stderr
    seen = json.loads(results.read_text())
    assert seen["clicks_answered"] > seen["requests"]  # a batch has many
    assert seen["ledger"] == "equal"
    for kind in ("POST /counter/", "GET /counter/", "/pixel/", "POST /clicks", "GET /stats/"):
        assert kind.split()[-1] in done.stdout + done.stderr


def test_a_ledger_that_does_not_add_up_fails_the_run(system: SystemFactory, tmp_path: Path) -> None:
    running = system()
    results = tmp_path / "results.json"
    flags = ("--shape", "soak", "--peak-users", "5", "--minutes", "0.08")
    stray = subprocess.Popen([sys.executable, "-c", STRAY, running.url], stdout=subprocess.DEVNULL)
    try:
        done = locust(running, results, *flags)
    finally:
        stray.terminate()
        stray.wait()
    assert done.returncode == 1
    assert re.search(r"banner 50: \d+ clicked, \d+ counted", done.stdout)


# Clicks that the run knows nothing of, for as long as it lasts.
STRAY = """
import sys, time, urllib.request
while True:
    urllib.request.urlopen(sys.argv[1] + "/counter/50").read()
    time.sleep(0.05)
"""


@pytest.mark.parametrize("flag", ["--processes", "--master"])
def test_several_locust_processes_are_refused(flag: str, tmp_path: Path) -> None:
    flags = [flag, "2"] if flag == "--processes" else [flag, "--expect-workers", "1"]
    command = [sys.executable, "-m", "locust", "-f", "bench/locustfile.py", "--headless"]
    done = subprocess.run(
        [*command, "--host", "http://127.0.0.1:1", *flags],
        cwd=ROOT, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "one Locust process" in done.stdout + done.stderr
