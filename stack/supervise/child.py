"""One life of one child process: started, ready, watched, ended.

Workers, the aggregator and the embedded servers are all handled here. Workers and the aggregator
send a ready message and then heartbeats (stack/supervise/heartbeats.py); embedded servers
are probed (stack/supervise/probing.py). A child that hangs is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from stack.supervise import probing
from stack.supervise.heartbeats import Heartbeats
from stack.supervise.logs import ChildLog, Log, Output
from stack.supervise.probing import Probe
from stack.supervise.process import Process

READY_SECONDS: Final = 15.0
KILL_SECONDS: Final = 5.0


@dataclass(frozen=True)
class Probes:
    """How to ask a program without heartbeats whether it is ready, and later whether it hangs."""

    ready: Probe
    alive: Probe


@dataclass(frozen=True)
class Spec:
    """What to start. `options` are passed to `subprocess.Popen`.

    A child without `probes` sends heartbeats. `before_start` runs before each start. `ready_within`
    limits the seconds until it is ready. `tries` limits the starts of a child that was never ready;
    None means no limit.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stop_seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    probes: Probes | None = None
    before_start: Callable[[], Awaitable[None]] | None = None
    ready_within: float = READY_SECONDS
    tries: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    hurry_signal: signal.Signals = signal.SIGKILL
    output: Output | None = None


class Child:
    """A running child."""

    def __init__(self, spec: Spec, log: Log) -> None:
        """Starts it; raises OSError or SubprocessError if that is impossible."""
        self.spec = spec
        self.hung = ""  # why it was killed, if it was
        self.log = ChildLog(log, spec.name, spec.output)
        self.ready = asyncio.Event()
        self._heartbeats = Heartbeats() if spec.probes is None else None
        self._process = self._start()
        self._started = time.monotonic()
        self._watching = asyncio.create_task(self._watch())

    @property
    def pid(self) -> int:
        """Its PID."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    @property
    def has_ended(self) -> bool:
        """Whether it has ended."""
        return self._process.ended.done()

    @property
    def exit_code(self) -> int:
        """Its exit code, negative for a signal; that of SIGKILL while it can't be ended."""
        return self._process.ended.result() if self.has_ended else -signal.SIGKILL

    async def wait(self) -> int:
        """Waits for its end and its last output; the exit code, negative for a signal."""
        code = await self._process.wait()
        self._watching.cancel()
        if self._heartbeats is not None:
            self._heartbeats.close()
        return code

    async def wait_ready(self) -> bool:
        """True once it is ready; False if it ended before."""
        await self.wait_ended_or(self.ready)
        return self.ready.is_set()

    async def wait_ended_or(self, event: asyncio.Event) -> None:
        """Waits for its end, or for the event."""
        happened = asyncio.create_task(event.wait())
        both: set[asyncio.Future[Any]] = {happened, self._process.ended}
        try:
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        finally:
            happened.cancel()

    async def stop(self, seconds: float) -> bool:
        """Asks it to stop, and kills it after the time-out. True if it stopped by itself."""
        if self.spec.probes is not None:
            self._watching.cancel()  # a server that shuts down does not answer
        self._process.signal(self.spec.stop_signal)
        self._process.signal(signal.SIGCONT)
        if await self._process.wait_ended(seconds):
            return True
        await self.kill()
        return False

    def end_now(self) -> None:
        """Ends it without waiting, for a second stop signal."""
        self._process.signal(self.spec.hurry_signal)
        self._process.signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Kills it. A process that is blocked on a dead disk is left behind after a time-out."""
        self._process.kill()
        await self._process.wait_ended(KILL_SECONDS)

    def _start(self) -> Process:
        options: dict[str, Any] = {
            "start_new_session": True,
            "env": dict(self.spec.env),
            **self.spec.options,
        }
        if self._heartbeats is None:
            return Process(self.spec.argv, options, self.log.feed)
        options["env"] |= self._heartbeats.env()
        options["pass_fds"] = (self._heartbeats.child_end,)
        try:
            return Process(self.spec.argv, options, self.log.feed)
        except BaseException:
            self._heartbeats.close()
            raise
        finally:
            self._heartbeats.close_child_end()

    async def _watch(self) -> None:
        """Kills the child when it is not ready in time, or hangs."""
        try:
            why = await (self._watch_server() if self.spec.probes else self._watch_heartbeats())
        except Exception as error:  # any error would leave the child unsupervised
            why = f"could not be watched ({error!r})"
        self.hung = why
        self._process.kill()

    async def _watch_heartbeats(self) -> str:
        assert self._heartbeats is not None
        if not await self._ready_in_time(self._heartbeats.ready.wait()):
            return self._not_ready
        return await self._heartbeats.wait_silent()

    async def _watch_server(self) -> str:
        """Waits for one of two signs that it hangs."""
        signs = [
            asyncio.create_task(probing.wait_stopped(self.pid)),
            asyncio.create_task(self._watch_answers()),
        ]
        try:
            done, _ = await asyncio.wait(signs, return_when=asyncio.FIRST_COMPLETED)
            return done.pop().result()
        finally:
            for sign in signs:
                sign.cancel()

    async def _watch_answers(self) -> str:
        assert self.spec.probes is not None
        if not await self._ready_in_time(probing.wait_ready(self.spec.probes.ready)):
            return self._not_ready
        return await probing.wait_unanswered(self.spec.probes.alive)

    async def _ready_in_time(self, ready: Coroutine[Any, Any, object]) -> bool:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(ready, self.spec.ready_within)
            self.ready.set()
        return self.ready.is_set()

    @property
    def _not_ready(self) -> str:
        return f"was not ready after {self.spec.ready_within:g} s"
