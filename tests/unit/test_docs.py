"""What the documents say about the project is so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from stack.cli import COMMANDS
from stack.settings_table import BEGIN, END, FILES, with_table

ROOT = Path(__file__).parents[2]
TOP = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
DOCUMENTS = [*(ROOT / name for name in TOP), *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("path", FILES, ids=str)
def test_the_tables_of_settings_are_those_of_the_code(path: Path) -> None:
    text = (ROOT / path).read_text()
    assert BEGIN in text
    assert END in text
    assert with_table(text, FILES[path]) == text, "run `make docs`"


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)#\s]+)", path.read_text()):
        if not re.match(r"\w+:", target):
            assert (path.parent / target).exists(), target


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_commands_exist(path: Path) -> None:
    text = path.read_text()
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert set(re.findall(r"(?:^|`)make ([a-z]+)", text, re.MULTILINE)) <= set(targets)
    assert set(re.findall(r"(?:^|`)clickmill ([a-z]+)", text, re.MULTILINE)) <= set(COMMANDS)


def test_every_place_in_the_architecture_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    for place in re.findall(
        r"`((?:clickmill|ingest|aggregator|stack|bench|grafana|tests)/[\w./]*)`", text
    ):
        assert (ROOT / place).exists(), place
