"""The real aggregator process, and workers that exist only as frames on the bus.

with aggregator(nats.url, database) as running:
    async with Bus(nats.url) as bus:
        a = bus.worker()
        await a.send({17: 3})
        await a.committed(1)
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from signal import SIGCONT, SIGKILL, SIGTERM, Signals
from types import TracebackType

import msgspec
import nats.errors
import psycopg
from nats.aio.client import Client

from clickmill import bus, messages, wire
from clickmill.fields import PREFIX
from tests.support import sql
from tests.support.fakes import FakeSource
from tests.support.fix_nats import MAX_BYTES
from tests.support.ports import free_port
from tests.support.wait import POLL_SECONDS, aeventually, eventually

READY_S = 20.0
HOLDING = 9_999
STREAM_BYTES = MAX_BYTES // 2


class Aggregator:
    """One `python -m aggregator`."""

    def __init__(self, nats_url: str, dsn: str, failpoints: str = "", port: int = 0) -> None:
        self.port = port or free_port()
        settings = {
            "NATS_URL": nats_url,
            "POSTGRES_DSN": dsn,
            "STATS_PORT": str(self.port),
            "NATS_MAX_BYTES": str(STREAM_BYTES),
            "FAILPOINTS": failpoints,
        }
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        self._directory = tempfile.TemporaryDirectory()
        self.log = Path(self._directory.name) / "log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "aggregator"],
                env=inherited | {PREFIX + name: value for name, value in settings.items()},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
            )

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body; (0, b"") while nobody listens."""
        try:
            with urllib.request.urlopen(self.url + path, timeout=2) as answer:
                return int(answer.status), answer.read()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read()
        except OSError:
            return 0, b""

    def not_ready(self) -> str | None:
        """Why `/readyz` refuses; None once it does not."""
        status, body = self.get("/readyz")
        return None if status == 200 else f"{status} {body.decode()}"

    def wait_ready(self, timeout: float = READY_S) -> Aggregator:
        try:
            eventually(lambda: self.not_ready() is None, timeout, "the aggregator is ready")
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.not_ready()}\n{self.output[-4000:]}") from error
        return self

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def metric(self, name: str) -> float:
        """A metric without labels."""
        text = self.get("/metrics")[1].decode()
        return float(next(x for x in text.splitlines() if x.startswith(name + " ")).split()[1])

    async def buffers(self, frames: int) -> None:
        """Wait until so many frames are here, besides those that are being written."""

        async def so_many() -> bool:
            buffered = await asyncio.to_thread(self.metric, "clickmill_frames_buffered")
            assert buffered == frames, buffered
            return True

        await aeventually(so_many, 10, f"{frames} frames are buffered")

    @property
    def shards(self) -> int:
        try:
            return int(self.metric("clickmill_shards_owned"))
        except StopIteration:
            return 0

    def signal(self, number: Signals) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = 10) -> int:
        return self.process.wait(timeout)

    def stop(self, number: Signals = SIGTERM) -> tuple[int, float]:
        """(exit code, seconds) of a stop."""
        began = time.monotonic()
        self.process.send_signal(number)
        self.process.send_signal(SIGCONT)
        return self.process.wait(10), time.monotonic() - began

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.send_signal(SIGKILL)
        self.process.wait(10)
        self._directory.cleanup()


@contextlib.contextmanager
def aggregator(
    nats_url: str, dsn: str, failpoints: str = "", wait: bool = True, port: int = 0
) -> Iterator[Aggregator]:
    """A running aggregator, ready unless told not to wait."""
    running = Aggregator(nats_url, dsn, failpoints, port)
    try:
        yield running.wait_ready() if wait else running
    finally:
        running.close()


@contextlib.asynccontextmanager
async def store_held_up(dsn: str, worker: FakeWorker) -> AsyncIterator[None]:
    """The one aggregator of this database waits at a lock, with a frame of this worker (one click
    of HOLDING) in hand: whatever comes meanwhile is in its next batch."""
    waiting = (
        "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'clickmill writer' AND wait_event_type = 'Lock'"
    )

    async def waits() -> bool:
        return bool(await asyncio.to_thread(sql.query, dsn, waiting))

    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE source IN EXCLUSIVE MODE")
        await worker.send({HOLDING: 1})
        await aeventually(waits, 10, "the writer waits for the lock")
        yield


class Bus:
    """A connection of the test itself."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.client: Client

    async def __aenter__(self) -> Bus:
        self.client = await bus.connect(self._url, "test")
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        await bus.close(self.client)

    def worker(self) -> FakeWorker:
        return FakeWorker(self.client)

    async def messages(self) -> int:
        """Messages in the stream: sent, and not yet acknowledged."""
        info = await self.client.jetstream().stream_info(wire.STREAM)
        return info.state.messages

    async def drained(self, timeout: float = 15) -> None:
        async def empty() -> bool:
            return await self.messages() == 0

        await aeventually(empty, timeout, "everything is acknowledged")


class FakeWorker:
    """A source with its spool in memory: it keeps every frame and can send any of them again."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._source = FakeSource()
        self.id = self._source.id
        self.spool: dict[int, wire.Frame] = {}
        self.counts: dict[int, int] = {}
        self._resends = 0

    @property
    def seq(self) -> int:
        return self._source.seq

    @property
    def total(self) -> int:
        return self._source.total

    def seal(self, counts: dict[int, int], closed: bool = False) -> int:
        """Make the next frame without sending it; its seq."""
        frame = self._source.frame(counts, int(time.time()) // 60, closed)
        self.spool[frame.seq] = frame
        for banner, n in counts.items():
            self.counts[banner] = self.counts.get(banner, 0) + n
        return frame.seq

    async def send(self, counts: dict[int, int]) -> int:
        """Make the next frame and publish it."""
        seq = self.seal(counts)
        await self.publish(seq)
        return seq

    async def publish(
        self, seq: int, *, again: bool = False, raw: bytes = b"", floor: int = 1
    ) -> None:
        """Publish a frame of the spool; `again` past the deduplication, `raw` in its place."""
        self._resends += again
        headers = {wire.MSG_ID_HEADER: wire.message_id(self.id, seq, self._resends * again)}
        if floor > 1:
            headers[wire.FLOOR_HEADER] = str(floor)
        await self._client.jetstream().publish(
            wire.delta_subject(self.id), raw or wire.encode(self.spool[seq]), headers=headers
        )

    async def ask(self, closed: bool = False, timeout: float = 1.0) -> messages.Committed | None:
        """A sign of life; the mark, or None without an answer."""
        status = messages.SourceStatus(self.id, self.seq, time.time_ns(), closed)
        try:
            reply = await self._client.request(
                wire.COMMITTED_SUBJECT, msgspec.json.encode(status), timeout=timeout
            )
        except (nats.errors.Error, TimeoutError):
            return None
        return msgspec.json.decode(reply.data, type=messages.Committed)

    async def committed(self, seq: int | None = None, timeout: float = 15) -> messages.Committed:
        """Wait until the mark is exactly here (default: the last frame)."""
        wanted = self.seq if seq is None else seq

        async def there() -> messages.Committed | None:
            mark = await self.ask()
            return mark if mark is not None and mark.seq == wanted else None

        found = await aeventually(there, timeout, f"the mark is {wanted}")
        assert found is not None
        return found

    async def deliver(self, timeout: float = 60, patience: float = 3.0) -> None:
        """Send from the mark on until all is committed, as a worker does."""
        deadline, mark = time.monotonic() + timeout, -1
        while True:
            answer = await self.ask()
            if answer is not None and answer.seq >= self.seq:
                return
            await asyncio.sleep(POLL_SECONDS)  # a disconnected client refuses without waiting
            assert time.monotonic() < deadline, f"stuck at {answer}, {self.seq} wanted"
            if answer is None or answer.seq > mark:
                mark = answer.seq if answer else mark
                progress = time.monotonic()
            elif time.monotonic() - progress > patience:
                with contextlib.suppress(nats.errors.Error, TimeoutError):
                    for seq in range(mark + 1, self.seq + 1):
                        await self.publish(seq, again=True)
                progress = time.monotonic()
