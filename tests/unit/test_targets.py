"""Redirect targets as a worker keeps them: only what may stand in a Location header."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ingest.lookup.redirects import Targets, decode_targets

GOOD = "https://example.org/a?b=c#d"
UNSAFE = [
    "https://a.example/\r\nSet-Cookie: a=b", "https://a.example/\n", "https://a.example/\0",
    "https://a b.example/", "javascript:alert(1)", "data:text/html,x", "//a.example", "/a", "",
    "https://", "https://ä.example/", "https://a.example/" + "a" * 5000, " https://a.example/",
]  # fmt: skip


@pytest.mark.parametrize("url", UNSAFE)
@pytest.mark.parametrize("way", ["file", "whole register", "change"])
def test_an_unsafe_target_is_no_target(tmp_path: Path, url: str, way: str) -> None:
    """However it comes: rows of the register can be written past the aggregator."""
    path = tmp_path / "targets.json"
    both = json.dumps({"7": url, "8": GOOD}).encode()
    if way == "file":
        path.write_bytes(both)
    targets = Targets(path, [("cache-control", "no-store")])
    targets.replace(
        decode_targets(b'{"7": "https://before.example/"}' if way == "change" else both)
    )
    if way == "change":
        targets.change(json.dumps({"id": 7, "target_url": url}).encode())
        targets.change(json.dumps({"id": 8, "target_url": GOOD}).encode())
    assert targets.redirects == {8: [("location", GOOD), ("cache-control", "no-store")]}


def test_a_change_that_cannot_be_read_changes_nothing(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "targets.json", [])
    targets.replace({7: GOOD})
    for data in (b"", b"{", b"[]", b'{"id": "x"}', b'{"target_url": "https://a"}', b"\xff"):
        targets.change(data)
    assert targets.redirects == {7: [("location", GOOD)]}
