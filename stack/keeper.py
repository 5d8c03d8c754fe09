"""Keeps one place filled: a child that dies there is followed by another, for ever."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Callable

from stack.backoff import Backoff
from stack.child import Child, Spec
from stack.errors import StackError
from stack.logs import Log

REFUSED_EXIT_CODE = 2  # a child that says: my settings are wrong, trying again won't help


class ChildFailedError(StackError):
    """A child that can't be started; its own lines above say why."""


class Keeper:
    """One place, such as `ingest-1`. `run` fills it until `stop`."""

    def __init__(self, spec: Spec, log: Log, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.current: Child | None = None
        self._changed = changed
        self.first_ready = asyncio.Event()
        self._log = log
        self._backoff = Backoff()
        self._tries = 0
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    async def run(self) -> None:
        """Starts the child again and again. Raises ChildFailedError if that is hopeless."""
        self._ended.clear()
        try:
            while not self._stopping.is_set():
                await self._one_life()
        finally:
            self._ended.set()

    async def _one_life(self) -> None:
        child = self.current or await self._start()
        self._set(child)
        if self._stopping.is_set():  # while it was being started
            await child.stop(self.spec.stop_seconds)
        ready = asyncio.create_task(self._note_ready(child))
        code = await child.wait()
        ready.cancel()
        if self._stopping.is_set() or child is not self.current:
            return
        self._set(None)
        self._check_hope(child, code)
        await self._pause(child, code)

    async def replace(self) -> bool:
        """Puts a new child beside the old one, and ends the old one when the new one is ready."""
        new = await self._start()
        try:
            if not await new.wait_ready():
                await new.wait()
                self._log.say(f"{self.spec.name}: its replacement failed; the old one goes on.")
                return False
        except asyncio.CancelledError:
            await new.kill()
            await new.wait()
            raise
        old = self.current
        self._set(new)
        if old is not None:
            await old.stop(self.spec.stop_seconds)
        return True

    async def stop(self) -> None:
        """Ends the child within its time, and fills the place no more."""
        self._stopping.set()
        seconds = self.spec.stop_seconds
        if self.current is not None and not await self.current.stop(seconds):
            self._log.say(f"{self.spec.name} did not stop within {seconds:g} s: killed.")
        await self._ended.wait()

    def end_now(self) -> None:
        """Ends the child without waiting for anything, and fills the place no more."""
        self._stopping.set()
        if self.current is not None:
            self.current.end_now()

    def _set(self, child: Child | None) -> None:
        self.current = child
        self._changed()

    async def _start(self) -> Child:
        self._tries += 1
        try:
            return await Child.start(self.spec, self._log)
        except OSError as error:
            raise ChildFailedError(f"{self.spec.name} can't be started: {error}.") from error

    async def _note_ready(self, child: Child) -> None:
        if await child.wait_ready():
            self._tries = 0
            self.first_ready.set()

    def _check_hope(self, child: Child, code: int) -> None:
        if self.first_ready.is_set():
            return
        spent = self.spec.tries is not None and self._tries >= self.spec.tries
        if code == REFUSED_EXIT_CODE or spent:
            child.log.tell_kept()
            raise ChildFailedError(f"{self.spec.name} does not start: its lines above say why.")

    async def _pause(self, child: Child, code: int) -> None:
        wait = self._backoff.after(child.age)
        again = f"again in {wait:.1f} s" if wait else "starting another"
        child.log.tell_kept()
        self._log.say(f"{self.spec.name} (process {child.pid}) {_why(child, code)}: {again}.")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait)


def _why(child: Child, code: int) -> str:
    if child.hung:
        return child.hung
    if code < 0:
        return f"was ended by {signal.Signals(-code).name}"
    return f"ended with exit code {code}"
