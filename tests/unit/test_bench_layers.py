"""The packages of bench/: each imports only from those before it in the list, so there is no cycle.

load       what sends clicks, and the ledger of their answers
harness    servers, cores, rounds and ratios
contenders, report
sections   what is measured
run, replay, locustfile
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

BENCH = Path(__file__).parents[2] / "bench"
MAY_IMPORT = {
    "load": set[str](),
    "harness": {"load"},
    "contenders": {"load", "harness"},
    "report": {"load", "harness"},
    "sections": {"load", "harness", "contenders", "report"},
}


def imported(path: Path) -> set[str]:
    """The packages of bench/ that a module imports from."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "bench":
                names = [f"bench.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        found |= {name.split(".")[1] for name in names if name.startswith("bench.")}
    return found


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_no_package_imports_upward(package: str) -> None:
    modules = list((BENCH / package).rglob("*.py"))
    assert modules
    for module in modules:
        assert imported(module) <= MAY_IMPORT[package] | {package}, module


def test_every_package_is_listed() -> None:
    packages = {path.parent.relative_to(BENCH).parts[0] for path in BENCH.glob("*/*.py")}
    assert packages == set(MAY_IMPORT)


def test_nothing_of_the_product_imports_bench() -> None:
    for part in ("clickmill", "ingest", "aggregator", "stack"):
        for path in (BENCH.parent / part).rglob("*.py"):
            assert not imported(path), path
