"""A process slot, such as `ingest-1`: a child that dies is always restarted."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from collections.abc import Callable
from typing import Final

from stack.errors import StackError
from stack.supervise.backoff import Backoff
from stack.supervise.child import Child, Spec
from stack.supervise.logs import Log
from stack.supervise.process import signal_name

REFUSED_EXIT_CODE: Final = 2  # the child's settings are wrong, so a retry won't help
LOG_EVERY_SECONDS: Final = 30.0
END_SECONDS: Final = 3.0
START_ERRORS: Final = (OSError, subprocess.SubprocessError)


class ChildFailedError(StackError):
    """A child can't be started; its own output says why."""


class ProcessSlot:
    """One slot. `run` keeps a child in it until `stop`; `changed` is called when the child changes.

    There is no await between the check for an empty slot and the start of a child, so `run` and
    `replace` never both start one.
    """

    def __init__(self, spec: Spec, log: Log, changed: Callable[[], None]) -> None:
        self.spec = spec
        self.current: Child | None = None
        self.first_ready = asyncio.Event()
        self._changed = changed
        self._log = log
        self._backoff = Backoff()
        self._tries = 0
        self._log_due = 0.0
        self._children: list[Child] = []  # all that may still be running
        self._retiring: set[asyncio.Task[None]] = set()
        self._replaced = asyncio.Event()
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._ended.set()

    async def run(self) -> None:
        """Keeps restarting the child. Raises ChildFailedError if it can never start."""
        self._ended.clear()
        try:
            while not self._stopping.is_set():
                if self.current is None:
                    await self._fill()
                else:
                    await self._supervise(self.current)
        finally:
            self._ended.set()

    async def replace(self) -> bool:
        """Starts a new child, and stops the old one when the new one is ready."""
        new = await self._start_replacement()
        if new is None:
            return False
        try:
            if not await new.wait_ready():
                await new.wait()
                self._log.warn(
                    f"{self.spec.name}: its replacement failed; the old process continues."
                )
                return False
        except asyncio.CancelledError:
            await new.kill()
            await new.wait()
            raise
        old = self.current
        self._set(new)
        self._replaced.set()
        if old is not None:
            await self._retire(old)
        return True

    async def stop(self) -> int:
        """Stops the child within its time-out and leaves the slot empty; the child's exit code."""
        self._stopping.set()
        last = self.current
        if last is not None:
            await self._stop(last)
        if self._retiring:
            await asyncio.wait(self._retiring)
        with contextlib.suppress(TimeoutError):  # a child blocked on a dead disk is left behind
            await asyncio.wait_for(self._ended.wait(), END_SECONDS)
        return last.exit_code if last is not None else 0

    def end_now(self) -> None:
        """Ends every child without waiting and leaves the slot empty."""
        self._stopping.set()
        for child in self._children:
            child.end_now()

    # --- one life -------------------------------------------------------------------------------

    async def _fill(self) -> None:
        """Tries once to start a child; waits if that fails."""
        try:
            if self.spec.before_start is not None:
                await self.spec.before_start()
            if self.current is None and not self._stopping.is_set():
                self._tries += 1
                self._set(self._start())
        except START_ERRORS as error:
            if not self.first_ready.is_set():
                raise ChildFailedError(f"{self.spec.name} can't be started: {error}.") from error
            await self._wait_to_retry(error)

    async def _supervise(self, child: Child) -> None:
        """Returns when the child has ended or was replaced."""
        if await child.wait_ready():
            self._tries = 0
            self.first_ready.set()
        self._replaced.clear()
        if child is self.current:
            await child.wait_ended_or(self._replaced)
        if child is not self.current:
            return
        code = await child.wait()
        if self._stopping.is_set() or child is not self.current:
            return
        self._set(None)
        self._check_startable(child, code)
        await self._pause(child, code)

    def _set(self, child: Child | None) -> None:
        self.current = child
        self._changed()

    def _check_startable(self, child: Child, code: int) -> None:
        if self.first_ready.is_set():
            return
        spent = self.spec.tries is not None and self._tries >= self.spec.tries
        if code == REFUSED_EXIT_CODE or spent:
            child.log.show_kept()
            raise ChildFailedError(f"{self.spec.name} does not start: its output above says why.")

    async def _pause(self, child: Child, code: int) -> None:
        wait = self._backoff.after(child.age)
        again = f"restarting in {wait:.1f} s" if wait else "restarting"
        child.log.show_kept()
        self._log.warn(f"{self.spec.name} (PID {child.pid}) {_why(child, code)}: {again}.")
        await self._sleep(wait)

    # --- starting and ending --------------------------------------------------------------------

    def _start(self) -> Child:
        child = Child(self.spec, self._log)
        self._log_due = 0.0
        self._children = [one for one in self._children if not one.has_ended] + [child]
        return child

    async def _start_replacement(self) -> Child | None:
        """Starts one as soon as the system can; the old child continues meanwhile."""
        while not self._stopping.is_set():
            try:
                return self._start()
            except START_ERRORS as error:
                await self._wait_to_retry(error)
        return None

    async def _wait_to_retry(self, error: Exception) -> None:
        """Waits after a start that failed for lack of processes, memory or descriptors."""
        if time.monotonic() >= self._log_due:
            self._log_due = time.monotonic() + LOG_EVERY_SECONDS
            self._log.warn(f"{self.spec.name} can't be started ({error}): retrying.")
        await self._sleep(self._backoff.after(0))

    async def _sleep(self, seconds: float) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), seconds)

    async def _stop(self, child: Child) -> None:
        seconds = self.spec.stop_seconds
        if not await child.stop(seconds):
            self._log.warn(f"{self.spec.name} did not stop within {seconds:g} s: killed.")

    async def _retire(self, child: Child) -> None:
        """Stops a child that was replaced. `stop` waits for it too."""
        task = asyncio.create_task(self._end(child))
        self._retiring.add(task)
        task.add_done_callback(self._retiring.discard)
        await asyncio.wait({task})

    async def _end(self, child: Child) -> None:
        await self._stop(child)
        await child.wait()


def _why(child: Child, code: int) -> str:
    if child.hung:
        return child.hung
    if code < 0:
        return f"was killed by {signal_name(-code)}"
    return f"exited with code {code}"
