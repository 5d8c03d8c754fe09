"""Faults of aggregators, and of their connection to Postgres."""

from __future__ import annotations

import signal
import time

from tests.crash.stage import Stage
from tests.support.proxy import running_proxy
from tests.support.sql import assert_rollups_equal_minutes, query

STEPS = (
    "aggregator.apply", "aggregator.before_commit", "aggregator.after_commit",
    "aggregator.acknowledge", "aggregator.broadcast",
)  # fmt: skip
ROLLUP_STEPS = (
    "rollup.close", "rollup.closed", "rollup.folded", "rollup.derived", "rollup.before_commit",
    "rollup.committed",
)  # fmt: skip
DIES_WITHIN_S = 30.0
# As on a database that was not rolled up for two hours: it is derived from the minutes again.
PUT_MARK_BACK = """
UPDATE rollup_mark SET closing = closing - interval '2 hours',
    quarter = quarter - interval '2 hours', hour = hour - interval '2 hours',
    day = date_trunc('day', hour - interval '2 hours', 'UTC')
"""


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


def killed_while_rolling_up(stage: Stage, times: int) -> None:
    """One aggregator after the other kills itself in a rollup, so many times at each step."""
    stage.worker()
    stage.load()
    stage.aggregator().stop()  # the tables are there
    for _ in range(times):
        for step in ROLLUP_STEPS:
            query(stage.dsn, PUT_MARK_BACK)
            doomed = stage.aggregator(f"{step}=kill", wait=False)
            assert doomed.wait(DIES_WITHIN_S) == -signal.SIGKILL, doomed.output
            assert_rollups_equal_minutes(stage.dsn)
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
