"""`make bench` from one end to the other, as short as it goes. No number is judged here."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
LIMIT_SECONDS = 110


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a server's core and the load's")
@pytest.mark.skipif(not shutil.which("wrk"), reason="wrk is missing: sudo apt-get install wrk")
def test_a_section_and_its_page(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bench.run", "--rounds", "1", "--seconds", "1"]
    command += ["--only", "side,batch", "--contenders", "granian", "--output", str(tmp_path)]
    command += ["--allow-busy"]  # tests run side by side: no number is judged here
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=LIMIT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    side = json.loads((tmp_path / "side.json").read_text())
    assert [row["key"] for row in side["results"]["rows"]] == ["clickmill", "granian"]
    assert all(len(row["turns"]) == 1 for row in side["results"]["rows"])
    page = (tmp_path / "benchmarks.md").read_text()
    assert "Granian RSGI, 200 only" in page
    assert "not measured yet" in page  # the sections that were not run
    assert "`POST /clicks`, 1,000 per array" in page
    assert (tmp_path / "benchmarks.svg").read_text().startswith("<svg")


@pytest.mark.parametrize("flags", [["--only", "nothing"], ["--rounds", "0"], ["--seconds", "0"]])
def test_a_wrong_flag_ends_before_anything_starts(flags: list[str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.run", *flags], cwd=ROOT, capture_output=True, check=False
    )
    assert done.returncode == 2
