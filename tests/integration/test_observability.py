"""A real Prometheus scrapes the real system under load, and everything that a panel or a rule asks
is asked: an error fails, and so does an empty answer. SQL runs as the role that only reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import urllib.request
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg
import pytest
from prometheus_client.openmetrics import parser as open_parser
from prometheus_client.parser import text_string_to_metric_families as plain_metrics

from clickmill import bus, wire
from grafana import catalogue, rules
from tests.support.fix_prometheus import Prometheus, QueryError, promtool
from tests.support.fix_system import QUICK, System
from tests.support.panels import dashboards, filled, filled_sql, promql, queries, variables
from tests.support.ports import free_port
from tests.support.traffic import TARGET, Traffic
from tests.support.wait import eventually

DASHBOARDS = dashboards()
OPEN_METRICS = "application/openmetrics-text; version=1.0.0"


class Watched(NamedTuple):
    """The running system, what clicks on it, and what watches it."""

    system: System
    traffic: Traffic
    prometheus: Prometheus
    reader: str


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Watched]:
    home = tmp_path_factory.mktemp("watched")
    system = System("up", home, {**QUICK, "workers": 2})
    try:
        system.wait_ready()
        reader = system.address("postgres", "reader")
        register(system)
        spoil(system.address("nats"))
        prometheus = Prometheus(
            tmp_path_factory.mktemp("prometheus"), [system.port], [system.stats_port]
        )
        try:
            with Traffic(system.port, system.stats_port) as traffic:
                eventually(lambda: fresh(prometheus), 20, "metrics of every kind")
                yield Watched(system, traffic, prometheus, reader)
        finally:
            prometheus.stop()
    finally:
        assert system.stop() == 0, system.output[-4000:]


def register(system: System) -> None:
    """A banner with a target, which the workers get to know."""
    body = json.dumps({"name": "a banner", "target_url": "https://example.org/"}).encode()
    request = urllib.request.Request(
        f"{system.stats_url}/banners/{TARGET}",
        body,
        {"Content-Type": "application/json"},
        method="PUT",
    )
    urllib.request.urlopen(request, timeout=5).close()


def spoil(nats_url: str) -> None:
    """Something that is no frame, for the panels of the quarantine."""

    async def publish() -> None:
        client = await bus.connect(nats_url, "test-spoiler")
        await client.jetstream().publish(wire.delta_subject(uuid.uuid4()), b"no frame")
        await bus.close(client)

    asyncio.run(publish())


def fresh(prometheus: Prometheus) -> bool:
    """Every target answers, and rates over the rules' ranges have something to go by."""
    return (
        prometheus.targets_up()
        and prometheus.value("sum(rate(clickmill_clicks_committed_total[2s]))") > 0
        and bool(prometheus.query('clickmill_http_requests_total{route="click",status="302"}'))
        and bool(prometheus.query("clickmill_quarantine_waiting_rows > 0"))
        and bool(prometheus.query("job:clickmill_frame_lag_seconds:p99_5m >= 0"))
    )


def ask(url: str, accept: str = "") -> tuple[str, str]:
    request = urllib.request.Request(url, headers={"Accept": accept} if accept else {})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return answer.headers["Content-Type"], answer.read().decode()


@pytest.fixture(params=["ingest", "aggregator"])
def metrics_url(request: pytest.FixtureRequest, watched: Watched) -> str:
    system = watched.system
    return f"{system.url if request.param == 'ingest' else system.stats_url}/metrics"


# --- what panels and rules ask --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "expr"), promql(DASHBOARDS), ids=[where for where, _ in promql(DASHBOARDS)]
)
def test_a_panel_has_figures(watched: Watched, where: str, expr: str) -> None:
    found = eventually(lambda: watched.prometheus.query(filled(expr)), 5, f"{where}: {expr}")
    if "histogram_quantile" in expr:
        assert any(not math.isnan(float(one["value"][1])) for one in found), found


@pytest.mark.parametrize(
    ("where", "sql"), queries(DASHBOARDS), ids=[w for w, _ in queries(DASHBOARDS)]
)
def test_a_sql_panel_has_rows(watched: Watched, where: str, sql: str) -> None:
    now = datetime.now(UTC)
    asked = filled_sql(sql, now - timedelta(hours=1), now + timedelta(minutes=1))
    with psycopg.connect(watched.reader, autocommit=True) as connection:
        cursor = connection.execute(asked)
        row = cursor.fetchone()
        assert row is not None, where
        assert row != (0,), "a sum over nothing"
        columns = [column.name for column in cursor.description or ()]
    if " AS time" in sql:  # what Grafana wants of a time series
        assert columns == ["time", "metric", "value"]


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_variables_offer_something(watched: Watched, name: str) -> None:
    for variable in variables(DASHBOARDS[name]):
        if variable["name"] == "instance":
            assert variable["query"]["query"] == "label_values(clickmill_build_info, instance)"
            assert len(watched.prometheus.series("clickmill_build_info", "instance")) == 2
        elif variable["type"] == "query":
            with psycopg.connect(watched.reader, autocommit=True) as connection:
                found = connection.execute(variable["query"]).fetchall()
            assert (TARGET, "a banner") in found


def test_the_rules_are_evaluated_without_error(watched: Watched) -> None:
    found = watched.prometheus.rules()
    assert {rule["name"] for rule in found} == {
        *(recording.name for recording in rules.RECORDINGS),
        *(alert.name for alert in rules.ALERTS),
    }
    assert [rule for rule in found if rule["health"] != "ok"] == []


@pytest.mark.parametrize("recording", rules.RECORDINGS, ids=lambda recording: recording.name)
def test_a_recording_has_figures(watched: Watched, recording: rules.Recording) -> None:
    assert eventually(lambda: watched.prometheus.query(recording.name), 5)


@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_what_an_alert_looks_at_is_there(watched: Watched, alert: rules.Alert) -> None:
    # The expression is empty while all is well: what it compares must not be.
    for name in catalogue.series():
        if name in alert.expr.replace("[", " ").replace("{", " ").split():
            assert watched.prometheus.query(name), name


def test_only_provoked_alerts_fire(watched: Watched) -> None:
    # Prometheus' own first seconds, before it knows its targets, look like nobody at home.
    only_what_was_done = {"ClickmillQuarantine"}
    eventually(lambda: set(watched.prometheus.firing()) == only_what_was_done, 20)


def test_a_wrong_expression_differs_from_an_empty_one(watched: Watched) -> None:
    assert watched.prometheus.query("clickmill_no_such_metric") == []
    with pytest.raises(QueryError):
        watched.prometheus.query("rate(clickmill_clicks_total)")


# --- the role that only reads ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM banner_minute",
        "INSERT INTO banner VALUES (1, 'x', 'y')",
        "UPDATE source SET closed = true",
        "TRUNCATE quarantine",
        "CREATE TABLE mine (a int)",
        "CREATE TEMPORARY TABLE mine (a int)",
        "SELECT clickmill_drop_day(current_date)",
        "SELECT clickmill_make_partition(current_date + 100)",
        "CREATE ROLE more SUPERUSER",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "SELECT pg_read_file('postgresql.conf')",
        "SELECT * FROM pg_authid",
        "SET ROLE clickmill",
    ],
)
def test_the_reading_role_can_do_nothing_else(watched: Watched, statement: str) -> None:
    with psycopg.connect(watched.reader, autocommit=True) as connection:
        connection.execute("SET default_transaction_read_only = off")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement.encode())


def test_the_reading_role_reads_and_no_more_by_default(watched: Watched) -> None:
    with psycopg.connect(watched.reader, autocommit=True) as connection:
        row = connection.execute("SHOW default_transaction_read_only").fetchone()
        assert row == ("on",)
        for table in (
            "banner_minute",
            "rollup_quarter",
            "rollup_hour",
            "rollup_day",
            "rollup_late",
            "rollup_mark",
            "banner",
            "source",
            "quarantine",
        ):
            connection.execute(f"SELECT count(*) FROM {table}".encode())


# --- /metrics -------------------------------------------------------------------------------------


def test_promtool_accepts_both_endpoints(metrics_url: str) -> None:
    _, text = ask(metrics_url)
    done = promtool("check", "metrics", text=text)
    assert done.returncode == 0, done.stdout + done.stderr


def test_plain_text_and_open_metrics_say_the_same(metrics_url: str) -> None:
    kind, text = ask(metrics_url)
    assert kind.startswith("text/plain")
    plain = {family.name: family.type for family in plain_metrics(text)}
    kind, text = ask(metrics_url, OPEN_METRICS)
    assert kind.startswith("application/openmetrics-text")
    assert text.endswith("# EOF\n")
    parsed = open_parser.text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    opened = {family.name: family.type for family in parsed}
    info = {"clickmill_build": "info"}
    assert opened == {n: t for n, t in plain.items() if n != "clickmill_build_info"} | info


def test_everything_that_is_served_is_in_the_list(watched: Watched) -> None:
    for url, listed in (
        (watched.system.url, catalogue.ingest()),
        (watched.system.stats_url, catalogue.aggregator()),
    ):
        _, text = ask(f"{url}/metrics")
        families = list(plain_metrics(text))
        served = {f.name + ("_total" if f.type == "counter" else "") for f in families}
        assert served == {known.name for known in listed}
        labels = {known.name.removesuffix("_total"): set(known.labels) for known in listed}
        for family in families:
            for sample in family.samples:
                assert set(sample.labels) - {"le"} <= labels[family.name], family.name


def test_every_worker_reports_the_whole_node(watched: Watched) -> None:
    for _ in range(8):  # each on a new connection: the kernel picks a worker
        _, text = ask(f"{watched.system.url}/metrics")
        assert "\nclickmill_workers 2.0\n" in text
        assert "\nclickmill_workers_connected 2.0\n" in text


# --- clickmill top --------------------------------------------------------------------------------


def top(env: dict[str, str], *options: str) -> subprocess.CompletedProcess[str]:
    argv = [sys.executable, "-m", "stack.cli", "top", *options]
    env = env | {"COLUMNS": "120", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run(argv, env=env, capture_output=True, text=True, timeout=30, check=False)


def fact(shown: str, name: str) -> float:
    """The number after a name on the screen, without its unit."""
    (found,) = re.findall(rf"│ +{re.escape(name)} +([\d.,]+)", shown)
    return float(found.replace(",", ""))


def test_top_shows_the_system_once(watched: Watched) -> None:
    done = top(watched.system.env, "--once")
    assert done.returncode == 0, done.stderr
    assert 5 < fact(done.stdout, "clicks per second") < 1000
    assert 5 < fact(done.stdout, "committed per second") < 1000
    assert fact(done.stdout, "workers") == fact(done.stdout, "connected to NATS") == 2
    assert fact(done.stdout, "quarantined rows") == 1
    assert fact(done.stdout, "response time, p95") > 0
    assert len(re.findall(r"│ +\d+ +[\d,]+ +█", done.stdout)) == 10


def test_top_updates_each_second_until_ctrl_c(watched: Watched) -> None:
    master, slave = pty.openpty()
    argv = [sys.executable, "-m", "stack.cli", "top"]
    env = watched.system.env | {"TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    running = subprocess.Popen(argv, env=env, stdin=slave, stdout=slave, stderr=slave)
    os.close(slave)
    try:
        shown, times = b"", set[bytes]()
        while len(times) < 3:
            shown += os.read(master, 1 << 16)
            times = set(re.findall(rb"\d\d:\d\d:\d\d UTC", shown))
        running.send_signal(signal.SIGINT)
        threading.Thread(target=read_out, args=(master,), daemon=True).start()
        assert running.wait(5) == 0
    finally:
        running.kill()
        running.wait()
        os.close(master)


def read_out(terminal: int) -> None:
    """Reads until the other end is closed: writes to a terminal block if it is not read."""
    with contextlib.suppress(OSError):
        while os.read(terminal, 1 << 16):
            pass


def test_top_reports_a_port_that_does_not_answer(watched: Watched) -> None:
    nowhere = {"CLICKMILL_PORT": str(free_port()), "CLICKMILL_STATS_PORT": str(free_port())}
    done = top(watched.system.env | nowhere, "--once")
    assert done.returncode == 1
    assert done.stdout.count("no answer") == 4
    one = top(watched.system.env | {"CLICKMILL_STATS_PORT": str(free_port())}, "--once")
    assert one.returncode == 0
    assert fact(one.stdout, "clicks per second") > 5


# --- the sums -------------------------------------------------------------------------------------


def test_clicks_by_metric_by_ledger_and_in_postgres_are_equal_across_a_death(
    watched: Watched,
) -> None:
    system, traffic = watched.system, watched.traffic
    for name in ("ingest-1", "ingest-2"):
        pid = system.children()[name]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: replaced(system, name, pid), 10, f"{name} is replaced")  # noqa: B023
    eventually(lambda: system.ready_status() == 200, 15, "ready again")
    before = traffic.ledger.clicks
    eventually(lambda: traffic.ledger.clicks > before + 100, 10, "clicks go on")
    traffic.stop()
    low, in_flight = traffic.ledger.clicks, traffic.ledger.in_flight.total()
    high = low + in_flight
    committed = eventually(lambda: settled(watched, low), 20, "all of them are in Postgres")
    assert low <= committed <= high
    counted = eventually(lambda: told(watched, low), 10)
    assert low <= counted <= high
    assert abs(counted - committed) <= in_flight
    assert watched.prometheus.value("sum(resets(clickmill_clicks_total[1h]))") == 0


def replaced(system: System, name: str, pid: int) -> bool:
    return system.children().get(name, pid) != pid


def settled(watched: Watched, at_least: int) -> int:
    with psycopg.connect(watched.reader, autocommit=True) as connection:
        row = connection.execute(
            "SELECT coalesce(sum(clicks), 0)::bigint FROM banner_minute"
        ).fetchone()
    assert row is not None
    assert row[0] >= at_least, (row[0], at_least)
    return int(row[0])


def told(watched: Watched, at_least: int) -> int:
    value = watched.prometheus.value("sum(clickmill_clicks_total)")
    assert value >= at_least
    return int(value)
