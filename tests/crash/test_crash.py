"""The crash suite in its short form: each fault once, scaled down, against real processes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.crash.scenarios import SCENARIOS, Scenario, missing, play
from tests.support.fix_postgres import PostgresServer

SEED = int(os.environ.get("SEED", "1"))


@pytest.mark.timeout(180)
@pytest.mark.parametrize("scenario", [s for s in SCENARIOS if s.short], ids=lambda s: s.name)
def test_no_click_is_lost_or_counted_twice(
    scenario: Scenario, tmp_path: Path, postgres_server: PostgresServer
) -> None:
    if reason := missing(scenario):
        pytest.skip(f"{scenario.name}: {reason}")
    play(scenario, scenario.short, tmp_path, SEED, postgres_server)
