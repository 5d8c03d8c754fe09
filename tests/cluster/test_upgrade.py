"""The release before and this one side by side under load: upgraded node by node, and rolled back.

The order is that of docs/upgrade.md: aggregators first, then workers; back in reverse.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cluster import network, previous
from tests.cluster.stage import Cluster, Node
from tests.support.fix_system import PROGRAM

SEED = 1
DRAINED = (0, 3)
"""Exit codes of a stop: with 3, clicks are left for the next start to adopt."""


def replace(cluster: Cluster, node: Node, program: tuple[str, ...]) -> None:
    """Stop a node under load, start the other release on its data, and compare."""
    with node.machine.inside():
        code = node.system.stop()
    assert code in DRAINED, node.system.output[-3000:]
    node.start(program)
    cluster.clicks_come()
    cluster.check()
    cluster.load()


@pytest.mark.timeout(600)
def test_upgraded_node_by_node_and_rolled_back(tmp_path: Path) -> None:
    if reason := network.unavailable():
        pytest.skip(reason)
    old = previous.program()
    with Cluster(tmp_path, SEED) as cluster:
        for kind in ("aggregator", "ingest"):
            for n in (1, 2):
                cluster.node(kind, n, old)
        cluster.load()
        cluster.clicks_come()
        for node in (*cluster.aggregators, *cluster.ingest):
            replace(cluster, node, PROGRAM)
        for node in (*cluster.ingest, *cluster.aggregators):
            replace(cluster, node, old)
        assert cluster.check().answered > 500
