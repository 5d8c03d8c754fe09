"""Fixtures, one file for each concern: see tests/fix_*.py."""

from __future__ import annotations

pytest_plugins = [
    "tests.order",
    "tests.fix_nats",
    "tests.fix_postgres",
    "tests.fix_system",
    "tests.fix_api",
    "tests.fix_worker",
]
