"""Starts the groups of children in order, keeps them running, and stops them in reverse order.

Signals: TERM and INT stop everything, a second one immediately; HUP replaces the workers one by
one. If the supervisor is killed, all its children die with it.
"""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from stack.supervise.child import Spec
from stack.supervise.logs import Log
from stack.supervise.slot import ProcessSlot

STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
LEFTOVERS_SECONDS: Final = 1.0


@dataclass(frozen=True)
class Group:
    """Children that start together. `wait`: the next group starts only when these are ready.

    `reload`: a HUP replaces these one by one.
    """

    specs: tuple[Spec, ...]
    wait: bool = False
    reload: bool = False


class Supervisor:
    """Runs groups until a signal; `changed` gets the PIDs whenever they change."""

    def __init__(
        self,
        groups: Sequence[Group],
        log: Log,
        changed: Callable[[dict[str, int]], None],
        when_started: Callable[[], Awaitable[None]],
    ) -> None:
        self._log = log
        self._when_changed = changed
        self._when_started = when_started
        self._groups = [
            (group, [ProcessSlot(s, log, self._changed) for s in group.specs]) for group in groups
        ]
        self._tasks: set[asyncio.Task[Any]] = set()
        self._reload: asyncio.Task[None] | None = None
        self._end: asyncio.Future[None]
        self._terminal = next((fd for fd in (0, 1, 2) if _is_alive(fd)), None)

    async def run(self, stop_now: Callable[[], bool]) -> list[int]:
        """The children's exit codes, after a stop by signal.

        `stop_now` says whether a stop signal came before the handlers were set. Raises StackError
        if a child can't be started.
        """
        loop = asyncio.get_running_loop()
        self._end = loop.create_future()
        for number in STOP_SIGNALS:
            loop.add_signal_handler(number, self._on_stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._on_hup)
        if stop_now():
            return []
        up = self._spawn(self._bring_up())
        try:
            await self._end
        finally:
            up.cancel()
            codes = await self._take_down()
        return codes

    async def _bring_up(self) -> None:
        for group, slots in self._groups:
            for slot in slots:
                self._spawn(slot.run())
            if group.wait:
                await asyncio.gather(*(slot.first_ready.wait() for slot in slots))
        for _, slots in self._groups:
            await asyncio.gather(*(slot.first_ready.wait() for slot in slots))
        await self._when_started()

    async def _take_down(self) -> list[int]:
        codes: list[int] = []
        if self._reload is not None:
            self._reload.cancel()
            await asyncio.wait({self._reload})
        for _, slots in reversed(self._groups):
            codes += await asyncio.gather(*(slot.stop() for slot in slots))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=LEFTOVERS_SECONDS)
        return codes

    async def _reload_all(self) -> None:
        self._log.say("Reload: replacing the workers one by one.")
        done = [
            await slot.replace() for group, slots in self._groups if group.reload for slot in slots
        ]
        self._log.say(f"Reload: {sum(done)} of {len(done)} workers replaced.")

    def _spawn(self, work: Awaitable[None]) -> asyncio.Task[None]:
        task = asyncio.ensure_future(work)
        assert isinstance(task, asyncio.Task)
        self._tasks.add(task)
        task.add_done_callback(self._on_done)
        return task

    def _on_done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self._end.done():
            self._end.set_exception(error)

    def _on_stop(self, number: signal.Signals) -> None:
        if self._end.done():
            self._log.say(f"{number.name} again: stopping immediately.")
            for _, slots in self._groups:
                for slot in slots:
                    slot.end_now()
            return
        self._log.say(f"{number.name}: stopping.")
        self._end.set_result(None)

    def _on_hup(self) -> None:
        if self._terminal is not None and not _is_alive(self._terminal):
            self._on_stop(signal.SIGHUP)  # the terminal was closed; this is not a reload
        elif not self._end.done() and (self._reload is None or self._reload.done()):
            self._reload = self._spawn(self._reload_all())

    def _changed(self) -> None:
        current = [slot.current for _, slots in self._groups for slot in slots]
        self._when_changed({child.spec.name: child.pid for child in current if child is not None})


def _is_alive(fd: int) -> bool:
    """Whether it is an open terminal; False after the terminal was closed, and for a file."""
    try:
        os.tcgetpgrp(fd)
    except OSError:
        return False
    return True
