"""completeThrough of a real worker and a real aggregator, before the first frame is committed."""

from __future__ import annotations

import json
import time
from datetime import datetime
from pathlib import Path

from tests.support.aggregators import Aggregator, aggregator
from tests.support.fix_nats import NatsServer
from tests.support.fix_worker import Worker
from tests.support.raw import ask
from tests.support.wait import eventually


def complete_through(running: Aggregator) -> float | None:
    status, body = running.get("/stats/1")
    assert status == 200, body
    text = json.loads(body)["completeThrough"]
    return None if text is None else datetime.fromisoformat(text).timestamp()


def test_a_new_worker_is_complete_through_its_start(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    """It has counted a click and sealed nothing: the aggregator knows it by its status alone."""
    began = int(time.time())
    worker = Worker(nats, tmp_path, {"CLICKMILL_FLUSH_INTERVAL": "60"})
    worker.start()
    try:
        assert ask(worker.port, "POST", "/counter/1").status == 200
        with aggregator(nats.url, database) as running:
            eventually(lambda: running.metric("clickmill_sources_live") == 1, 10)
            eventually(lambda: complete_through(running) is not None, 10)
            through = complete_through(running)
            assert through is not None
            assert began <= through <= time.time()
    finally:
        worker.close()
