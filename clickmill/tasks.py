"""Ending tasks: cancel them, and wait until they have ended.

Why not one `cancel()`: on Python 3.11 `asyncio.wait_for` loses a cancellation that arrives together
with the result it waits for (https://github.com/python/cpython/issues/86296), and nats-py waits
with it everywhere. The task then goes on as if nothing had happened, and its end never comes.
A task group passes on the first cancellation alone, so its tasks are cancelled again here too.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection
from typing import Any, Final

AGAIN_S: Final = 1.5
"""Seconds that a cancelled task has to end before it is cancelled once more; `bus.close` takes one
where the server is silent."""

log = logging.getLogger("clickmill.tasks")


async def end(tasks: Collection[asyncio.Task[Any]], again_s: float = AGAIN_S) -> None:
    """Cancel `tasks` until all of them have ended. What they raised stays in them."""
    running = set(tasks)
    for task in running:
        task.cancel()
    while running:
        _, running = await asyncio.wait(running, timeout=again_s)
        if running:
            _cancel_again()


def _cancel_again() -> None:
    """All that were cancelled and still run, in whichever task group."""
    for task in asyncio.all_tasks():
        if task.cancelling() and task is not asyncio.current_task():
            log.warning("%s lost its cancellation: cancelling it again", task.get_coro())
            task.cancel()
