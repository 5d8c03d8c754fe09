"""The layers of docs/architecture.md, held against every import of the code.

Its table says of each package by which others it may be imported. Here that table is read, and
each `import` in the source must be allowed by it; no two modules may import each other, not even
in a circle of several.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TOP: Final = ("clickmill", "ingest", "aggregator", "stack", "bench", "grafana")
ROW: Final = re.compile(r"^\| `([\w/]+)/` \| .*? \|(.*)\|$", re.MULTILINE)
MAX_LINES: Final = 300
MAX_FUNCTION_LINES: Final = 60


@cache
def sources() -> dict[str, Path]:
    """Every Python module of the product, the benchmarks and the dashboards, by dotted name."""
    files = [path for top in TOP for path in (ROOT / top).rglob("*.py")]
    names = [str(path.relative_to(ROOT).with_suffix("")).replace("/", ".") for path in files]
    return {name.removesuffix(".__init__"): path for name, path in zip(names, files, strict=True)}


@cache
def compiled() -> set[str]:
    return {f"ingest.{path.stem}" for path in (ROOT / "ingest").glob("_*.pyi")}


def package_of(module: str) -> str:
    path = sources().get(module)
    is_package = path is not None and path.name == "__init__.py"
    return module if is_package else module.rpartition(".")[0]


def imports(tree: ast.AST) -> Iterator[str]:
    known = sources().keys() | compiled()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                yield inner if inner in known else node.module


@cache
def edges() -> dict[str, set[str]]:
    """Of each module of ours the modules of ours that it imports."""
    return {
        name: {m for m in imports(ast.parse(path.read_text())) if m.split(".")[0] in TOP}
        for name, path in sources().items()
    }


def allowed() -> dict[str, set[str]]:
    """Of each package those that may import it, as the document says."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    return {
        dotted(place): {dotted(name) for name in re.findall(r"`([\w/*]+)`", users)}
        for place, users in ROW.findall(text)
    }


def dotted(place: str) -> str:
    return place.strip("/").replace("/", ".")


def may_import(user: str, package: str, rules: dict[str, set[str]]) -> bool:
    """`a/b/` allows the modules of that package alone, `a/*` those of `a` and all below it."""
    parts = user.split(".")
    below = {".".join([*parts[:n], "*"]) for n in range(1, len(parts) + 1)}
    return user == package or bool(({user} | below) & rules[package])


def test_every_package_is_in_the_document() -> None:
    packages = {package_of(name) for name in sources()}
    assert packages <= allowed().keys()


def test_a_package_is_imported_only_by_those_that_the_document_names() -> None:
    rules = allowed()
    wrong = [
        f"{name} imports {used}"
        for name, all_used in edges().items()
        for used in all_used
        if not may_import(package_of(name), package_of(used), rules)
    ]
    assert not wrong, "\n".join(sorted(wrong))


def test_there_are_no_import_cycles() -> None:
    try:
        TopologicalSorter(edges()).prepare()
    except CycleError as error:
        pytest.fail(" imports ".join(error.args[1]))


@pytest.mark.parametrize(
    ("user", "package"),
    [
        ("clickmill", "ingest"),
        ("clickmill.contract", "clickmill"),
        ("ingest.http", "aggregator.reading"),
        ("aggregator.writing", "ingest.durable"),
        ("ingest.durable", "ingest.shipping"),
        ("aggregator.writing", "aggregator.http"),
        ("aggregator.reading", "aggregator.writing"),
        ("ingest", "stack"),
    ],
)
def test_the_document_forbids_what_must_not_be(user: str, package: str) -> None:
    assert not may_import(user, package, allowed())


def test_no_module_and_no_function_is_too_long() -> None:
    """Outside the tests; a module is one noun, and a function fits in the head."""
    modules = [*sources().values(), *ROOT.glob("ingest/*.pyx")]
    lines = {path.relative_to(ROOT): path.read_text().count("\n") for path in modules}
    long = [f"{path}: {n} lines" for path, n in lines.items() if n > MAX_LINES]
    for name, path in sources().items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or 0) - node.lineno + 1
                if size > MAX_FUNCTION_LINES:
                    long.append(f"{name}.{node.name}: {size} lines")
    assert not long, "\n".join(long)
