"""What the documents say about the project is so."""

from __future__ import annotations

import re
import subprocess
import sys
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


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site of docs/, as `make site` builds it; --quiet would hide warnings from --strict."""
    home = tmp_path_factory.mktemp("site")
    argv = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(home)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return home


def test_the_site_has_every_document(site: Path) -> None:
    documents = {path.stem for path in (ROOT / "docs").glob("*.md")}
    assert documents <= {path.stem for path in site.glob("*.html")}


def test_the_site_loads_nothing_from_other_hosts(site: Path) -> None:
    for path in (*site.rglob("*.html"), *site.rglob("*.css")):
        loaded = re.findall(
            r"(?:<script[^>]*src|<link[^>]*href|<img[^>]*src)=\"([^\"]+)|url\(([^)]+)\)|@import",
            path.read_text(),
        )
        foreign = [a or b for a, b in loaded if re.match(r"['\"]?(https?:)?//", a or b)]
        assert not foreign, path.name


def test_lists_stand_apart_from_the_paragraph_before() -> None:
    """GitHub makes a list without an empty line before it; the site would not."""
    for path in DOCUMENTS:
        before = ""
        for line in path.read_text().splitlines():
            starts = re.match(r"(- |\d+\. )", line) is not None
            ours = re.match(r"(- |\d+\. | )", before) is not None
            assert not starts or not before.strip() or ours, f"{path.name}: {line}"
            before = line


def test_every_threat_has_a_test_that_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    rows = [line for line in text.splitlines() if line.startswith("| ") and "tests/" in line]
    assert len(rows) > 20
    for row in rows:
        path, _, name = row.rpartition("`")[0].rpartition("`")[2].partition("::")
        assert f"def {name}(" in (ROOT / path).read_text(), row
