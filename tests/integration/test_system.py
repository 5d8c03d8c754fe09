"""The whole system, as `clickmill up` runs it: what dies comes back, and the counts stay exact."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from stack.doctor.finding import Kind
from tests.support.clicker import BANNER, Clicker
from tests.support.fix_nats import NatsServer
from tests.support.fix_postgres import PostgresServer
from tests.support.fix_system import System, SystemFactory, status
from tests.support.ports import free_port
from tests.support.wait import eventually


def serving(system: System) -> bool:
    return system.click(BANNER + 1) == 1


def test_a_click_is_in_the_statistics_and_still_there_after_a_restart(
    system: SystemFactory, tmp_path: Path
) -> None:
    home = tmp_path / "a 'Straße' with \"spaces\""
    home.mkdir()
    first = system(data_dir=home)
    assert first.click(BANNER, 25) == 25
    first.wait_counts(BANNER, 25, timeout=5)
    assert first.stop(signal.SIGINT) == 0
    again = system(data_dir=home)
    again.wait_counts(BANNER, 25)
    assert again.click(BANNER, 5) == 5
    again.wait_counts(BANNER, 30)


def test_the_printed_example_works(system: SystemFactory) -> None:
    one = system()
    line = next(line for line in one.output.splitlines() if "curl " in line)
    done = subprocess.run(["sh", "-c", line], capture_output=True, text=True, check=True)
    assert '"counted"' in done.stdout
    assert '"Counts":1' in done.stdout
    for url in re.findall(r"^  (?:statistics|live page) +(\S+)", one.output, re.MULTILINE):
        assert status(url) == 200, url


def test_a_signal_stops_clicks_and_none_is_lost(system: SystemFactory, tmp_path: Path) -> None:
    one = system(data_dir=tmp_path, workers=2)
    with Clicker.at_work(one.url) as clicker:
        assert one.stop() == 0
    clicker.check(system(data_dir=tmp_path))


def test_nats_stops_and_restarts(system: SystemFactory, nats: NatsServer) -> None:
    one = system(nats_url=nats.url)
    assert one.click(BANNER, 10) == 10
    one.wait_counts(BANNER, 10)
    nats.stop()
    eventually(lambda: one.ready_status() == 503, 15, "ingest says that NATS is away")
    assert one.click(BANNER, 10) == 10
    nats.start()
    eventually(lambda: one.ready_status() == 200, 20, "ingest is ready again")
    one.wait_counts(BANNER, 20)


def test_postgres_stops_and_restarts(system: SystemFactory, own_postgres: PostgresServer) -> None:
    one = system(postgres_dsn=own_postgres.dsn)
    assert one.click(BANNER, 10) == 10
    one.wait_counts(BANNER, 10)
    own_postgres.stop(signal.SIGQUIT)
    eventually(lambda: one.ready_status(stats=True) == 503, 15, "the aggregator says so")
    assert one.click(BANNER, 10) == 10
    own_postgres.start()
    eventually(lambda: one.ready_status(stats=True) == 200, 20, "the aggregator is ready again")
    one.wait_counts(BANNER, 20)


@pytest.mark.parametrize("name", ["nats", "postgres", "aggregator"])
def test_a_killed_process_is_restarted(system: SystemFactory, name: str) -> None:
    one = system()
    with Clicker.at_work(one.url) as clicker:
        pid = one.children()[name]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: one.replaced(name, pid), 10, f"{name} is back")
        eventually(lambda: one.ready_status(stats=True) == 200, 20, "the aggregator is ready")
    assert (clicker.refused, clicker.broken) == (0, 0)
    clicker.check(one)


def test_a_repeatedly_killed_worker_is_restarted(system: SystemFactory) -> None:
    one = system()
    with Clicker.at_work(one.url) as clicker:
        for _ in range(3):
            pid = one.children()["ingest-1"]
            os.kill(pid, signal.SIGKILL)
            eventually(lambda pid=pid: one.replaced("ingest-1", pid), 5, "another worker")  # type: ignore[misc]
            eventually(lambda: serving(one), 5, "it serves")
    assert clicker.refused == 0
    clicker.check(one)


def test_a_worker_that_hangs_is_replaced(system: SystemFactory) -> None:
    one = system()
    assert one.click(BANNER, 10) == 10
    pid = one.children()["ingest-1"]
    os.kill(pid, signal.SIGSTOP)
    eventually(lambda: one.replaced("ingest-1", pid), 10, "it is replaced")
    eventually(lambda: serving(one), 5, "the new one serves")
    one.wait_counts(BANNER, 10)
    assert "sent no heartbeat" in one.output


def test_reload_replaces_every_worker_and_loses_nothing(system: SystemFactory) -> None:
    one = system(workers=2)
    before = one.children()
    with Clicker.at_work(one.url) as clicker:
        one.signal(signal.SIGHUP)
        eventually(lambda: "2 of 2 workers replaced" in one.output, 30, "the reload is done")
    after = one.children()
    assert not {before["ingest-1"], before["ingest-2"]} & set(after.values())
    assert (after["nats"], after["aggregator"]) == (before["nats"], before["aggregator"])
    assert clicker.refused == 0
    clicker.check(one)


def test_a_killed_supervisor_leaves_no_processes_behind(
    system: SystemFactory, tmp_path: Path
) -> None:
    one = system(data_dir=tmp_path, workers=2)
    with Clicker.at_work(one.url) as clicker:
        one.process.kill()
        one.process.wait()
        one.wait_gone()
        one.exit_code = 0  # nothing is left for the fixture to stop
    again = system(data_dir=tmp_path, port=one.port, stats_port=one.stats_port)
    clicker.check(again)


def test_a_second_supervisor_on_the_same_data_is_refused(system: SystemFactory) -> None:
    one = system()
    for port, stats_port in ((free_port(), free_port()), (one.port, one.stats_port)):
        done = _run("up", data_dir=one.data_dir, port=port, stats_port=stats_port)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert f"as process {one.pid}" in done.stderr
        assert "--data-dir" in done.stderr


@pytest.mark.parametrize("flag", ["--port", "--stats-port"])
def test_a_port_that_is_taken(tmp_path: Path, flag: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ports = {"port": free_port(), "stats_port": free_port()}
        ports[flag[2:].replace("-", "_")] = port
        done = _run("up", data_dir=tmp_path / "data", **ports)
    assert done.returncode == 1
    assert done.stderr == (
        f"Port {port} on 127.0.0.1 is taken by another program: stop that program, "
        f"or choose another port with {flag}.\n"
    )
    assert not (tmp_path / "data" / "postgres").exists()


def test_a_wrong_setting_is_reported_before_anything_starts(tmp_path: Path) -> None:
    done = _run("up", data_dir=tmp_path / "data", workers="many")
    assert done.returncode == 2
    assert "CLICKMILL_WORKERS is 'many': it must be a whole number from 0 to 256." in done.stderr
    assert not (tmp_path / "data").exists()


def test_a_file_that_a_start_needs_and_cannot_write(tmp_path: Path) -> None:
    config = tmp_path / "data" / "nats" / "nats.conf"
    config.with_name("nats.conf.new").mkdir(parents=True)  # the draft's name is taken
    done = _run("up", data_dir=tmp_path / "data", port=free_port(), stats_port=free_port())
    assert done.returncode == 1
    assert done.stderr == (
        f"{config} can't be written (Is a directory): free space on its disk, or choose another "
        "directory with --data-dir.\n"
    )


def test_a_worker_alone_needs_a_nats_url(tmp_path: Path) -> None:
    done = _run("ingest", data_dir=tmp_path)
    assert done.returncode == 2
    assert "CLICKMILL_NATS_URL is not set" in done.stderr


def test_a_signal_during_startup(system: SystemFactory) -> None:
    one = system(ready=False)
    eventually(lambda: (one.data_dir / "postgres.new").exists(), 10, "the database is being made")
    assert one.stop() == 0
    system(data_dir=one.data_dir).wait_counts(BANNER, 0)


def test_ingest_and_aggregator_as_separate_commands(
    system: SystemFactory, nats: NatsServer, database: str
) -> None:
    one = system("aggregator", nats_url=nats.url, postgres_dsn=database)
    two = system("ingest", nats_url=nats.url, workers=2)
    assert two.click(BANNER, 10) == 10
    one.wait_counts(BANNER, 10)
    assert set(one.children()) == {"aggregator"}
    assert set(two.children()) == {"ingest-1", "ingest-2"}


def test_doctor_passes_and_then_reports_what_is_wrong(system: SystemFactory) -> None:
    one = system()
    ports = {"port": one.port, "stats_port": one.stats_port}
    passed = _run("doctor", data_dir=one.data_dir, **ports)
    assert passed.returncode == 0, passed.stdout
    assert "All checks passed." in passed.stdout
    one.stop()
    nowhere = f"nats://127.0.0.1:{free_port()}"
    failed = _run("doctor", data_dir=one.data_dir, nats_url=nowhere, **ports)
    assert failed.returncode == Kind.NATS + Kind.POSTGRES == 48
    assert "failed  NATS: can't be reached (no answer within 3 s)" in failed.stdout
    assert failed.stderr == ""
    assert "failed  Postgres: its embedded server is not running" in failed.stdout
    assert "2 checks failed." in failed.stdout


def _run(command: str, **given: object) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if not k.startswith("CLICKMILL_")}
    env |= {f"CLICKMILL_{name.upper()}": str(value) for name, value in given.items()}
    return subprocess.run(
        [sys.executable, "-m", "stack.cli", command],
        env=env,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
