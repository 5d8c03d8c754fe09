"""The README's lines, copied as they stand, against a running system. Only the ports differ."""

from __future__ import annotations

import json
import re
import subprocess
import time
from pathlib import Path

from tests.support.fix_system import System, SystemFactory
from tests.support.wait import eventually

README = (Path(__file__).parents[2] / "README.md").read_text()
BLOCKS = re.findall(r"^```sh\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
CURLS = [line for block in BLOCKS for line in block.splitlines() if line.startswith("curl ")]


def run(system: System, line: str) -> str:
    """What the line prints; an answer of 400 or more is an error."""
    line = line.replace(":8080/", f":{system.port}/").replace(":8081/", f":{system.stats_port}/")
    done = subprocess.run(
        ["sh", "-c", f"{line} -sS --fail-with-body --max-time 5"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def test_every_line_works(system: SystemFactory) -> None:
    one = system(workers=2)
    assert len(CURLS) >= 10
    for line in CURLS:
        # A banner's target is on its way to the workers for a moment: a person is no faster.
        eventually(lambda line=line: run(one, line) or line, 5, line)  # type: ignore[misc]


def test_a_click_is_in_the_statistics_within_two_seconds(system: SystemFactory) -> None:
    one = system(workers=2, flush_interval=1)
    click, stats = CURLS[:2]
    assert json.loads(run(one, click)) == {"status": "counted"}
    clicked = time.monotonic()
    eventually(lambda: json.loads(run(one, stats))["Counts"] == 1, 2, "the click is there")
    assert time.monotonic() - clicked < 2
