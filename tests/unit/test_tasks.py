"""Tasks end although one of them loses its first cancellation."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import pytest

from clickmill import tasks

AGAIN_S = 0.02
BOUND_S = 5.0


async def _forever() -> None:
    await asyncio.Event().wait()


async def _loses_one() -> None:
    with contextlib.suppress(asyncio.CancelledError):
        await _forever()
    await _forever()


async def _group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(_loses_one())
        await _forever()


async def _breaks() -> None:
    try:
        await _forever()
    finally:
        raise ValueError("broke while it ended")


async def _end(*coroutines: Coroutine[Any, Any, None]) -> list[asyncio.Task[None]]:
    started = [asyncio.create_task(c) for c in coroutines]
    await asyncio.sleep(0)
    async with asyncio.timeout(BOUND_S):
        await tasks.end(started, AGAIN_S)
    return started


def test_all_end(caplog: pytest.LogCaptureFixture) -> None:
    assert all(task.cancelled() for task in asyncio.run(_end(_forever(), _forever())))
    assert not caplog.text


def test_a_lost_cancellation_is_repeated(caplog: pytest.LogCaptureFixture) -> None:
    assert all(task.cancelled() for task in asyncio.run(_end(_loses_one(), _forever())))
    assert "_loses_one" in caplog.text
    assert "_forever" not in caplog.text


def test_it_is_repeated_inside_a_task_group() -> None:
    assert all(task.cancelled() for task in asyncio.run(_end(_group(), _forever())))


def test_an_error_stays_in_its_task() -> None:
    (task,) = asyncio.run(_end(_breaks()))
    assert isinstance(task.exception(), ValueError)


def test_no_task_is_no_wait() -> None:
    asyncio.run(_end())
