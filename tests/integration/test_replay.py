"""bench/replay.py against the real system: the statistics equal what the log's lines say."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path

import pytest

from tests.support.fix_system import System, SystemFactory

ROOT = Path(__file__).resolve().parents[2]
REAL_LOG = ROOT.parent / "shared" / "data" / "access.log"
REPLAY_SECONDS = 90

REQUESTS = [
    *["GET /index.html"] * 7,
    *["POST /form"] * 3,
    *["GET /a?b=c%20d"] * 5,
    *["HEAD /index.html"] * 4,
    *("OPTIONS /form", "HEAD /only-head", "GET /once", "PUT /form", "POST /index.html"),
]
BAD = ["", '- - - [17/May/2015:10:05:03 +0000] "-" 408 0', "not a line of a log"]


def small_log() -> bytes:
    """Both formats mixed, out of order, over three minutes, with lines that are not requests."""
    lines = []
    for number, request in enumerate(REQUESTS):
        stamp = f"17/May/2015:10:0{number % 3}:{number * 7 % 60:02} +0000"
        combined = ' "http://example.org/" "Agent/1.0 [x]"' if number % 2 else ""
        lines.append(f'10.0.0.1 - - [{stamp}] "{request} HTTP/1.1" 200 5{combined}')
    return "\n".join([*lines[:10], *BAD, *lines[10:], ""]).encode()


def replay(log: Path, system: System, *flags: str) -> subprocess.CompletedProcess[str]:
    """Run the program as a user does."""
    mapping = log.with_suffix(".tsv")
    command = [sys.executable, "bench/replay.py", str(log), "--url", system.url]
    command += ["--mapping", str(mapping), *flags]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=REPLAY_SECONDS, check=False
    )


def statistics(log: Path, system: System) -> dict[str, int]:
    """Clicks by target as the aggregator has them now, asked for one by one."""
    found = {}
    for row in log.with_suffix(".tsv").read_text().splitlines()[1:]:
        number, _, target = row.split("\t")
        with urllib.request.urlopen(f"{system.stats_url}/stats/{number}", timeout=5) as answer:
            found[target] = json.load(answer)["Counts"]
    return found


@pytest.mark.parametrize("packed", [False, True], ids=["plain", "gzip"])
def test_a_small_log(system: SystemFactory, tmp_path: Path, packed: bool) -> None:
    running = system()
    log = tmp_path / "site.log"
    log.write_bytes(gzip.compress(small_log()) if packed else small_log())
    wanted = Counter(r.split()[1] for r in REQUESTS if r.split()[0] in ("GET", "POST"))
    wanted["/only-head"] = 0
    for times in (1, 2):  # the second run must see its own clicks alone
        done = replay(log, running, "--speed", "max" if times == 1 else "200", "--ids", "frequent")
        assert done.returncode == 0, done.stdout + done.stderr
        assert "2 lines are not requests" in done.stdout
        assert "line 12:" in done.stdout
        assert statistics(log, running) == {target: n * times for target, n in wanted.items()}


def test_a_difference_is_shown_and_fails(system: SystemFactory, tmp_path: Path) -> None:
    running = system(max_banner_id=3)  # the log has more targets than that
    log = tmp_path / "site.log"
    log.write_bytes(small_log())
    done = replay(log, running, "--speed", "max")
    assert done.returncode == 1
    assert "404" in done.stdout + done.stderr


def test_an_unreachable_server_is_one_sentence(tmp_path: Path) -> None:
    log = tmp_path / "site.log"
    log.write_bytes(small_log())
    done = subprocess.run(
        [sys.executable, "bench/replay.py", str(log), "--url", "http://127.0.0.1:1"],
        cwd=ROOT, capture_output=True, text=True, timeout=REPLAY_SECONDS, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "refused" in done.stderr


@pytest.mark.skipif(not REAL_LOG.exists(), reason="the real site's log lies beside our checkout")
def test_a_real_sites_log_equals_awk_and_uniq(system: SystemFactory, tmp_path: Path) -> None:
    running = system()
    log = tmp_path / "access.log"
    log.symlink_to(REAL_LOG)
    done = replay(log, running, "--speed", "max")
    assert done.returncode == 0, done.stdout + done.stderr
    counted = subprocess.run(
        """awk '$6 == "\\"GET" || $6 == "\\"POST" {print $7}' "$LOG" | sort | uniq -c""",
        shell=True, env={**os.environ, "LOG": str(log), "LC_ALL": "C"},
        capture_output=True, text=True, check=True,
    ).stdout.splitlines()  # fmt: skip
    wanted = {target: int(n) for n, target in (line.split() for line in counted)}
    found = {target: n for target, n in statistics(log, running).items() if n}
    assert len(wanted) == 1_488
    assert found == wanted
