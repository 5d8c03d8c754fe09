"""The one place that knows Granian's internals: serving in this process, and the fast path.

Why: Granian's own process manager ends the whole server when a worker dies twice in a row, and
its ordinary scheduler takes a coroutine and two thread switches for each request. So a worker of
ours makes its own listener (SO_REUSEPORT) and Granian's RSGI worker, and hands it a scheduler
whose entry is compiled. The version is pinned; when the internals are not as expected, the
ordinary way serves all the same, and says so.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio.tasks import _enter_task, _leave_task
from collections.abc import Callable
from functools import partial
from typing import Any, Final, NamedTuple, Protocol

import granian
from granian import _futures, _granian
from granian.http import HTTP1Settings

from clickmill.contract.params import HEADERS_BUFFER_BYTES
from ingest._fastpath import SWEEPS_PER_TIMEOUT

TESTED_VERSION: Final = "2.8.7"
BLOCKING_THREADS: Final = 1
BLOCKING_IDLE_S: Final = 30
RUNTIME_THREADS: Final = 1
RUNTIME_BLOCKING_THREADS: Final = 16
BACKLOG: Final = 4096

# Granian's stubs describe its public side; what is used here is typed by its own tests alone.
_futures_untyped: Any = _futures
_granian_untyped: Any = _granian

log = logging.getLogger("clickmill.ingest")

Schedule = Callable[[Any], None]


class Fast(Protocol):
    """What answers plain clicks: `_fastpath.Fastpath`."""

    def schedule(self, watcher: Any) -> None:
        """Granian's scheduler entry: once for each request."""

    def sweep(self) -> None:
        """Refuse the clicks whose body is late."""


class Listener(NamedTuple):
    """Where and how to listen. Seconds; connections at a time."""

    host: str
    port: int
    header_timeout: float
    body_timeout: float
    max_connections: int


class Server:
    """Granian in this process, on this event loop."""

    def __init__(
        self,
        app: Callable[..., Any],
        listener: Listener,
        fast: Callable[[Schedule], Fast] | None,
    ) -> None:
        """`fast` makes the compiled entry from the one that hands over to the event loop; None
        serves the ordinary way."""
        self._loop = asyncio.get_running_loop()
        self._signal = _granian_untyped.WorkerSignal()
        self._stopped = asyncio.Event()
        self._signal.add_cb(lambda: self._loop.call_soon_threadsafe(self._stopped.set))
        watched = _futures_untyped._future_watcher_wrapper(app)
        self._sweep_interval = listener.body_timeout / SWEEPS_PER_TIMEOUT
        scheduler = self._fast(watched, fast) if fast else None
        self.is_fast = scheduler is not None
        if scheduler is None:
            scheduler = _futures_untyped._new_cbscheduler(self._loop, watched, impl_asyncio=True)
        self._worker = _worker(listener)
        self._worker.serve_mtr(scheduler, self._loop, self._signal)

    def _fast(self, watched: Any, make: Callable[[Schedule], Fast]) -> Any:
        """A scheduler with the compiled entry; None, and a loud line, where it can't be."""
        if granian.__version__ != TESTED_VERSION:
            log.error(
                "Granian is %s and the fast path is made for %s: serving the ordinary, slower way; "
                "install the pinned version", granian.__version__, TESTED_VERSION,
            )  # fmt: skip
            return None
        try:
            fast = make(self._hand_over(watched))
            scheduler = _FastScheduler(self._loop, fast.schedule)
        except (AttributeError, TypeError) as error:
            log.error("Granian is not as expected (%s): serving the ordinary, slower way", error)
            return None
        self._sweep(fast)
        return scheduler

    def _sweep(self, fast: Fast) -> None:
        """Again and again, give up the bodies that are late: one timer for all of them."""
        self._loop.call_later(self._sweep_interval, self._sweep, fast)
        fast.sweep()

    def _hand_over(self, watched: Any) -> Schedule:
        """To the event loop, as Granian's own asyncio scheduler does."""
        loop = self._loop

        def run(watcher: Any) -> None:
            watcher.taskref(loop.create_task(watched(watcher)))

        wake: Any = loop.call_soon_threadsafe
        return partial(wake, run)

    async def stop(self, timeout: float) -> None:
        """Accept no more, answer what is open, for at most `timeout` seconds."""
        self._signal.set()
        try:
            async with asyncio.timeout(timeout):
                await self._stopped.wait()
        except TimeoutError:
            log.warning("connections were still open after %g s and are cut", timeout)


class _FastScheduler(_granian_untyped.CallbackScheduler):  # type: ignore[misc]
    """Granian's scheduler with our entry; the arguments of `__new__` are Granian's own."""

    __slots__ = ()

    def __new__(cls, loop: Any, schedule: Schedule) -> _FastScheduler:
        return super().__new__(  # type: ignore[no-any-return]
            cls, loop, None, None, partial(_enter_task, loop), partial(_leave_task, loop)
        )

    def __init__(self, loop: Any, schedule: Schedule) -> None:
        super().__init__()
        self._schedule_fn = schedule  # type: ignore[misc]  # a slot of Granian's compiled base

    def cancel(self) -> bool:
        """As Granian's own schedulers."""
        return False


def _worker(listener: Listener) -> Any:
    http1 = HTTP1Settings(
        header_read_timeout=int(listener.header_timeout * 1000),
        max_buffer_size=HEADERS_BUFFER_BYTES,
    )
    socket = _granian_untyped.ListenerSpec(listener.host, listener.port, BACKLOG)
    return _granian_untyped.RSGIWorker(
        1, (socket, None), None, RUNTIME_THREADS, RUNTIME_BLOCKING_THREADS, BLOCKING_THREADS,
        BLOCKING_IDLE_S, listener.max_connections, "1", http1,
        None, False, None, False, None, None, None, "tls1.3", None, [], False, (None, None),
    )  # fmt: skip
