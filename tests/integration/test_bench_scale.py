"""The program of the section `scale`, as short as it goes. No number is judged here."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import pytest

from aggregator.postgres.migrations import apply_schema
from bench.harness.measure import MiscountError
from bench.report import scale
from bench.sections.scale.bench import check_exact

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 110


def test_every_part_runs_and_its_text_is_made(tmp_path: Path) -> None:
    target = tmp_path / "results.json"
    command = [sys.executable, "-m", "bench.sections.scale.bench", "--json", str(target)]
    command += ["--sources", "50", "--seconds", "6", "--sizes", "1", "50", "--banners", "1000"]
    command += ["--frames", "200", "--ingest-frames", "5", "--no-click"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    results = json.loads(target.read_text())
    assert results["crowd"][0]["workers"] == 50
    assert [row["frames"] for row in results["costs"]] == [200, 200]
    assert [row["pairs"] for row in results["ingest"]] == [5, 250]
    assert scale.scale(results)


def test_a_click_that_is_missing_in_postgres_is_an_error(database: str) -> None:
    asyncio.run(apply_schema(database))
    check_exact(0, database)
    with pytest.raises(MiscountError, match="1 clicks were sent, and 0 are in Postgres"):
        check_exact(1, database)
