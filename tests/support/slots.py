"""A process slot at work, with a small real program in it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import sys
from collections.abc import AsyncIterator
from typing import Any

from stack.supervise.child import Spec
from stack.supervise.logs import Log
from stack.supervise.slot import ProcessSlot
from tests.support.wait import aeventually

LIVES = """
import asyncio, signal
from clickmill import heartbeat
heartbeat.attach()
print("up", flush=True)
heartbeat.ready()
asyncio.run(heartbeat.send_forever())
"""


class Running:
    """A slot at work, and all that it said."""

    def __init__(self, code: str, **options: object) -> None:
        self.out = io.StringIO()
        self.log = Log(self.out)
        self.changes = 0
        usual: dict[str, Any] = {
            "name": "child",
            "argv": (sys.executable, "-c", code),
            "env": dict(os.environ),
            "stop_seconds": 0.5,
        }
        self.slot = ProcessSlot(Spec(**(usual | options)), self.log, self._changed)
        self.task: asyncio.Task[None]

    def _changed(self) -> None:
        self.changes += 1

    @property
    def pid(self) -> int:
        return self.slot.current.pid if self.slot.current else 0

    async def says(self, text: str) -> None:
        """Waits until it has said this."""

        async def said() -> bool:
            return text in self.out.getvalue()

        await aeventually(said, 10, f"it says {text!r}")

    async def another(self, than: int, timeout: float = 10) -> int:
        """Waits for another child than this one, ready."""

        async def is_there() -> bool:
            current = self.slot.current
            return current is not None and current.pid != than and current.ready.is_set()

        await aeventually(is_there, timeout, "another child is ready")
        return self.pid


@contextlib.asynccontextmanager
async def running(code: str, **options: object) -> AsyncIterator[Running]:
    one = Running(code, **options)
    one.task = asyncio.create_task(one.slot.run())
    try:
        yield one
    finally:
        await one.slot.stop()
        await asyncio.wait({one.task}, timeout=10)
        one.log.close()


class Gate:
    """A `before_start` that counts, and that can be closed."""

    def __init__(self) -> None:
        self.came = 0
        self.opened = asyncio.Event()
        self.opened.set()

    async def __call__(self) -> None:
        self.came += 1
        await self.opened.wait()

    async def sees(self, times: int) -> None:
        """Waits for so many starts in all."""

        async def seen() -> bool:
            return self.came >= times

        await aeventually(seen, 10, f"{times} starts")
