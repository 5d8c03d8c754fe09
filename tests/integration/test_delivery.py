"""Frames that can't be read, and a shipper that fails: with a real NATS and a real spool.

The errors come from the kernel: a process at its limit of open files gets EMFILE, and reading
/proc/self/mem where nothing is mapped returns EIO, like a broken disk.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest

from clickmill import wire
from clickmill.connection import Connection
from clickmill.retry import Backoff
from clickmill.stream import StreamOptions, ensure_stream
from ingest.durable import spool as spool_module
from ingest.durable.outbox import Outbox
from ingest.durable.source import Source
from ingest.metrics import Slot
from ingest.shipping import shipper as shipper_module
from ingest.shipping.shipper import READ_TRIES, Shipper
from tests.support.connections import connection
from tests.support.fix_nats import MAX_BYTES, NatsServer
from tests.support.fix_worker import Worker
from tests.support.raw import ask
from tests.support.wait import aeventually, eventually

STREAM_BYTES = MAX_BYTES // 2
BROKEN_DISK = Path("/proc/self/mem")

Run = Callable[[Callable[["Scene"], Coroutine[Any, Any, None]]], None]


class Scene:
    """A source with two frames of 1 and 2 clicks, each in its own segment, and its shipper."""

    def __init__(self, root: Path, connection: Connection) -> None:
        self.connection = connection
        self.source = Source.create(root, 100, 1 << 20)
        self.outbox = Outbox(keep_s=900, resend_after_s=900, mark=0)
        self.shipper = Shipper(
            self.source, self.outbox, Slot(root / "meters"), StreamOptions(STREAM_BYTES)
        )
        self.tries = 0
        self.at_try: dict[int, Callable[[], object]] = {}
        for clicks in (1, 2):
            self.seal(clicks)

    def seal(self, clicks: int) -> None:
        counters = self.source.counters
        assert counters is not None
        counters.hit(7, clicks)
        counters.flip()
        frames = self.source.frames(counters.frozen())
        self.source.spool.append(frames)
        counters.clear()
        for frame in frames:
            self.outbox.sealed(frame.seq, 0.0)

    @property
    def segments(self) -> list[Path]:
        """The file of each frame."""
        return sorted((self.source.directory / "spool").glob("*.frames"))

    def failed(self) -> None:
        """A try has failed; runs the action for this number of tries."""
        self.tries += 1
        self.at_try.get(self.tries, int)()

    async def tried(self, times: int) -> None:
        """Waits until this many more tries have failed."""
        wanted = self.tries + times

        async def so_often() -> bool:
            return self.tries >= wanted

        await aeventually(so_often, 10, f"{times} tries")

    async def sent(self, messages: int) -> list[tuple[int, str | None]]:
        """(clicks, first available seq) of each frame in the stream, once it has this many."""
        js = self.connection.jetstream()

        async def there() -> bool:
            return (await js.stream_info(wire.STREAM)).state.messages == messages

        await aeventually(there, 10, f"{messages} frames in the stream")
        found = [await js.get_msg(wire.STREAM, n + 1) for n in range(messages)]
        return [
            (wire.decode(one.data or b"").clicks, (one.headers or {}).get(wire.FLOOR_HEADER))
            for one in found
        ]


@contextlib.asynccontextmanager
async def scene(nats: NatsServer, root: Path) -> AsyncIterator[Scene]:
    async with connection(nats.url) as it:
        await ensure_stream(it.jetstream(), StreamOptions(STREAM_BYTES))
        yield Scene(root, it)


@pytest.fixture
def delivering(nats: NatsServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """`delivering(test)`: runs a test while a shipper runs, which must survive it."""
    monkeypatch.setattr(spool_module, "SEGMENT_FRAMES", 1)
    monkeypatch.setattr(shipper_module, "Backoff", lambda: Backoff(0.002, 0.002))
    real = Shipper._cannot_read

    def run(test: Callable[[Scene], Coroutine[Any, Any, None]]) -> None:
        async def story() -> None:
            async with scene(nats, tmp_path) as here:

                def cannot_read(self: Shipper, seq: int, error: OSError) -> bool:
                    here.failed()
                    return real(self, seq, error)

                monkeypatch.setattr(Shipper, "_cannot_read", cannot_read)
                await test(here)

        asyncio.run(story())

    return run


@contextlib.asynccontextmanager
async def at_work(here: Scene) -> AsyncIterator[None]:
    task = asyncio.create_task(here.shipper.run(here.connection))
    try:
        yield
        assert not task.done(), task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.contextmanager
def no_file_can_be_opened() -> Iterator[None]:
    """No further file can be opened."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@contextlib.contextmanager
def broken_disk(segment: Path) -> Iterator[None]:
    """Reading this file returns EIO."""
    whole = segment.rename(segment.with_suffix(".whole"))
    segment.symlink_to(BROKEN_DISK)
    try:
        yield
    finally:
        segment.unlink()
        whole.rename(segment)


def test_a_lack_of_descriptors_loses_no_frame(delivering: Run) -> None:
    async def test(here: Scene) -> None:
        with no_file_can_be_opened():
            async with at_work(here):
                await here.tried(3 * READ_TRIES)
                assert here.outbox.held == [1, 2]
        async with at_work(here):
            assert await here.sent(2) == [(1, None), (2, None)]
        assert not here.source.spool.damages

    delivering(test)


def test_temporary_read_errors_lose_no_frame(delivering: Run) -> None:
    """Each frame has the full number of tries: a successful read resets the count."""

    async def test(here: Scene) -> None:
        with contextlib.ExitStack() as first, contextlib.ExitStack() as second:
            for stack, segment in zip((first, second), here.segments, strict=True):
                stack.enter_context(broken_disk(segment))
            here.at_try = {READ_TRIES - 1: first.close, 2 * (READ_TRIES - 1): second.close}
            async with at_work(here):
                assert await here.sent(2) == [(1, None), (2, None)]
        assert not here.source.spool.damages

    delivering(test)


def test_after_permanent_read_errors_the_next_frame_reports_the_lost_range(
    delivering: Run,
) -> None:
    async def test(here: Scene) -> None:
        segment = here.segments[0]
        with broken_disk(segment):
            async with at_work(here):
                assert await here.sent(1) == [(2, "2")]
        assert here.tries == READ_TRIES
        (damage,) = here.source.spool.damages
        assert damage.segment == segment
        assert "Input/output error" in damage.reason
        assert here.outbox.held == [2]

    delivering(test)


class UnforeseenError(Exception):
    """An unexpected error."""


def test_an_unexpected_error_ends_the_shipper(
    delivering: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(name: str) -> None:
        raise UnforeseenError(name)

    async def test(here: Scene) -> None:
        monkeypatch.setattr(shipper_module, "failpoint", fail)
        async with asyncio.timeout(5):
            with pytest.raises(ExceptionGroup) as caught:
                await here.shipper.run(here.connection)
        (error,) = caught.value.exceptions
        assert isinstance(error, UnforeseenError)
        assert str(error) == "ingest.publish"

    delivering(test)


def test_a_worker_whose_shipper_has_failed_exits(nats: NatsServer, tmp_path: Path) -> None:
    """Otherwise it would count, be ready, and never send again."""
    worker = Worker(nats, tmp_path, {"CLICKMILL_FAILPOINTS": "ingest.publish=error"})
    try:
        worker.start()
        assert ask(worker.port, "POST", "/counter/7").status == 200
        eventually(lambda: not worker.alive, 10, "the worker ends")
        assert "it ends, to be replaced" in worker.text
        assert worker.stop() == 1
    finally:
        worker.stop()
        worker.tap.close()


def test_readiness_reports_rejected_frames_until_they_are_accepted(
    delivering: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stream is full: readiness reports the error of the server."""
    monkeypatch.setattr(shipper_module, "TROUBLE_AFTER_S", 0.2)

    async def test(here: Scene) -> None:
        js = here.connection.jetstream()
        full = StreamOptions(1).config(1)
        await js.update_stream(full)

        async def reported() -> bool:
            return "maximum bytes exceeded" in here.shipper.trouble

        async def well() -> bool:
            return not here.shipper.trouble

        async with at_work(here):
            await aeventually(reported, 10)
            await js.update_stream(full.evolve(max_bytes=STREAM_BYTES))
            assert await here.sent(2) == [(1, None), (2, None)]
            await aeventually(well, 5)
            await js.update_stream(full)
            here.seal(4)
            await aeventually(reported, 10)
            here.outbox.committed(3, 0.0)
            await aeventually(well, 5, "nothing is due any more")

    delivering(test)
