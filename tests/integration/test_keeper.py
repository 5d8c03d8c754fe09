"""Keeping a place filled, with small real programs in it."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from stack.child import SILENCE_SECONDS, Spec
from stack.keeper import ChildFailedError, Keeper
from stack.logs import Log
from tests.wait import aeventually

BEATS = """
import asyncio, signal
from clickmill import lifeline
lifeline.attach()
print("up", flush=True)
lifeline.ready()
asyncio.run(lifeline.beat_forever())
"""
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + BEATS
REFUSES = "import sys; sys.exit(2)"
DIES = "import sys; print('no'); sys.exit(1)"
NEVER_READY = "import time; time.sleep(60)"


class Place:
    """A keeper at work, and all that it said."""

    def __init__(self, code: str, **options: object) -> None:
        self.out = io.StringIO()
        self.log = Log(self.out)
        self.changes = 0
        spec = Spec(
            name="child",
            argv=(sys.executable, "-c", code),
            env=dict(os.environ),
            stop_seconds=0.5,
            **options,  # type: ignore[arg-type]
        )
        self.keeper = Keeper(spec, self.log, self._changed)
        self.task: asyncio.Task[None]

    def _changed(self) -> None:
        self.changes += 1

    @property
    def pid(self) -> int:
        return self.keeper.current.pid if self.keeper.current else 0

    async def another(self, than: int, timeout: float = 10) -> int:
        """Waits for another child than this one, ready."""

        async def is_there() -> bool:
            current = self.keeper.current
            return current is not None and current.pid != than and current.ready.is_set()

        await aeventually(is_there, timeout, "another child is ready")
        return self.pid


@contextlib.asynccontextmanager
async def place(code: str, **options: object) -> AsyncIterator[Place]:
    one = Place(code, **options)
    one.task = asyncio.create_task(one.keeper.run())
    try:
        yield one
    finally:
        await one.keeper.stop()
        await asyncio.wait({one.task}, timeout=10)
        one.log.close()


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists()


def test_a_dead_child_is_followed_by_another() -> None:
    async def story() -> None:
        async with place(BEATS) as here:
            first = await here.another(0)
            os.kill(first, signal.SIGKILL)
            second = await here.another(first)
            assert gone(first)
            os.kill(second, signal.SIGKILL)
            third = await here.another(second, timeout=5)
        assert gone(third)
        assert "was ended by SIGKILL: starting another" in here.out.getvalue()
        assert "child      | up" in here.out.getvalue()

    asyncio.run(story())


def test_a_child_that_stands_still_is_replaced() -> None:
    async def story() -> None:
        async with place(BEATS) as here:
            first = await here.another(0)
            begun = time.monotonic()
            os.kill(first, signal.SIGSTOP)
            await here.another(first)
            assert SILENCE_SECONDS - 1 < time.monotonic() - begun < 10
        assert "no sign of life" in here.out.getvalue()

    asyncio.run(story())


def test_a_supervisor_that_was_asleep_itself_kills_nobody() -> None:
    async def story() -> None:
        async with place(BEATS) as here:
            first = await here.another(0)
            time.sleep(SILENCE_SECONDS + 1)  # noqa: ASYNC251  # the loop stands still: that is it
            await asyncio.sleep(1)
            assert here.pid == first

    asyncio.run(story())


def test_a_child_that_is_never_ready_is_killed() -> None:
    async def story() -> None:
        async with place(NEVER_READY, ready_within=0.3) as here:
            first = await _pid(here)

            async def replaced() -> bool:
                return here.pid not in (0, first)

            await aeventually(replaced, 5)
        assert "was not ready after 0.3 s" in here.out.getvalue()

    asyncio.run(story())


async def _pid(here: Place) -> int:
    async def pid() -> int:
        return here.pid

    return await aeventually(pid, 5)


@pytest.mark.parametrize(("code", "tries"), [(REFUSES, None), (DIES, 2)])
def test_hopeless_children(code: str, tries: int | None) -> None:
    async def story() -> None:
        async with place(code, tries=tries) as here:
            with pytest.raises(ChildFailedError, match="child does not start"):
                await asyncio.wait_for(here.task, 10)

    asyncio.run(story())


def test_a_program_that_is_not_there() -> None:
    async def story() -> None:
        spec = Spec(name="child", argv=("/nonexistent",), env={}, stop_seconds=1)
        log = Log(io.StringIO())
        with pytest.raises(ChildFailedError, match="can't be started"):
            await Keeper(spec, log, lambda: None).run()
        log.close()

    asyncio.run(story())


def test_replace_starts_the_new_before_it_ends_the_old() -> None:
    async def story() -> None:
        async with place(BEATS) as here:
            first = await here.another(0)
            assert await here.keeper.replace()
            second = here.pid
            assert second != first
            assert gone(first)
            os.kill(second, signal.SIGKILL)
            await here.another(second)
        assert "exit code" not in here.out.getvalue()

    asyncio.run(story())


def test_a_replacement_that_fails_leaves_the_old_one(tmp_path: Path) -> None:
    flag = tmp_path / "broken"
    code = f"import os, sys; os.path.exists({str(flag)!r}) and sys.exit(3)\n" + BEATS

    async def story() -> None:
        async with place(code) as here:
            first = await here.another(0)
            flag.touch()
            assert not await here.keeper.replace()
            assert here.pid == first
            assert not gone(first)

    asyncio.run(story())


def test_a_child_that_does_not_stop_is_killed_in_time() -> None:
    async def story() -> None:
        async with place(STUBBORN) as here:
            first = await here.another(0)
            begun = time.monotonic()
            await here.keeper.stop()
            assert time.monotonic() - begun < 3
            await here.task
        assert gone(first)
        assert "did not stop within 0.5 s: killed" in here.out.getvalue()

    asyncio.run(story())
