"""Fixture `worker`: one real ingest worker with a real nats-server, over both ways of answering.

What it counted is read where an aggregator would read it: a `Tap` listens to the frames on NATS,
adds them up and tells their mark, so that "counted" here never means the worker's own word for it.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Protocol
from uuid import UUID

import msgspec
import pytest
from nats.aio.msg import Msg

from clickmill import bus, messages, wire
from tests.support.fix_nats import MAX_BYTES, NatsServer
from tests.support.ports import free_port
from tests.support.raw import HOST, ask
from tests.support.wait import eventually

MARKER = 99_999
"""A banner that no test clicks on: a click on it shows that all before it are in frames."""
READY_S = 15.0
STOP_S = 10.0
FLUSH_S = 0.05
DRAIN_S = 1.5
"""No aggregator confirms that a source is closed: a stop takes this long."""


class Tap:
    """Adds up the frames that pass over NATS, each (source, seq) once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._lock = threading.Lock()
        self._seen: set[tuple[UUID, int]] = set()
        self._clicks: Counter[int] = Counter()
        self._loop = asyncio.new_event_loop()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        assert self._ready.wait(READY_S), "the tap does not reach NATS"

    def _run(self) -> None:
        self._loop.run_until_complete(self._listen())

    async def _listen(self) -> None:
        self._stop = asyncio.Event()
        client = await bus.connect(self._url, "test-tap")

        async def on_frame(message: Msg) -> None:
            frame = wire.decode(message.data)
            self._add(frame)
            told = msgspec.json.encode(messages.Committed(frame.seq, frame.total))
            await client.publish(wire.committed_subject(frame.source), told)

        await client.subscribe(f"{wire.DELTAS_PREFIX}.>", cb=on_frame)
        await client.flush()
        self._ready.set()
        await self._stop.wait()
        await bus.close(client)

    def _add(self, frame: wire.Frame) -> None:
        with self._lock:
            if (frame.source, frame.seq) not in self._seen:
                self._seen.add((frame.source, frame.seq))
                for banner, clicks in frame.pairs:
                    self._clicks[banner] += clicks

    @property
    def clicks(self) -> Counter[int]:
        """Clicks of each banner so far."""
        with self._lock:
            return Counter(self._clicks)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(STOP_S)
        self._loop.close()


class HasUrl(Protocol):
    """A NATS server, as a worker sees it."""

    @property
    def url(self) -> str: ...


class Worker:
    """A running `python -m ingest`, and the tap on what it publishes."""

    def __init__(
        self, nats: HasUrl, data_dir: Path, env: Mapping[str, str], files: int | None = None
    ) -> None:
        """`files`: so many may be open, and the process can't have more."""
        self.port = free_port()
        self.data_dir = data_dir
        self.log = data_dir / "ingest.log"
        self.tap = Tap(nats.url)
        self._marked = 0
        self._env = {
            **{name: value for name, value in os.environ.items() if "CLICKMILL" not in name},
            "CLICKMILL_HOST": HOST,
            "CLICKMILL_PORT": str(self.port),
            "CLICKMILL_DATA_DIR": str(data_dir),
            "CLICKMILL_NATS_URL": nats.url,
            "CLICKMILL_NATS_MAX_BYTES": str(MAX_BYTES // 2),
            "CLICKMILL_FLUSH_INTERVAL": str(FLUSH_S),
            "CLICKMILL_DRAIN_TIMEOUT": str(DRAIN_S),
            **env,
        }
        self._within = [] if files is None else ["prlimit", f"--nofile={files}:{files}"]
        self._process: subprocess.Popen[bytes] | None = None
        self.expected_code = 0

    def start(self, wait: bool = True) -> None:
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [*self._within, sys.executable, "-m", "ingest"], env=self._env, cwd=self.data_dir,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip
        if wait:
            eventually(self._is_ready, READY_S, f"the worker is ready\n{self.text}")

    def remember(self, targets: Mapping[int, str]) -> None:
        """Before the start: the file of targets."""
        home = self.data_dir / "ingest"
        home.mkdir()
        (home / "targets.json").write_bytes(msgspec.json.encode(targets))

    def _is_ready(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"the worker ended at once:\n{self.text}")
        return ask(self.port, "GET", "/readyz").status == 200

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def proc(self) -> Path:
        """What the kernel says of the process."""
        return Path(f"/proc/{self.pid}")

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def text(self) -> str:
        """What the worker has logged."""
        return self.log.read_text("utf-8", "replace") if self.log.exists() else ""

    def clicks(self) -> Counter[int]:
        """Every click counted so far, all of them, by banner (the marker's left out)."""
        self._marked += 1
        assert ask(self.port, "POST", f"/counter/{MARKER}").status == 200
        eventually(
            lambda: self.tap.clicks[MARKER] == self._marked, READY_S, "the marker is in a frame"
        )
        clicks = self.tap.clicks
        del clicks[MARKER]
        return clicks

    def stop(self) -> int:
        """SIGTERM, and the exit code; killed, and -9, where it does not end."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(SIGTERM)
        try:
            return self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait(STOP_S)

    def close(self) -> None:
        code = self.stop()
        self.tap.close()
        assert code == self.expected_code, f"the worker ended with {code}:\n{self.text[-4000:]}"


class Workers:
    """Makes workers for a test, and ends them after it."""

    def __init__(self, factory: pytest.TempPathFactory) -> None:
        self._factory = factory
        self._made: list[tuple[Worker, NatsServer]] = []

    def __call__(
        self,
        fastpath: bool = True,
        targets: Mapping[int, str] | None = None,
        files: int | None = None,
        **env: str,
    ) -> Worker:
        """A ready worker with these settings, named without their CLICKMILL_.

        `targets` are what a worker before it learnt from the register and left in its file;
        `files` is how many it may have open.
        """
        nats = NatsServer(self._factory.mktemp("nats"))
        nats.start()
        settings = {f"CLICKMILL_{name}": value for name, value in env.items()}
        settings["CLICKMILL_FASTPATH"] = "true" if fastpath else "false"
        worker = Worker(nats, self._factory.mktemp("worker"), settings, files)
        if targets:
            worker.remember(targets)
        self._made.append((worker, nats))
        worker.start()
        return worker

    def close(self) -> None:
        for worker, nats in self._made:
            try:
                worker.close()
            finally:
                nats.stop()


@pytest.fixture(scope="module", params=["fast", "ordinary"])
def way(request: pytest.FixtureRequest) -> str:
    """Both ways of answering a click: compiled, on Granian's thread; and on the event loop."""
    return str(request.param)


@pytest.fixture(scope="module")
def module_workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Workers that live as long as the module's tests run."""
    workers = Workers(tmp_path_factory)
    yield workers
    workers.close()


@pytest.fixture
def workers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Workers]:
    """Workers for one test."""
    workers = Workers(tmp_path_factory)
    yield workers
    workers.close()


@pytest.fixture(scope="module")
def worker(module_workers: Workers, way: str) -> Worker:
    """One worker for a module's tests: each runs over both ways and expects the same answers."""
    return module_workers(fastpath=way == "fast")


@contextmanager
def counts(worker: Worker, expected: Mapping[int, int]) -> Iterator[None]:
    """Within it exactly these clicks are counted, by banner, and not one besides."""
    before = worker.clicks()
    yield
    after = worker.clicks()
    assert {banner: n - before[banner] for banner, n in after.items() if n != before[banner]} == {
        banner: n for banner, n in expected.items() if n
    }
