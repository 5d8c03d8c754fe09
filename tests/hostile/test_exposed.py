"""A port that others can reach: real addresses, in a network namespace of its own.

Everywhere else the tests use the loopback address, from which everything is local.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from clickmill.configuration import SettingsError
from clickmill.fields import PREFIX
from clickmill.settings import Settings
from stack.cli import COMMANDS, LISTENS, check_closed
from tests.hostile.exposed import ELSEWHERE

ROOT = Path(__file__).parents[2]
SETUP = f"ip link set lo up && ip addr add {ELSEWHERE}/32 dev lo && exec " + '"$@"'
INSIDE = ("unshare", "--net", "sh", "-c", SETUP, "sh")
COUNTED, NO_READER = (200, ""), (401, "unauthorized")
NO_AGGREGATOR = (503, "stats_unavailable")
Answers = dict[str, tuple[int, str]]


def environment(**settings: str) -> dict[str, str]:
    inherited = {name: v for name, v in os.environ.items() if not name.startswith(PREFIX)}
    return inherited | {PREFIX + name: value for name, value in settings.items()}


def answers(**settings: str) -> Answers:
    """What a worker on all addresses answers, from this machine and from elsewhere."""
    if os.geteuid() != 0:
        pytest.skip("a network namespace needs root")
    done = subprocess.run(
        [*INSIDE, sys.executable, "-m", "tests.hostile.exposed"],
        env=environment(HOST="0.0.0.0", **settings), cwd=ROOT, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[str, list[Any]] = json.loads(done.stdout)
    return {question: (answer[0], answer[1]) for question, answer in found.items()}


def test_without_tokens_others_click_and_no_more() -> None:
    got = answers(OPEN="yes")
    for where in ("here", "elsewhere"):
        for click in ("click", "click as statistics"):
            assert got[f"{click} from {where}"] == COUNTED
        for question in ("statistics", "statistics by POST", "metrics"):
            assert got[f"{question} from {where}"] == NO_READER, question
    assert got["batch from here"] == COUNTED
    assert got["batch from elsewhere"] == (403, "write_token_not_set")


def test_with_tokens() -> None:
    got = answers(STATS_TOKEN="may-read", WRITE_TOKEN="may-write")
    for where in ("here", "elsewhere"):
        assert got[f"click from {where}"] == COUNTED
        for question in ("batch", "statistics", "metrics"):
            assert got[f"{question} from {where}"] == NO_READER, question
    assert got["batch with the token"] == COUNTED
    assert got["statistics with the token"] == NO_AGGREGATOR


@pytest.mark.parametrize("address", ["0.0.0.0", "::", ELSEWHERE, "stats.example.org"])
def test_an_address_that_others_can_reach_needs_a_token(address: str) -> None:
    """One sentence, before anything starts; only the addresses that the command opens matter."""
    for command, names in LISTENS.items():
        for name in ("host", "stats_host"):
            changes: dict[str, Any] = {name: address}
            exposed = Settings(**changes)
            if name not in names:
                check_closed(command, exposed)
                continue
            with pytest.raises(SettingsError) as caught:
                check_closed(command, exposed)
            for part in (name.upper(), "STATS_TOKEN", "WRITE_TOKEN", "OPEN=yes"):
                assert f"CLICKMILL_{part}" in str(caught.value)
            check_closed(command, Settings(**changes, open=True))
            check_closed(command, Settings(**changes, stats_token="x"))
    for command in COMMANDS.keys() - LISTENS.keys():
        check_closed(command, Settings(host=address, stats_host=address))


@pytest.mark.parametrize("address", ["127.0.0.1", "127.0.0.53", "::1", "localhost"])
def test_a_loopback_address_needs_none(address: str) -> None:
    for command in LISTENS:
        check_closed(command, Settings(host=address, stats_host=address))
