"""The release before and this one side by side under load: upgraded node by node, and rolled back.

The order is that of docs/upgrade.md: aggregators first, then workers; back in reverse. Aggregators
of the release before can't write to the tables of this one (COMPATIBLE_FROM in
aggregator/postgres/migrations.py), so they are not rolled back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.cluster import network, previous
from tests.cluster.stage import Cluster, Node
from tests.support.fix_system import PROGRAM
from tests.support.wait import eventually

SEED = 1
DRAINED = (0, 3)
"""Exit codes of a stop: with 3, clicks are left for the next start to adopt."""


def replace(cluster: Cluster, node: Node, program: Sequence[str]) -> None:
    """Stop a node under load, and start the other release on its data."""
    with node.machine.inside():
        code = node.system.stop()
    assert code in DRAINED, node.system.output[-3000:]
    node.start(program)
    cluster.clicks_come()


def check(cluster: Cluster) -> None:
    """Every click so far is in Postgres exactly once; the load goes on."""
    cluster.check()
    cluster.load()


@pytest.mark.timeout(600)
def test_upgraded_node_by_node_and_workers_rolled_back(tmp_path: Path) -> None:
    if reason := network.unavailable():
        pytest.skip(reason)
    old = previous.program()
    with Cluster(tmp_path, SEED) as cluster:
        for kind in ("aggregator", "ingest"):
            for n in (1, 2):
                cluster.node(kind, n, old)
        cluster.load()
        cluster.clicks_come()
        first, second = cluster.aggregators
        replace(cluster, first, PROGRAM)
        eventually(
            lambda: "cannot insert into view" in second.system.output, 60,
            "the aggregator of the release before can't write to the new tables",
        )  # fmt: skip
        with second.machine.inside():
            assert second.system.stop() == 0
        second.start(old, ready=False)
        eventually(
            lambda: 'cannot create index on relation "banner_hour"' in second.system.output, 60,
            "nor after a restart, when it would make the tables that it misses",
        )  # fmt: skip
        replace(cluster, second, PROGRAM)
        check(cluster)
        for program in (PROGRAM, old):
            for node in cluster.ingest:
                replace(cluster, node, program)
                check(cluster)
        assert cluster.check().answered > 500
