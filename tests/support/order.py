"""In what order tests are dealt to pytest-xdist's processes: the long ones first.

Why: most tests wait, and a few wait for long. One of those begun last runs alone while the other
processes are done. Where each test of a file has servers of its own the tests are dealt one by
one; all other files are dealt whole, so that what their tests share is started once.
"""

from __future__ import annotations

from typing import Any, Final

import pytest
from xdist.scheduler import LoadScopeScheduling

LONG: Final = (
    "tests/integration/test_observability_alerts.py",
    "tests/integration/test_locust_short.py",
    "tests/integration/test_observability.py",
    "tests/crash/test_crash.py",
    "tests/cluster/test_cluster.py",
    "tests/cluster/test_upgrade.py",
    "tests/cluster/test_replicas.py",
    "tests/integration/test_backup.py",
    "tests/browser/test_start_page.py",
    "tests/browser/test_script.py",
    "tests/browser/test_page_structure.py",
    "tests/browser/test_live_page.py",
    "tests/browser/test_installed.py",
    "tests/integration/test_aggregators.py",
    "tests/integration/test_consumer.py",
    "tests/integration/test_system.py",
    "tests/integration/test_system_faults.py",
    "tests/integration/test_replay.py",
    "tests/hostile/test_slow.py",
    "tests/integration/test_bodies.py",
    "tests/clients/test_clients.py",
    "tests/integration/test_drain.py",
    "tests/integration/test_sources.py",
    "tests/integration/test_idempotency.py",
    "tests/integration/test_import.py",
    "tests/integration/test_rollup.py",
    "tests/integration/test_nats_refuses.py",
    "tests/integration/test_max_payload.py",
    "tests/integration/test_proxies_load.py",
    "tests/integration/test_bench_run.py",
    "tests/integration/test_http_ingest_system.py",
    "tests/hostile/test_other_port.py",
    "tests/integration/test_slot.py",
    "tests/integration/test_api_live.py",
    "tests/integration/test_retention.py",
    "tests/integration/test_embedded.py",
    "tests/integration/test_embedded_probes.py",
    "tests/integration/test_proxies.py",
    "tests/integration/test_api_conventions.py",
    "tests/model/test_model.py",
)
"""From a minute in all down to ten seconds; the rest follows as it was collected."""
ONE_BY_ONE: Final = frozenset(
    {
        "tests/integration/test_locust_short.py",
        "tests/crash/test_crash.py",
        "tests/cluster/test_cluster.py",
        "tests/integration/test_aggregators.py",
        "tests/integration/test_consumer.py",
        "tests/integration/test_system.py",
        "tests/integration/test_system_faults.py",
        "tests/integration/test_replay.py",
        "tests/integration/test_proxies_load.py",
        "tests/integration/test_http_ingest_system.py",
        "tests/hostile/test_other_port.py",
        "tests/integration/test_slot.py",
        "tests/integration/test_embedded.py",
        "tests/integration/test_embedded_probes.py",
    }
)
_RANKS: Final = {file: rank for rank, file in enumerate(LONG)}


def file_of(nodeid: str) -> str:
    return nodeid.partition("::")[0]


class LongestFirst(LoadScopeScheduling):  # type: ignore[misc]  # untyped
    """Deals files, or single tests, in the order in which they were collected."""

    def _split_scope(self, nodeid: str) -> str:
        file = file_of(nodeid)
        return nodeid if file in ONE_BY_ONE else file


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: _RANKS.get(file_of(item.nodeid), len(LONG)))


@pytest.hookimpl(tryfirst=True, optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LongestFirst:
    config.option.loadscopereorder = False
    return LongestFirst(config, log)
