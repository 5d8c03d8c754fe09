"""Faults of aggregators, and of their connection to Postgres."""

from __future__ import annotations

import signal
import time

from tests.crash.stage import Stage
from tests.support.proxy import running_proxy

STEPS = (
    "aggregator.apply", "aggregator.before_commit", "aggregator.after_commit",
    "aggregator.acknowledge", "aggregator.broadcast",
)  # fmt: skip
DIES_WITHIN_S = 30.0


def killed_around_commit(stage: Stage, times: int) -> None:
    """One aggregator after the other kills itself around COMMIT, so many times at each step."""
    stage.worker()
    stage.load()
    for _ in range(times):
        for step in STEPS:
            doomed = stage.aggregator(f"{step}=kill@{stage.chance.randint(1, 6)}", wait=False)
            assert doomed.wait(DIES_WITHIN_S) == -signal.SIGKILL, doomed.output
    stage.aggregator()
    stage.check()


def connection_cut_at_commit(stage: Stage, seconds: int) -> None:
    """Every third COMMIT is cut, before and after the server has it, in turns."""
    with running_proxy(stage.postgres.port) as proxy:
        proxied = stage.dsn.replace(f":{stage.postgres.port}/", f":{proxy.port}/")
        stage.aggregator(dsn=proxied)
        stage.worker()
        stage.load()
        proxy.every = 3
        time.sleep(seconds)
        proxy.every = 0
        assert min(proxy.cuts.values()) > 0, proxy.cuts
        stage.notes.append(f"{proxy.cuts['before']} cut before, {proxy.cuts['after']} after")
        stage.check()


def several_killed_in_turn(stage: Stage, times: int) -> None:
    """Two aggregators, then three: each is killed in its turn while the others go on."""
    stage.worker()
    stage.load()
    for members in (2, 3):
        while len([a for a in stage.aggregators if a.process.poll() is None]) < members:
            stage.aggregator()
        for _ in range(times):
            for _ in range(members):
                eldest = next(a for a in stage.aggregators if a.process.poll() is None)
                eldest.process.kill()
                eldest.process.wait()
                stage.play(0.5)
                stage.aggregator()
    stage.check()
    for aggregator in stage.aggregators:
        assert "deadlock" not in aggregator.output
