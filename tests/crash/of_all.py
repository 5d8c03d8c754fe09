"""Everything at once: two faults of the table at a time, drawn by the seed, for as long as it goes.

Each fault is a context: it begins, lasts while the other begins and lasts, and is over. Two of
the same part are not drawn together, since to stop what is killed already is no second fault.
"""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from tests.crash import of_servers, of_workers
from tests.crash.stage import Stage, can_mount, fill, small_disk
from tests.support.aggregators import Aggregator
from tests.support.processes import family, stopped
from tests.support.proxy import Proxy, running_proxy
from tests.support.wait import eventually

WORKERS = 3
AGGREGATORS = 2
SPOOL_DISK = "32m"
BETWEEN_S, BOTH_S, AFTER_S = 0.7, 2.5, 1.0
"""From the first fault to the second, while both last, and until the next two; at most."""
SERVING_AGAIN_S = 20.0


class Scene:
    """The stage with what the faults of this scenario act on."""

    def __init__(self, stage: Stage, proxy: Proxy) -> None:
        self.stage, self.proxy, self.chance = stage, proxy, stage.chance
        self.dsn = stage.dsn.replace(f":{stage.postgres.port}/", f":{proxy.port}/")

    def begin(self) -> None:
        self.fill_up(wait=True)
        self.stage.supervised(WORKERS)
        self.stage.load()

    def fill_up(self, wait: bool = False) -> None:
        """As many aggregators as there were."""
        for _ in range(AGGREGATORS - len(self.aggregators())):
            self.stage.aggregator(dsn=self.dsn, wait=wait)

    def aggregators(self) -> list[Aggregator]:
        return [a for a in self.stage.aggregators if a.process.poll() is None]

    def worker(self) -> int:
        """The process number of one of the workers, or 0."""
        assert self.stage.system is not None
        children = self.stage.system.children()
        return children[self.chance.choice(sorted(children))] if children else 0


Over = Callable[[Scene], AbstractContextManager[None]]


class Fault(NamedTuple):
    """One row. `part`: what it is a fault of."""

    part: str
    over: Over

    @property
    def name(self) -> str:
        return self.over.__name__.removeprefix("_").replace("_", " ")


def everything_at_once(stage: Stage, seconds: int) -> None:
    """Workers, aggregators, NATS, Postgres and disks die, hang, and lose things, two at a time."""
    with contextlib.ExitStack() as stack:
        faults = list(FAULTS)
        if can_mount():
            stage.by_minute = False
            stack.enter_context(small_disk(stage.data_dir, SPOOL_DISK))
            faults.append(Fault("disk", _spool_disk_full))
        proxy = stack.enter_context(running_proxy(stage.postgres.port))
        seen = _play(Scene(stage, proxy), faults, seconds)
        stage.notes.append(f"{sum(seen.values())} times two faults, {len(seen)} different pairs")
        stage.check(within=2 * of_servers.LAG_AFTERWARDS_S + 60)
        assert stage.system is not None
        stage.system.stop()


def _play(scene: Scene, faults: list[Fault], seconds: int) -> dict[tuple[str, str], int]:
    """Two faults after the other; how often each pair was drawn."""
    scene.begin()
    seen: dict[tuple[str, str], int] = {}
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one = scene.chance.choice(faults)
        other = scene.chance.choice([fault for fault in faults if fault.part != one.part])
        print(f"{one.name}, {other.name}", flush=True)
        with one.over(scene):
            scene.stage.play(BETWEEN_S)
            with other.over(scene):
                scene.stage.play(BOTH_S)
        scene.fill_up()
        scene.stage.play(AFTER_S)
        seen[one.name, other.name] = seen.get((one.name, other.name), 0) + 1
    return seen


@contextlib.contextmanager
def _worker_killed(scene: Scene) -> Iterator[None]:
    if pid := scene.worker():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, scene.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
    yield


@contextlib.contextmanager
def _worker_stopped(scene: Scene) -> Iterator[None]:
    """For good: the supervisor replaces it."""
    if pid := scene.worker():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGSTOP)
    yield


@contextlib.contextmanager
def _reloaded(scene: Scene) -> Iterator[None]:
    assert scene.stage.system is not None
    scene.stage.system.signal(signal.SIGHUP)
    yield


@contextlib.contextmanager
def _supervisor_killed(scene: Scene) -> Iterator[None]:
    system = scene.stage.system
    assert system is not None
    system.process.kill()
    system.process.wait()
    yield
    gone = functools.partial(of_workers.all_gone, system)
    eventually(gone, of_workers.ORPHANS_S, "no orphan is left")
    system.exit_code = 0
    scene.stage.supervised(WORKERS, ready=False)
    scene.stage.clicks_come(SERVING_AGAIN_S)


@contextlib.contextmanager
def _aggregator_killed(scene: Scene) -> Iterator[None]:
    if alive := scene.aggregators():
        number = scene.chance.choice([signal.SIGKILL, signal.SIGTERM])
        scene.chance.choice(alive).process.send_signal(number)
    yield


@contextlib.contextmanager
def _aggregator_stopped(scene: Scene) -> Iterator[None]:
    alive = scene.aggregators()
    with stopped(*(one.process.pid for one in alive[:1])):
        yield


@contextlib.contextmanager
def _commits_cut(scene: Scene) -> Iterator[None]:
    scene.proxy.every = 3
    yield
    scene.proxy.every = 0


@contextlib.contextmanager
def _nats_killed(scene: Scene) -> Iterator[None]:
    scene.stage.nats.kill()
    yield
    scene.stage.nats.start()


@contextlib.contextmanager
def _nats_stopped(scene: Scene) -> Iterator[None]:
    with stopped(scene.stage.nats.pid):
        yield


@contextlib.contextmanager
def _stream_lost(scene: Scene) -> Iterator[None]:
    """With frames in it: nobody takes them out."""
    for aggregator in scene.aggregators():
        aggregator.process.kill()
    scene.stage.play(1.0)
    of_servers.lose_messages(scene.stage)
    yield


@contextlib.contextmanager
def _backends_terminated(scene: Scene) -> Iterator[None]:
    of_servers.terminate_backends(scene.stage)
    yield


@contextlib.contextmanager
def _postgres_ended(scene: Scene) -> Iterator[None]:
    scene.stage.postgres.stop(scene.chance.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]))
    yield
    scene.stage.postgres.start()


@contextlib.contextmanager
def _postgres_stopped(scene: Scene) -> Iterator[None]:
    with stopped(*family(scene.stage.postgres.pid)):
        yield


@contextlib.contextmanager
def _spool_disk_full(scene: Scene) -> Iterator[None]:
    filler: Path = fill(scene.stage.data_dir)
    yield
    filler.unlink()


FAULTS = (
    Fault("worker", _worker_killed),
    Fault("worker", _worker_stopped),
    Fault("reload", _reloaded),
    Fault("supervisor", _supervisor_killed),
    Fault("aggregator", _aggregator_killed),
    Fault("aggregator", _aggregator_stopped),
    Fault("commit", _commits_cut),
    Fault("nats", _nats_killed),
    Fault("nats", _nats_stopped),
    Fault("nats", _stream_lost),
    Fault("postgres", _backends_terminated),
    Fault("postgres", _postgres_ended),
    Fault("postgres", _postgres_stopped),
)
