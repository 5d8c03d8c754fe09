"""Live statistics: computed once a second for any number of listeners.

Clicks per second come from the marks of all sources, which each aggregator knows from its start,
also those that others commit. A new listener gets the known seconds of the last five minutes.
Banners and minutes are read from Postgres only while there are listeners (and a little longer).
Each tick becomes one event, encoded once and sent to all listeners. A listener that is too slow
misses ticks instead of queueing them. While a tick is late, comments are sent, so silence always
means a lost connection.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import weakref
from collections.abc import AsyncIterator, Callable
from typing import Final

import msgspec

from aggregator.reading.live_events import (
    HISTORY_MINUTES,
    LOOK_BACK_S,
    Activity,
    Pipeline,
    Rates,
    Snapshot,
)
from aggregator.reading.queries import Reader
from aggregator.reading.timerange import MINUTE_S
from clickmill.contract.problem import Problem, too_many
from clickmill.shares import Shares

TICK_S: Final = 1.0
# While nothing happens changes are looked for more often, so that the first click shows at once.
QUIET_POLL_S: Final = 0.25
# While a tick is late a comment goes out this often.
LATE_S: Final = 0.5
MAX_LISTENERS: Final = 2_000
LIFE_S: Final = 60.0
LIFE_SPREAD: Final = 0.25
LINGER_S: Final = 60.0
RETRY_MS: Final = 1_000
MAX_ROWS: Final = 5_000
STILL_THERE: Final = b": \n\n"

log = logging.getLogger("clickmill.live")


def event(name: str, data: msgspec.Struct) -> bytes:
    """One server-sent event."""
    return b"event: " + name.encode() + b"\ndata: " + msgspec.json.encode(data) + b"\n\n"


class _Place:
    """What a listener holds of the streams; given back once."""

    def __init__(self, listeners: Shares, client: str, changed: Callable[[], None]) -> None:
        self._listeners, self._client, self._changed = listeners, client, changed
        self._is_held = True
        listeners.take(client)
        changed()

    def give_back(self) -> None:
        if self._is_held:
            self._is_held = False
            self._listeners.give_back(self._client)
            self._changed()


class Live:
    """The loop that sends a tick each second, and its listeners."""

    def __init__(
        self,
        reader: Reader,
        rates: Rates,
        pipeline: Callable[[], Pipeline],
        stopping: asyncio.Event,
        count_listeners: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._reader = reader
        self._pipeline = pipeline
        self._stopping = stopping
        self._count_listeners = count_listeners
        self._listeners = Shares()
        self._left = 0.0
        self._activity = Activity(rates)
        self._task: asyncio.Task[None] | None = None
        self._next: asyncio.Future[bytes] | None = None
        self._reading: asyncio.Task[None] | None = None

    def listen(self, client: str) -> AsyncIterator[bytes]:
        """The events of one listener, until its life is over, it goes, or the process stops.

        Raises Problem (too_many_listeners) where MAX_LISTENERS are there already, or where this
        client has as many streams as it leaves to the others.
        """
        if not self._listeners.allows(client, MAX_LISTENERS):
            sentence = (
                f"{self._listeners.total} streams are open, of {MAX_LISTENERS} that may be, and no "
                "client may have more than it leaves: close some, or try again later"
            )
            raise too_many("too_many_listeners", sentence)
        place = _Place(self._listeners, client, self._changed)
        events = self._events(place)
        weakref.finalize(events, place.give_back)  # a stream that never begins has no end either
        return events

    async def _events(self, place: _Place) -> AsyncIterator[bytes]:
        spread = random.uniform(1 - LIFE_SPREAD, 1 + LIFE_SPREAD)
        ends = time.monotonic() + LIFE_S * spread
        try:
            upcoming = self._upcoming()
            yield b"retry: %d\n\n" % RETRY_MS
            yield event("snapshot", await self._snapshot())
            while time.monotonic() < ends and not self._stopping.is_set():
                tick = await asyncio.shield(upcoming)
                upcoming = self._upcoming()
                yield tick
        finally:
            place.give_back()

    def _changed(self) -> None:
        self._left = time.monotonic()
        self._count_listeners(self._listeners.total)

    def _upcoming(self) -> asyncio.Future[bytes]:
        """The next tick, which all who listen wait for together."""
        if self._next is None or self._next.done():
            self._next = asyncio.get_running_loop().create_future()
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._run(), name="live")
        return self._next

    async def _snapshot(self) -> Snapshot:
        if self._activity.needs_minutes(time.time()):
            if self._reading is None or self._reading.done():
                self._reading = asyncio.create_task(self._read_minutes(), name="live history")
            await asyncio.shield(self._reading)
        return self._activity.snapshot(time.time(), self._pipeline())

    async def _read_minutes(self) -> None:
        now = time.time()
        since = (int(now) // MINUTE_S - HISTORY_MINUTES) * MINUTE_S
        try:
            self._activity.set_minutes(await self._reader.minutes(since), now)
        except Problem:
            log.debug("no history for a listener: Postgres does not answer")

    async def _run(self) -> None:
        """Looks at Postgres and hands out ticks; ends when there was no listener for long."""
        quiet = False
        due = 0.0
        self._activity.clear()
        while not self._stopping.is_set():
            if not self._listeners.total and time.monotonic() - self._left > LINGER_S:
                break
            changed = self._activity.clicks > 0
            if changed or time.monotonic() >= due:
                due = time.monotonic() + TICK_S - QUIET_POLL_S / 2
                self._hand_out(await self._tick())
                quiet = not changed
            await self._pause(QUIET_POLL_S if quiet else TICK_S)
        self._activity.clear()
        self._hand_out(STILL_THERE)

    async def _tick(self) -> bytes:
        """The next event; while Postgres takes long comments go out."""
        looking = asyncio.create_task(self._look(), name="live look")
        while not (await asyncio.wait({looking}, timeout=LATE_S))[0]:
            self._hand_out(STILL_THERE)
            if self._stopping.is_set():
                looking.cancel()
                return STILL_THERE
        return looking.result() or STILL_THERE

    async def _look(self) -> bytes | None:
        now = time.time()
        since = int(now - LOOK_BACK_S) // MINUTE_S * MINUTE_S
        try:
            recent = await self._reader.recent(since, MAX_ROWS)
        except Problem:
            return None
        self._activity.look(time.monotonic(), recent)
        tick = event("tick", self._activity.tick(now, self._pipeline()))
        self._activity.sent()
        return tick

    def _hand_out(self, tick: bytes) -> None:
        if self._next is not None and not self._next.done():
            self._next.set_result(tick)

    async def _pause(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            return
