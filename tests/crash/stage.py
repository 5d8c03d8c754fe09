"""Where a crash scenario plays: real NATS, Postgres, aggregators and workers, under load.

with Stage(tmp_path, seed=7) as stage:
    stage.workers.supervised(2)
    stage.load()
    ...                                 # faults
    stage.check()                       # stops the load, waits until all is healed, compares
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import TracebackType

import psycopg

from clickmill import wire
from clickmill.fields import PREFIX
from tests.crash.checked import HEAL_S, Checked
from tests.crash.keyed_loader import KeyedLoader
from tests.crash.loader import Loader
from tests.support.aggregators import STREAM_BYTES, Aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import System, status
from tests.support.ports import free_port
from tests.support.sql import query
from tests.support.wait import eventually

READY_S = 20.0
SETTINGS = {
    "flush_interval": 0.1,
    "spool_keep_seconds": 20,
    "resend_after_seconds": 2,
    "nats_max_bytes": STREAM_BYTES,
    "max_banner_id": 999,
    "stop_timeout": 8,
    "drain_timeout": 1.5,
}
"""Small numbers scale the time of everything by ten or more."""
_numbers = itertools.count(1)


class Worker:
    """One `python -m ingest`, without a supervisor, that may carry failpoints."""

    def __init__(self, stage: Stage, failpoints: str, extra: dict[str, str]) -> None:
        self.log = stage.home / f"worker-{next(_numbers)}.log"
        settings = stage.settings | {"failpoints": failpoints, "port": stage.port}
        env = stage.environment(settings) | extra
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "ingest"], env=env, cwd=stage.home,
                stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT,
            )  # fmt: skip

    @property
    def output(self) -> str:
        return self.log.read_text("utf-8", "replace")

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def wait_serving(self) -> Worker:
        """Until it has said that it serves, or is dead already."""
        eventually(
            lambda: not self.alive or "serves on port" in self.output, READY_S,
            f"the worker serves\n{self.output}",
        )  # fmt: skip
        return self

    def wait_death(self, timeout: float = 20.0) -> int:
        """Its exit code; a failpoint's kill is -9."""
        return self.process.wait(timeout)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        self.process.send_signal(signal.SIGCONT)
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(15)


class Stage(Checked):
    """All parts of one run. What a scenario needs beyond NATS and Postgres it starts itself."""

    def __init__(self, home: Path, seed: int, postgres: PostgresServer) -> None:
        super().__init__(seed)
        self.home, self.postgres = home, postgres
        self.chance = random.Random(seed)
        self.port = free_port()
        self.data_dir = home / "data"
        self.data_dir.mkdir()
        self.nats = NatsServer(self._directory("nats"))
        self.dsn = postgres.make_database(f"crash_{os.getpid()}_{next(_numbers)}")
        self.settings: dict[str, object] = dict(SETTINGS)
        self.aggregators: list[Aggregator] = []
        self.workers: list[Worker] = []
        self.system: System | None = None

    def _directory(self, name: str) -> Path:
        path = self.home / name
        path.mkdir(exist_ok=True)
        return path

    def __enter__(self) -> Stage:
        self.nats.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if error is not None:
            print(f"seed {self.seed}; logs in {self.home}")
        with contextlib.ExitStack() as last:
            last.callback(self._drop_database)
            last.callback(self.nats.stop)
            for aggregator in self.aggregators:
                last.callback(aggregator.close)
            for worker in self.workers:
                last.callback(worker.kill)
            if self.system is not None:
                last.callback(self.system.stop)
            if self._loader is not None:
                last.callback(self._loader.stop)

    def _drop_database(self) -> None:
        with contextlib.suppress(psycopg.OperationalError):
            self.postgres.drop_database(self.dsn.rpartition("/")[2])

    # --- parts ----------------------------------------------------------------------------------

    def environment(self, settings: dict[str, object]) -> dict[str, str]:
        """The environment of a part: these settings and no others."""
        inherited = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
        ours = {"data_dir": self.data_dir, "nats_url": self.nats.url, "postgres_dsn": self.dsn}
        named = {PREFIX + k.upper(): str(v) for k, v in (ours | settings).items()}
        return inherited | named

    def aggregator(self, failpoints: str = "", dsn: str = "", wait: bool = True) -> Aggregator:
        """One more aggregator."""
        running = Aggregator(self.nats.url, dsn or self.dsn, failpoints)
        self.aggregators.append(running)
        return running.wait_ready() if wait else running

    def worker(self, failpoints: str = "", **extra: str) -> Worker:
        """One more worker on the stage's port."""
        worker = Worker(self, failpoints, extra)
        self.workers.append(worker)
        return worker.wait_serving()

    def supervised(self, workers: int = 2, command: str = "ingest", ready: bool = True) -> System:
        """`clickmill ingest` (or `up`) with so many workers, on the stage's port."""
        given: dict[str, object] = dict(self.settings) | {"workers": workers, "port": self.port}
        if command == "ingest":
            given |= {"nats_url": self.nats.url}
        self.system = System(command, self.data_dir, given, logs=self.home)
        if command == "up":
            self.dsn = ""
        if ready:
            self.system.wait_ready()
            self.dsn = self.dsn or self.system.address("postgres")
        return self.system

    def load(self, rate: int = 300, connections: int = 12) -> Loader:
        """Begin to click."""
        self._loader = Loader(self.port, self.seed, rate, connections).start()
        return self._loader

    def load_batches(self, ports: Sequence[int], rate: int = 100) -> KeyedLoader:
        """Begin to send batches with keys to these ports."""
        loader = KeyedLoader(ports, self.seed, rate)
        self._loader = loader
        loader.start()
        return loader

    def play(self, seconds: float) -> None:
        """Let the load go on for so long, at random between half and all of it."""
        time.sleep(self.chance.uniform(seconds / 2, seconds))

    # --- the end --------------------------------------------------------------------------------

    def wait_settled(self, within: float = HEAL_S) -> None:
        """Until the sources of dead workers are all adopted and committed."""
        eventually(self._all_committed, within, f"everything in the spools is committed, {self}")
        self._settle()

    def _all_committed(self) -> bool:
        marks = dict(query(self.dsn, "SELECT source::text, last_seq FROM source"))
        newest: dict[str, int] = {}
        for path in self.data_dir.rglob("*.frames"):
            for frame in frames_in(path):
                newest[path.parts[-3]] = max(newest.get(path.parts[-3], 0), frame.seq)
        dead = [p for p in self.sources() if (p / "counters").exists() and not _is_locked(p)]
        return not dead and all(marks.get(name, 0) >= seq for name, seq in newest.items())

    def wait_no_source_left(self, within: float = HEAL_S) -> None:
        """Until everything that dead workers left is delivered, and removed."""
        live = len([w for w in self.workers if w.alive])
        eventually(lambda: len(self.sources()) <= live, within, f"{self.sources()} are removed")

    def sources(self) -> list[Path]:
        """The directories of sources, live ones too."""
        root = self.data_dir / "ingest"
        return [p for p in root.iterdir() if len(p.name) == 36] if root.exists() else []

    def __str__(self) -> str:
        # The first worker is the healthy one that adopts the others.
        workers = self.workers if len(self.workers) < 4 else [self.workers[0], *self.workers[-2:]]
        logs = [w.output[-1500:] for w in workers]
        logs += [a.output[-1500:] for a in self.aggregators[-3:]]
        logs += [self.system.output[-3000:]] if self.system is not None else []
        return f"seed {self.seed}\n" + "\n---\n".join(logs)


@contextlib.contextmanager
def small_disk(where: Path, size: str) -> Iterator[Path]:
    """A tmpfs of this size at `where`, which may be filled up. Needs the right to mount."""
    where.mkdir(parents=True, exist_ok=True)
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size},mode=0777", "tmpfs", str(where)], check=True
    )
    try:
        yield where
    finally:
        subprocess.run(["umount", "-l", str(where)], check=True)


def frames_in(segment: Path) -> list[wire.Frame]:
    """The whole frames at the beginning of a segment, read without the help of `spool`."""
    found: list[wire.Frame] = []
    data, at = segment.read_bytes(), 0
    with contextlib.suppress(wire.FrameError):
        while at < len(data):
            end = at + wire.frame_length(data[at : at + wire.HEADER_BYTES])
            found.append(wire.decode(data[at:end]))
            at = end
    return found


def _is_locked(directory: Path) -> bool:
    """Whether a live process holds this source."""
    try:
        with (directory / "lock").open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    return False


def can_mount() -> bool:
    """Whether this process may mount a tmpfs."""
    if os.geteuid() != 0:
        return False
    probe = subprocess.run(
        ["unshare", "--mount", "mount", "-t", "tmpfs", "tmpfs", "/mnt"],
        capture_output=True, check=False,
    )  # fmt: skip
    return probe.returncode == 0


def fill(disk: Path, leave: int = 0) -> Path:
    """Fill the file system with one file, but for so many bytes; returns it. Again: the rest."""
    filler = disk / "filler"
    room = os.statvfs(disk)
    with filler.open("ab", buffering=0) as file:  # else closing it writes, and may fail
        left = room.f_bavail * room.f_frsize - leave
        with contextlib.suppress(OSError):
            while left > 0:
                left -= file.write(b"\0" * min(left, 65536))
    return filler


def serving(port: int) -> bool:
    """Whether somebody answers on this port."""
    return status(f"http://127.0.0.1:{port}/livez") == 200
