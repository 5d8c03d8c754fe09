"""What the aggregator's benchmark is made of: frames, a publisher, and the real servers.

Everything but the aggregator is kept off the first core, which is the aggregator's own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Final
from uuid import UUID, uuid4

import numpy as np
import psycopg
from nats.aio.client import Client
from nats.aio.msg import Msg

from bench.harness.machine import cpu_ns, pin
from clickmill import wire
from clickmill.fields import PREFIX
from stack.embedded import nats as embedded_nats
from stack.embedded import postgres as embedded_postgres
from stack.ports import free_port

BANNERS: Final = 100
STREAM_BYTES: Final = 4 << 30
PUBLISH_AHEAD: Final = 2000
START_TIMEOUT_S: Final = 30


class Maker:
    """Frames of many sources, BANNERS pairs each, made fast: only the header differs."""

    def __init__(self, sources: int) -> None:
        self._ids = np.arange(10, 10 + BANNERS, dtype="<u4").tobytes()
        self._counts = np.full(BANNERS, 3, dtype="<u8").tobytes()
        self.sources = [uuid4() for _ in range(sources)]
        self._seqs = dict.fromkeys(self.sources, 0)

    def frame(self, source: UUID) -> wire.Frame:
        """The source's next frame, sealed now."""
        seq = self._seqs[source] = self._seqs[source] + 1
        now = time.time_ns()
        return wire.Frame(
            source, seq, now // 60_000_000_000, now, seq * 3 * BANNERS, False,
            self._ids, self._counts,
        )  # fmt: skip


class Publisher:
    """Publishes frames without waiting for each acknowledgement, at most PUBLISH_AHEAD ahead."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._inbox = client.new_inbox()
        self.sent = self.acknowledged = 0
        self._room = asyncio.Event()

    async def start(self) -> None:
        await self._client.subscribe(self._inbox, cb=self._on_ack)

    async def _on_ack(self, message: Msg) -> None:
        if b'"error"' in message.data:
            raise RuntimeError(f"NATS refused a frame: {message.data!r}")
        self.acknowledged += 1
        self._room.set()

    async def publish(self, frame: wire.Frame) -> None:
        while self.sent - self.acknowledged >= PUBLISH_AHEAD:
            self._room.clear()
            await self._room.wait()
        self.sent += 1
        await self._client.publish(
            wire.delta_subject(frame.source), wire.encode(frame), reply=self._inbox,
            headers={wire.MSG_ID_HEADER: wire.message_id(frame.source, frame.seq)},
        )  # fmt: skip

    async def all_acknowledged(self) -> None:
        while self.acknowledged < self.sent:
            self._room.clear()
            await self._room.wait()


# --- the parts around it ----------------------------------------------------------------------


class Servers:
    """NATS and Postgres as `clickmill up` starts them, on the last core; on all if not `alone`."""

    def __init__(self, folder: Path, sync: str, alone: bool = True) -> None:
        self._children: list[tuple[subprocess.Popen[bytes], int]] = []
        nats = embedded_nats.prepare(folder / "nats", 2 * STREAM_BYTES)
        config = Path(nats.argv[nats.argv.index("-c") + 1])
        config.write_text(
            config.read_text().replace("sync_interval: always", f"sync_interval: {sync}")
        )
        postgres = embedded_postgres.prepare(folder / "postgres")
        for server in (nats, postgres):
            with (folder / f"{server.name}.log").open("wb") as log:
                child = subprocess.Popen(
                    server.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    **server.popen_options(),
                )  # fmt: skip
            self._children.append((child, server.stop_signal))
            if alone:
                pin([child.pid], {last_core()})
        self.nats_url = nats.address
        self._admin = postgres.admin
        self._databases = 0
        wait_for(self._takes_sessions)

    def _takes_sessions(self) -> bool:
        psycopg.connect(self._admin, connect_timeout=1).close()
        return True

    def database(self) -> str:
        """A DSN of a new, empty database."""
        self._databases += 1
        name = f"bench_{self._databases}"
        with psycopg.connect(self._admin, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self._admin.removesuffix("postgres") + name

    def pids(self) -> list[int]:
        """The processes of nats-server and of Postgres; Postgres has children that come and go."""
        return [child.pid for child, _ in self._children]

    def close(self) -> None:
        for child, number in reversed(self._children):
            child.send_signal(number)
            child.wait(20)


def last_core() -> int:
    return max(os.sched_getaffinity(os.getppid()))


def first_core() -> int:
    return min(os.sched_getaffinity(os.getppid()))


def wait_for(is_so: Callable[[], object], timeout: float = START_TIMEOUT_S) -> None:
    deadline = time.monotonic() + timeout
    while True:
        with contextlib.suppress(OSError, psycopg.OperationalError):
            if is_so():
                return
        if time.monotonic() > deadline:
            raise TimeoutError("a part of the benchmark is not ready: see the logs in its folder")
        time.sleep(0.05)


class Aggregator:
    """The real process, alone on the first core, or on all of them."""

    def __init__(self, nats_url: str, dsn: str, log: Path, alone: bool = True) -> None:
        self.port = free_port()
        environ = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)} | {
            "CLICKMILL_NATS_URL": nats_url, "CLICKMILL_POSTGRES_DSN": dsn,
            "CLICKMILL_STATS_PORT": str(self.port), "CLICKMILL_NATS_MAX_BYTES": str(STREAM_BYTES),
        }  # fmt: skip
        with log.open("wb") as out:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "aggregator"], env=environ, stdout=out, stderr=out
            )
        if alone:
            pin([self._child.pid], {first_core()})

    def resident(self) -> int:
        """Bytes of memory that it has now."""
        status = Path(f"/proc/{self._child.pid}/status").read_text()
        line = next(line for line in status.splitlines() if line.startswith("VmRSS:"))
        return int(line.split()[1]) * 1024

    def metric(self, name: str) -> float:
        url = f"http://127.0.0.1:{self.port}/metrics"
        with urllib.request.urlopen(url, timeout=5) as answer:
            for line in answer.read().decode().splitlines():
                if line.startswith(name + " "):
                    return float(line.split()[1])
        raise KeyError(name)

    def ready(self) -> bool:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/readyz", timeout=5) as answer:
            return int(answer.status) == 200

    def cpu_seconds(self) -> float:
        return cpu_ns(self._child.pid) / 1e9

    def close(self) -> None:
        self._child.terminate()
        self._child.wait(10)
