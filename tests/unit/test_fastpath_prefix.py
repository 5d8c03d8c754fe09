"""The compiled way answers under a prefix by itself: it hands nothing of it on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ingest._fastcount import Counters
from ingest._fastpath import Fastpath
from ingest.http.responses import fast_answers
from ingest.metrics import FastpathCells, Slot
from tests.fuzz.targets import Asked

REDIRECTS = {7: [("location", "https://example.org/")]}


@pytest.mark.parametrize(
    ("prefix", "path", "is_fast"),
    [
        ("", "/counter/7", True),
        ("", "/c/counter/7", False),
        ("/c", "/counter/7", True),
        ("/c", "/c/counter/7", True),
        ("/c", "/c/pixel/7.gif", True),
        ("/c", "/c/click/7", True),
        ("/c", "/c/c/counter/7", False),
        ("/c", "/c", False),
        ("/c", "/ccounter/7", False),
        ("/d/e", "/d/e/counter/7", True),
        ("/d/e", "/d/counter/7", False),
    ],
)
def test_what_is_answered(tmp_path: Path, prefix: str, path: str, is_fast: bool) -> None:
    counters = Counters.create(tmp_path / "counters", bytes(15) + b"\1", "0" * 36, 10)
    handed_on: list[Any] = []
    fast = Fastpath(
        counters, Slot(tmp_path / "meters").meters, handed_on.append, lambda *_: None,
        fast_answers("*"), REDIRECTS, FastpathCells(), 1000, prefix.encode(),
    )  # fmt: skip
    asked = Asked("GET", path, {})
    fast.schedule(asked)
    assert bool(asked.told) == is_fast
    assert handed_on == ([] if is_fast else [asked])
    assert counters.total == is_fast
