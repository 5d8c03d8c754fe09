"""`clickmill import` into a running system: exactly once, also where it was interrupted."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from signal import SIGKILL

import pytest

from clickmill.fields import PREFIX
from tests.support import sql
from tests.support.fix_system import System, SystemFactory
from tests.support.raw import ask
from tests.support.wait import eventually

ROWS = 45_000
TOKEN = "write-token-7f3a"


def write(path: Path, rows: int, banner: int = 0) -> Counter[int]:
    """A CSV of so many rows over the last 20 days; the clicks of each banner."""
    start = int(time.time()) - 20 * 86_400
    clicks: Counter[int] = Counter()
    with path.open("w") as file:
        file.write("ts,bannerID,count\n")
        for n in range(rows):
            at, count = start + n * 19 * 86_400 // rows, 1 + n % 3
            file.write(f"{at},{banner + n % 50},{count}\n")
            clicks[banner + n % 50] += count
    return clicks


def command(running: System, path: Path, *options: str, token: str = "") -> subprocess.Popen[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    env |= {PREFIX + "WRITE_TOKEN": token} if token else {}
    argv = [sys.executable, "-m", "stack.cli", "import", str(path), "--port", str(running.port)]
    return subprocess.Popen([*argv, *options], env=env, text=True, stdout=-1, stderr=-1)


def imported(running: System, path: Path, *options: str, token: str = "") -> tuple[int, str]:
    """The exit code, and what was printed."""
    process = command(running, path, *options, token=token)
    out, error = process.communicate(timeout=120)
    return process.returncode, out + error


def wait_counts(running: System, wanted: Counter[int]) -> None:
    dsn = running.address("postgres")
    eventually(lambda: sql.counts(dsn) == wanted, 60, f"{wanted.total()} clicks are counted")


def test_a_file_counts_once_also_after_an_import_that_was_killed(
    system: SystemFactory, tmp_path: Path
) -> None:
    running, path = system(workers=2), tmp_path / "clicks.csv"
    clicks = write(path, ROWS)
    killed = command(running, path)
    eventually(lambda: _batches(running) > 0, 60, "a batch is stored")
    killed.send_signal(SIGKILL)
    killed.communicate()
    for _ in range(2):
        code, text = imported(running, path)
        assert code == 0, text
        assert f"{clicks.total():,} clicks in {ROWS:,} of {ROWS:,} lines are counted" in text
    wait_counts(running, clicks)
    sql.assert_rollups_equal_minutes(running.address("postgres"))
    keys = sql.query(running.address("postgres"), "SELECT count(*)::int FROM idempotency_key")
    assert keys == [(-(-ROWS // 10_000),)]


def _batches(running: System) -> int:
    text = ask(running.port, "GET", "/metrics").body.decode()
    found = [x for x in text.splitlines() if x.startswith("clickmill_keyed_batches_total ")]
    return int(float(found[0].split()[1]))


def test_logs_tokens_and_files_that_are_refused_whole(
    system: SystemFactory, tmp_path: Path
) -> None:
    running = system(write_token=TOKEN)
    now = time.strftime("%d/%b/%Y:%H:%M:%S +0000", time.gmtime())
    log = tmp_path / "access.log"
    lines = [f'::1 - - [{now}] "GET /click/{n % 3} HTTP/1.1" {302 + n // 30} 5' for n in range(40)]
    log.write_text("\n".join([*lines, "no log line"]))
    code, text = imported(running, log)
    assert (code, "CLICKMILL_WRITE_TOKEN" in text) == (1, True), text
    code, text = imported(running, log, token=TOKEN)
    assert (code, "30 clicks in 30 of 41 lines" in text) == (0, True), text
    code, text = imported(running, log, "--pattern", r"^/click/([12])", token=TOKEN)
    assert (code, "imported before, in another way" in text) == (1, True), text

    bad = tmp_path / "bad.csv"
    total = write(bad, 12_000, banner=100)
    assert total
    with bad.open("a") as file:
        file.write(f"{int(time.time()) - 40 * 86_400},101,1\n")
    code, text = imported(running, bad, token=TOKEN)
    assert (code, "line 12002: ts is" in text, "32 days" in text) == (1, True, True), text
    wait_counts(running, Counter({0: 10, 1: 10, 2: 10}))


def test_what_the_statistics_give_as_csv_and_ndjson_can_be_imported(
    system: SystemFactory, tmp_path: Path
) -> None:
    running = system()
    for _ in range(3):
        assert ask(running.port, "POST", "/counter/7").status == 200
    running.wait_counts(7, 3)
    paths = [tmp_path / f"export.{form}" for form in ("csv", "ndjson")]
    for path in paths:
        form = path.suffix[1:]
        path.write_bytes(ask(running.stats_port, "GET", f"/stats?format={form}").body)
    for path in paths:
        code, text = imported(running, path)
        assert code == 0, text
    # Both have the same clicks, in other bytes: two files.
    running.wait_counts(7, 9)


@pytest.mark.soak
@pytest.mark.timeout(300)
def test_a_million_rows_take_under_a_minute(system: SystemFactory, tmp_path: Path) -> None:
    running, path = system(workers=2), tmp_path / "clicks.csv"
    clicks = write(path, 1_000_000)
    began = time.monotonic()
    code, text = imported(running, path)
    took = time.monotonic() - began
    assert code == 0, text
    wait_counts(running, clicks)
    print(
        f"{took:.1f} s to import, {time.monotonic() - began:.1f} s until all of it is in Postgres"
    )
    assert took < 60
