"""Everything at once: the faults of the other scenarios in a random order, some upon others."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable

from tests.crash import of_servers
from tests.crash.stage import Stage

WORKERS = 3
AGGREGATORS = 2


def everything_at_once(stage: Stage, seconds: int) -> None:
    """Workers, aggregators, NATS and Postgres die, hang, and lose things, for so long."""
    for _ in range(AGGREGATORS):
        stage.aggregator()
    stage.supervised(WORKERS)
    stage.load()
    faults: list[Callable[[Stage], None]] = [
        _kill_worker, _kill_worker, _kill_worker, _kill_aggregator, _kill_aggregator, _reload,
        _restart_nats, _lose_messages, _terminate, _restart_postgres, _both,
    ]  # fmt: skip
    seen = 0
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        stage.chance.choice(faults)(stage)
        seen += 1
        stage.play(1.5)
        _fill_up(stage)
    stage.notes.append(f"{seen} faults")
    stage.check()


def _fill_up(stage: Stage) -> None:
    alive = [a for a in stage.aggregators if a.process.poll() is None]
    for _ in range(AGGREGATORS - len(alive)):
        stage.aggregator(wait=False)


def _kill_worker(stage: Stage) -> None:
    assert stage.system is not None
    children = stage.system.children()
    if children:
        pid = children[stage.chance.choice(sorted(children))]
        try:
            os.kill(pid, stage.chance.choice([signal.SIGKILL, signal.SIGKILL, signal.SIGTERM]))
        except ProcessLookupError:
            return


def _kill_aggregator(stage: Stage) -> None:
    alive = [a for a in stage.aggregators if a.process.poll() is None]
    if alive:
        stage.chance.choice(alive).process.send_signal(
            stage.chance.choice([signal.SIGKILL, signal.SIGTERM])
        )


def _reload(stage: Stage) -> None:
    assert stage.system is not None
    stage.system.signal(signal.SIGHUP)


def _restart_nats(stage: Stage) -> None:
    stage.nats.kill()
    stage.play(2.0)
    stage.nats.start()


def _lose_messages(stage: Stage) -> None:
    for aggregator in stage.aggregators:
        if aggregator.process.poll() is None:
            aggregator.process.kill()
    stage.play(1.0)
    of_servers.lose_messages(stage)


def _terminate(stage: Stage) -> None:
    of_servers.terminate_backends(stage)


def _restart_postgres(stage: Stage) -> None:
    stage.postgres.stop(stage.chance.choice([signal.SIGINT, signal.SIGQUIT, signal.SIGKILL]))
    stage.play(2.0)
    stage.postgres.start()


def _both(stage: Stage) -> None:
    """Both away, and workers die meanwhile."""
    stage.nats.kill()
    stage.postgres.stop(signal.SIGKILL)
    for _ in range(2):
        _kill_worker(stage)
        stage.play(1.0)
    stage.nats.start()
    stage.postgres.start()
