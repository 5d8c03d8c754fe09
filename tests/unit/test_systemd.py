"""The systemd units, read by systemd itself: its words count, for it exits with 0 all the same."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from clickmill import configuration
from stack.cli import COMMANDS

UNITS: Final = sorted((Path(__file__).parents[2] / "deploy" / "systemd").glob("*.service"))
INSTALLED: Final = "/opt/clickmill/bin/clickmill"
COMING: Final = frozenset(
    {"CLICKMILL_DRAIN_TIMEOUT", "CLICKMILL_WRITE_TOKEN", "CLICKMILL_ALLOWED_HOSTS"}
)
"""Settings of the contract that are being made; once one is there, its value is looked at too."""
MOST_EXPOSURE: Final = 20
"""Of 100, by systemd's own measure; a unit that says nothing about it has 96."""


def analyze(*words: str | Path) -> subprocess.CompletedProcess[str]:
    argv = ["systemd-analyze", *map(str, words)]
    try:
        return subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    except FileNotFoundError:
        pytest.fail("systemd-analyze is missing: `scripts/os-packages test` gets it")


def complaints(home: Path, *changed: tuple[str, str]) -> list[str]:
    """What systemd has to say about the units, with these words changed in them."""
    ours = str(Path(sys.executable).with_name("clickmill"))
    for unit in UNITS:
        text = unit.read_text()
        for old, new in (*changed, (INSTALLED, ours)):
            text = text.replace(old, new)
        (home / unit.name).write_text(text)
    done = analyze("verify", "--man=no", *(home / unit.name for unit in UNITS))
    return [line for line in (done.stdout + done.stderr).splitlines() if "clickmill" in line]


def test_systemd_has_nothing_to_say(tmp_path: Path) -> None:
    assert len(UNITS) == 3
    assert complaints(tmp_path) == []


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        ("ProtectSystem=", "ProtectSytem="),
        ("ProtectSystem=strict", "ProtectSystem=strickt"),
        ("KillMode=mixed", "KillMode=mixt"),
        ("@system-service", "@sytem-service"),
        ("RestartPreventExitStatus=2", "RestartPreventExitStatus=two"),
        ("Type=exec", "Type=exek"),
        (INSTALLED, "/nowhere/clickmill"),
    ],
)
def test_a_slip_is_found(tmp_path: Path, right: str, wrong: str) -> None:
    assert complaints(tmp_path, (right, wrong))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_what_a_unit_may_do_is_little(unit: Path) -> None:
    done = analyze("security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSURE}", unit)
    assert done.returncode == 0, done.stdout


def environment(text: str) -> dict[str, str]:
    lines = re.findall(r"^(?:Environment=|#?(?=CLICKMILL_))(.*)$", text, re.MULTILINE)
    pairs = [word.split("=", 1) for line in lines for word in line.split()]
    return {name: value.replace("%i", "8080") for name, value in pairs}


@pytest.mark.parametrize(
    "file", [*UNITS, UNITS[0].parent / "clickmill.env.example"], ids=lambda file: file.name
)
def test_the_settings_exist_and_are_allowed(file: Path) -> None:
    given = environment(file.read_text())
    assert given
    assert configuration.unknown(list(given)) == []
    configuration.load({}, given, Path("/nonexistent/.env"))


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_command_exists_and_has_time_to_end(unit: Path) -> None:
    text = unit.read_text()
    command = re.search(rf"^ExecStart={INSTALLED} (\w+)$", text, re.MULTILINE)
    assert command is not None
    assert command[1] in COMMANDS
    patience = re.search(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)
    assert patience is not None
    assert int(patience[1]) >= int(environment(text).get("CLICKMILL_DRAIN_TIMEOUT", "10")) + 15
