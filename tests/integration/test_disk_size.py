"""The simulation of bytes on disk: what it multiplies out, and that it runs."""

from __future__ import annotations

import asyncio

import pytest

from aggregator.postgres.migrations import apply_schema
from bench.sections import disk_size
from tests.support.sql import query

ROW_BYTES = {
    "banner_minute": 100.0, "rollup_quarter": 50.0, "rollup_hour": 200.0, "rollup_day": 1_000.0,
}  # fmt: skip


def test_a_day_of_a_banner_is_all_its_rows() -> None:
    one = 1_440 * 100 + 96 * 50 + 24 * 200 + 1_000
    assert disk_size.after(1, 1, ROW_BYTES) == one
    assert disk_size.after(365, 10, ROW_BYTES) == 3_650 * one


def test_the_table_has_a_line_for_each_size() -> None:
    lines = disk_size.lines_of(ROW_BYTES, [1_000])
    assert "| `banner_minute` | 100 |" in lines
    assert lines[-1] == "| 1,000 | 0.15 GB | 4.64 GB | 56.43 GB |"


def test_a_written_day_is_whole(database: str) -> None:
    asyncio.run(apply_schema(database))
    found = asyncio.run(disk_size.measure(database, banners=2, days=1, commits=1))
    rows = query(database, "SELECT count(*), min(clicks), max(clicks) FROM banner_minute")
    assert rows == [(2 * 1_440, disk_size.CLICKS, disk_size.CLICKS)]
    assert query(database, "SELECT count(*) FROM rollup_quarter") == [(192,)]
    assert query(database, "SELECT count(*) FROM rollup_hour") == [(48,)]
    assert query(database, "SELECT sum(clicks) FROM rollup_day") == [
        (2 * 1_440 * disk_size.CLICKS,)
    ]
    (size,) = query(database, "SELECT pg_total_relation_size(inhrelid) FROM pg_inherits i "
                    "JOIN pg_class c ON c.oid = i.inhrelid WHERE c.relkind = 'r'")[0]  # fmt: skip
    assert found["banner_minute"] == pytest.approx(size / (2 * 1_440))
