"""Redirect targets in a worker: only values that are valid in a Location header."""

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
def test_an_unsafe_target_is_ignored(tmp_path: Path, url: str, way: str) -> None:
    """From every source: rows of the register can be written without the aggregator."""
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


def test_an_unreadable_change_is_ignored(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "targets.json", [])
    targets.replace({7: GOOD})
    for data in (b"", b"{", b"[]", b'{"id": "x"}', b'{"target_url": "https://a"}', b"\xff"):
        targets.change(data)
    assert targets.redirects == {7: [("location", GOOD)]}


def test_targets_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "targets.json"

    def saved(targets: Targets) -> dict[int, str]:
        targets.save()
        return decode_targets(path.read_bytes())

    targets = Targets(path, [])
    targets.save()
    assert not path.exists(), "there is no target yet"
    targets.replace({7: GOOD})
    assert saved(targets) == {7: GOOD}
    targets.change(json.dumps({"id": 8, "target_url": GOOD}).encode())
    assert saved(targets) == {7: GOOD, 8: GOOD}
    targets.change(b'{"id": 7}')
    targets.change(b'{"id": 7}')
    assert saved(targets) == {8: GOOD}
    again = Targets(path, [])
    assert again.redirects == targets.redirects == {8: [("location", GOOD)]}
    path.unlink()
    for unchanged in (again, targets):
        unchanged.save()
    assert list(tmp_path.iterdir()) == [], "no target has changed"


def test_each_change_increases_the_number_of_changes(tmp_path: Path) -> None:
    targets = Targets(tmp_path / "targets.json", [])
    seen = [targets.changes]
    for _ in range(3):
        targets.change(b'{"id": 7}')
        seen.append(targets.changes)
    assert seen == [0, 1, 2, 3]
