"""One life of one child process: started, ready, beating, ended.

The same for a worker, the aggregator and the embedded servers. A child of ours says that it is
ready and then beats (clickmill/lifeline.py); an embedded server is asked by a probe.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from clickmill import lifeline
from stack.logs import ChildLog, Log

READY_SECONDS: Final = 15.0
SILENCE_SECONDS: Final = 5.0
WATCH_SECONDS: Final = 0.25
PROBE_SECONDS: Final = 0.02
KILL_SECONDS: Final = 5.0
READ_BYTES: Final = 64 << 10
BEAT_BYTES: Final = 4096

# A stopped beat is seen after this long at most; the replacement then has the rest of 10 s.
assert SILENCE_SECONDS + WATCH_SECONDS < 8


@dataclass(frozen=True)
class Spec:
    """What to start. `options` go to `subprocess.Popen` as they are.

    Without `probe` the child has a heartbeat. `ready_within` bounds the time until it is ready,
    in seconds. `tries` bounds the starts of a child that was never ready; None is for ever.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str]
    stop_seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    probe: Callable[[], Awaitable[bool]] | None = None
    ready_within: float = READY_SECONDS
    tries: int | None = None
    stop_signal: signal.Signals = signal.SIGTERM
    hurry_signal: signal.Signals = signal.SIGKILL
    is_dull: Callable[[str], bool] | None = None


class Child:
    """A running process. Make one with `await Child.start(spec, log)`."""

    def __init__(self, spec: Spec, log: Log, process: asyncio.subprocess.Process) -> None:
        self.spec = spec
        self.ready = asyncio.Event()
        self.hung = ""  # why it was killed, if it was
        self.log = ChildLog(log, spec.name, spec.is_dull)
        self._process = process
        self._started = self._heard = time.monotonic()
        self._beats: int | None = None
        self._tasks = [asyncio.create_task(self._pump()), asyncio.create_task(self._watch())]

    @classmethod
    async def start(cls, spec: Spec, log: Log) -> Child:
        """Starts the process. OSError if that is impossible."""
        options: dict[str, Any] = {"start_new_session": True, **spec.options}
        env = dict(spec.env)
        beats = None
        if spec.probe is None:
            beats, write_end = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            env |= {
                lifeline.PARENT_PID: str(os.getpid()),
                lifeline.HEARTBEAT_FD: str(write_end),
            }
            options["pass_fds"] = (write_end,)
        try:
            process = await asyncio.create_subprocess_exec(
                *spec.argv,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                **{**options, "env": env},
            )
        finally:
            if beats is not None:
                os.close(write_end)
        child = cls(spec, log, process)
        if beats is not None:
            child._listen(beats)
        return child

    @property
    def pid(self) -> int:
        """Its process number."""
        return self._process.pid

    @property
    def age(self) -> float:
        """Seconds since it was started."""
        return time.monotonic() - self._started

    async def wait(self) -> int:
        """Waits for its end; the exit code, negative for a signal."""
        code = await self._process.wait()
        await self._let_go()
        return code

    async def wait_ready(self) -> bool:
        """True once it is ready; False if it ended before."""
        ready = asyncio.create_task(self.ready.wait())
        ended = asyncio.create_task(self._process.wait())
        try:
            await asyncio.wait({ready, ended}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (ready, ended):
                task.cancel()
        return self.ready.is_set()

    async def stop(self, seconds: float) -> bool:
        """Asks it to end, and kills it when its time is over. True if it went by itself."""
        self._signal(self.spec.stop_signal)
        self._signal(signal.SIGCONT)
        try:
            await asyncio.wait_for(self._process.wait(), seconds)
        except TimeoutError:
            await self.kill()
            return False
        return True

    def end_now(self) -> None:
        """Ends it without waiting: the work of a stop that nobody has the patience for."""
        self._signal(self.spec.hurry_signal)
        self._signal(signal.SIGCONT)

    async def kill(self) -> None:
        """Ends it at once. A process in the grip of a dead disk is left behind, after a while."""
        self._signal(signal.SIGKILL)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), KILL_SECONDS)

    def _signal(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def _listen(self, beats: int) -> None:
        self._beats = beats
        asyncio.get_running_loop().add_reader(beats, self._hear)

    def _hear(self) -> None:
        """Reads what has come up the lifeline."""
        if self._beats is None:
            return
        try:
            data = os.read(self._beats, BEAT_BYTES)
        except BlockingIOError:
            return
        if not data:
            self._stop_listening()
            return
        self._heard = time.monotonic()
        if lifeline.READY in data:
            self.ready.set()

    def _stop_listening(self) -> None:
        if self._beats is not None:
            asyncio.get_running_loop().remove_reader(self._beats)
            os.close(self._beats)
            self._beats = None

    async def _pump(self) -> None:
        assert self._process.stdout is not None
        while data := await self._process.stdout.read(READ_BYTES):
            self.log.feed(data)
        self.log.feed(b"")

    async def _watch(self) -> None:
        """Kills the child when it is not ready in time, or falls silent."""
        while not self.ready.is_set():
            if self.spec.probe is not None and await self.spec.probe():
                self.ready.set()
            elif self.age > self.spec.ready_within:
                return await self._give_up(f"was not ready after {self.spec.ready_within:g} s")
            await asyncio.sleep(PROBE_SECONDS)
        while self.spec.probe is None:
            await asyncio.sleep(WATCH_SECONDS)
            # Listen once more before judging: it may be we who were asleep.
            self._hear()
            if time.monotonic() - self._heard > SILENCE_SECONDS:
                return await self._give_up(f"gave no sign of life for {SILENCE_SECONDS:g} s")
        return None

    async def _give_up(self, why: str) -> None:
        self.hung = why
        self._signal(signal.SIGKILL)

    async def _let_go(self) -> None:
        """After its end: the last lines, then the pipes."""
        pump, watch = self._tasks
        watch.cancel()
        # Grandchildren may hold the pipe open: they get a moment, no more.
        await asyncio.wait({pump}, timeout=1)
        pump.cancel()
        self._stop_listening()
