"""Batches with an Idempotency-Key, from clients that send each until it is answered."""

from __future__ import annotations

import signal
from collections.abc import Sequence

from clickmill.fields import PREFIX
from tests.crash.keyed_loader import KeyedLoader
from tests.crash.stage import Stage, Worker
from tests.support.ports import free_port
from tests.support.sql import query

STEPS = (
    "batches.make_source", "ingest.append", "ingest.appended", "ingest.fsync", "batches.stored",
    "ingest.publish", "ingest.acknowledged", "ingest.trim",
)  # fmt: skip
ADOPT_STEPS = ("adopt.lock", "adopt.remove")
AGGREGATOR_STEPS = (
    "aggregator.keys", "aggregator.before_commit", "aggregator.after_commit",
    "aggregator.acknowledge",
)  # fmt: skip
DIES_WITHIN_S = 60.0


class Nodes:
    """Two machines: each with a port, a data directory, and a worker that is well."""

    def __init__(self, stage: Stage) -> None:
        second = stage.home / "data-2"
        second.mkdir()
        self._stage = stage
        self._second = {PREFIX + "PORT": str(free_port()), PREFIX + "DATA_DIR": str(second)}
        self.ports = (stage.port, int(self._second[PREFIX + "PORT"]))
        self.healthy = [self.worker(node) for node in range(2)]

    def worker(self, node: int, failpoints: str = "") -> Worker:
        return self._stage.worker(failpoints, **(self._second if node else {}))


def batches_are_sent_again(stage: Stage, times: int) -> None:
    """Workers of two nodes die around the answer, aggregators around the claim of the keys."""
    steps = ("ingest.fsync", "batches.stored")
    _play(stage, times, steps, (), ("aggregator.keys", "aggregator.after_commit"))


def batches_killed_at_each_step(stage: Stage, times: int) -> None:
    """Workers, adopters and aggregators die at each step of a batch, on two nodes."""
    _play(stage, times, STEPS, ADOPT_STEPS, AGGREGATOR_STEPS)


def _play(
    stage: Stage, times: int, steps: Sequence[str], of_adopters: Sequence[str],
    of_aggregators: Sequence[str],
) -> None:  # fmt: skip
    stage.settings |= {"spool_keep_seconds": 1}
    healthy = stage.aggregator()
    nodes = Nodes(stage)
    loader = stage.load_batches(nodes.ports)
    for n in range(times):
        for number, step in enumerate(steps, n):
            nth = 1 if step == "batches.make_source" else stage.chance.randint(1, 4)
            _dies(nodes.worker(number % 2, f"{step}=kill@{nth}"), step)
        if of_adopters:
            nodes.healthy[0].kill()
            for step in of_adopters:
                _dies(nodes.worker(0, f"{step}=kill"), step)
            nodes.healthy[0] = nodes.worker(0)
    healthy.stop()
    for step in [*of_aggregators] * times:
        dying = stage.aggregator(f"{step}=kill@{stage.chance.randint(1, 4)}", wait=False)
        assert dying.wait(DIES_WITHIN_S) == -signal.SIGKILL, dying.output
    stage.aggregator()
    stage.check()
    _each_counted_once(stage, loader)


def _dies(worker: Worker, step: str) -> None:
    print(step, flush=True)
    assert worker.wait_death(DIES_WITHIN_S) == -signal.SIGKILL, worker.output


def _each_counted_once(stage: Stage, loader: KeyedLoader) -> None:
    assert not loader.ledger.in_flight
    assert loader.repeats > 0, "no connection broke"
    [(keys,)] = query(stage.dsn, "SELECT count(*)::int FROM idempotency_key")
    assert keys == loader.batches
    [(twice,)] = query(stage.dsn, "SELECT coalesce(sum(uncounted), 0)::int FROM source")
    stage.notes.append(
        f"{loader.batches} batches, {loader.repeats} sent again after a broken connection; "
        f"{twice} clicks of copies left out"
    )
