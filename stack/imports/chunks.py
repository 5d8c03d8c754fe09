"""Cuts a file's rows into batches, always at the same places, and gives each its key.

The key comes from the file's content and from the number of rows before the batch. So the same
file, imported again, has the same batches with the same keys, wherever the first import stopped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Any, Final, NamedTuple

from stack.imports.rows import MAX_COUNT, Row

MAX_ROWS: Final = 10_000
MAX_CLICKS: Final = MAX_COUNT
MAX_ITEM: Final = 1_000_000


class Chunk(NamedTuple):
    """A batch: its key, its items, and how many lines of the file and clicks it has."""

    key: str
    items: list[dict[str, Any]]
    lines: int
    clicks: int


def digest_of(path: Path) -> str:
    """The digest of a file's content. Raises OSError."""
    with path.open("rb") as file:
        return file_digest(file, lambda: blake2b(digest_size=32)).hexdigest()


def cut(rows: Iterable[Row | None], digest: str) -> Iterator[Chunk]:
    """The file's batches, of at most MAX_ROWS rows and MAX_CLICKS clicks each."""
    held: list[Row] = []
    lines = clicks = before = 0
    for row in rows:
        count = row.clicks if row is not None else 0
        if len(held) == MAX_ROWS or clicks + count > MAX_CLICKS:
            yield _chunk(held, lines, clicks, before, digest)
            before += len(held)
            held, lines, clicks = [], 0, 0
        lines, clicks = lines + 1, clicks + count
        if count and row is not None:
            held.append(row)
    yield _chunk(held, lines, clicks, before, digest)


def _chunk(rows: list[Row], lines: int, clicks: int, before: int, digest: str) -> Chunk:
    key = blake2b(f"{digest} {before}".encode(), digest_size=32).hexdigest()
    return Chunk(key, _items(rows), lines, clicks)


def _items(rows: list[Row]) -> list[dict[str, Any]]:
    """The sums by minute and banner, at the first time of each, in parts that an item may hold."""
    sums: dict[tuple[int, int], list[int]] = {}
    for _, banner, at, count in rows:
        found = sums.setdefault((at // 60, banner), [at, 0])
        found[1] += count
    return [
        {"bannerID": banner, "ts": at, "count": min(MAX_ITEM, count - done)}
        for (_, banner), (at, count) in sums.items()
        for done in range(0, count, MAX_ITEM)
    ]
