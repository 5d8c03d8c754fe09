"""A worker that stops brings all of its clicks to Postgres, or says what is left and where.

Real workers, aggregators, NATS and Postgres.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clickmill.fields import PREFIX
from clickmill.settings import Settings
from ingest.shipping.drain import NOT_DRAINED
from ingest.worker import CONNECTIONS_S
from stack import plan
from tests.support import sql
from tests.support.aggregators import aggregator
from tests.support.fix_nats import MAX_BYTES, NatsServer
from tests.support.fix_system import QUICK, System
from tests.support.fix_worker import Worker
from tests.support.raw import ask
from tests.support.wait import eventually

LONG_S = "30"
STOPS = 5


@contextmanager
def worker(nats: NatsServer, data_dir: Path, drain_timeout: str = LONG_S) -> Iterator[Worker]:
    data_dir.mkdir(exist_ok=True)
    running = Worker(nats, data_dir, {"CLICKMILL_DRAIN_TIMEOUT": drain_timeout})
    running.start()
    try:
        yield running
    finally:
        running.stop()
        running.tap.close()


def click(running: Worker, times: int) -> None:
    for _ in range(times):
        assert ask(running.port, "POST", "/counter/7").status == 200


def drain(data_dir: Path, nats_url: str, timeout: str = LONG_S) -> tuple[int, str]:
    """`clickmill drain`: its exit code, and what it printed."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    env[f"{PREFIX}NATS_MAX_BYTES"] = str(MAX_BYTES // 2)
    command = [sys.executable, "-P", "-m", "stack.cli", "drain", str(data_dir)]
    command += ["--nats-url", nats_url, "--drain-timeout", timeout]
    done = subprocess.run(
        command, env=env, cwd=data_dir, capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout + done.stderr


def open_sources(dsn: str) -> int:
    [(n,)] = sql.query(dsn, "SELECT count(*) FROM source WHERE NOT closed")
    return int(n)


def test_a_clean_stop_closes_its_source_every_time(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    """The last click is not yet committed, nor even sealed, when the signal comes."""
    with aggregator(nats.url, database):
        for n in range(1, STOPS + 1):
            with worker(nats, tmp_path / str(n)) as running:
                click(running, 3)
                assert running.stop() == 0, running.text
                assert sql.counts(database) == {7: 3 * n}
                assert open_sources(database) == 0
                assert "left" not in running.text


def test_a_stop_without_nats_says_what_is_left_and_drain_brings_it(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    left = tmp_path / "left"
    with worker(nats, left, drain_timeout="0.5") as running:
        nats.stop()
        click(running, 12)
        assert running.stop() == NOT_DRAINED
        assert f"12 clicks are not known to be in Postgres; they are kept in {left}" in running.text
    code, text = drain(left, nats.url, timeout="0.5")
    assert code == NOT_DRAINED, text
    assert "12 clicks are not known to be in Postgres" in text
    nats.start()
    with aggregator(nats.url, database):
        for _ in range(2):  # the second finds everything done
            code, text = drain(left, nats.url)
            assert code == 0, text
            assert f"Postgres has every click of {left}." in text
            assert sql.counts(database) == {7: 12}
            assert open_sources(database) == 0


def test_drain_takes_what_a_killed_worker_has_in_its_counters(
    nats: NatsServer, database: str, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    with aggregator(nats.url, database), worker(nats, killed) as running:
        click(running, 12)
        os.kill(running.pid, signal.SIGKILL)
        eventually(lambda: not running.alive, 5, "the worker is dead")
        code, text = drain(killed, nats.url)
        assert code == 0, text
        assert sql.counts(database) == {7: 12}
        assert open_sources(database) == 0


def test_drain_leaves_a_directory_in_use_alone(nats: NatsServer, tmp_path: Path) -> None:
    used = tmp_path / "used"
    with worker(nats, used, drain_timeout="1.5") as running:
        click(running, 1)
        before = sorted((used / "ingest").iterdir())
        code, text = drain(used, nats.url)
        assert code == 1
        assert f"{used} is in use: a running worker holds {used}/ingest/" in text
        assert len(text.splitlines()) == 1, text
        assert sorted((used / "ingest").iterdir()) == before
        assert running.alive


@pytest.mark.parametrize("made", [True, False])
def test_drain_of_anything_else_is_one_sentence(tmp_path: Path, made: bool) -> None:
    other = tmp_path / "other"
    if made:
        other.mkdir()
    env = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "stack.cli", "drain", str(other), "--nats-url", "nats://x"],
        env=env, cwd=tmp_path, capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert "is not the data directory of a worker" in done.stderr
    assert other.exists() == made
    assert not made or not list(other.iterdir())


def test_clickmill_ingest_passes_the_exit_code_on(nats: NatsServer, tmp_path: Path) -> None:
    settings: dict[str, object] = {**QUICK, "nats_url": nats.url, "drain_timeout": 0.5}
    running = System("ingest", tmp_path, settings)
    try:
        running.wait_ready()
        nats.stop()
        assert running.click(7, 12) == 12
        assert running.stop() == NOT_DRAINED
        assert "12 clicks are not known to be in Postgres" in running.output
    finally:
        running.stop()


@pytest.mark.parametrize(("command", "drain_s"), [("ingest", 30.0), ("up", 1.5)])
def test_the_supervisor_waits_longer_than_a_drain_takes(command: str, drain_s: float) -> None:
    settings = Settings(nats_url="nats://x", workers=1)
    specs = [spec for group in plan.groups(command, settings, []) for spec in group.specs]
    [worker_spec] = [spec for spec in specs if spec.name == "ingest-1"]
    assert float(worker_spec.env["CLICKMILL_DRAIN_TIMEOUT"]) == drain_s
    assert worker_spec.stop_seconds >= drain_s + CONNECTIONS_S + 5
