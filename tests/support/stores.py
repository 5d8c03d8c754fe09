"""A store for a test: its loop, its end, and a way to it through a proxy."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from aggregator.writing.store import Store

T = TypeVar("T")


def with_store(
    dsn: str,
    test: Callable[[Store], Awaitable[T]],
    retention_days: int = 0,
    on_retry: Callable[[], None] = lambda: None,
    kind: type[Store] = Store,
) -> T:
    """Runs a test on a store, which makes the schema by itself."""

    async def run() -> T:
        store = kind(dsn, retention_days, on_retry)
        try:
            return await asyncio.wait_for(test(store), 60)
        finally:
            await store.close()

    return asyncio.run(run())


def through(dsn: str, port: int) -> str:
    """The same database, by way of another port."""
    head, _, tail = dsn.rpartition("@")
    return f"{head}@127.0.0.1:{port}/{tail.rpartition('/')[2]}"
