"""Dashboards, rules and the pages made from code: current, known to Grafana's schema, readable.

A real Grafana can't be started from the package registries. What a dashboard's panels ask is put
to a real Prometheus and a real Postgres in tests/integration/test_observability.py.
"""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from grafana import build, catalogue, rules
from grafana.panels import POSTGRES_TYPE
from tests.support.grafana_schema import problems
from tests.support.panels import ROOT, dashboards, names_in, panels, promql, queries, variables

NOT_OURS = {"up", "ALERTS"}
RECORDED = {recording.name for recording in rules.RECORDINGS}
DASHBOARDS = dashboards()
PANELS = [(f"{name}: {p['title']}", p) for name, d in DASHBOARDS.items() for p in panels(d)]
EXPRESSIONS = [(where, expr) for where, expr in promql(DASHBOARDS)]
RULES = [r.expr for r in rules.RECORDINGS] + [a.expr for a in rules.ALERTS]


def unknown_metrics(expr: str) -> set[str]:
    return names_in(expr) - catalogue.series() - RECORDED - NOT_OURS


@pytest.mark.parametrize(
    ("path", "text"),
    list(build.files()),
    ids=lambda value: value.name if isinstance(value, Path) else "",
)
def test_the_committed_files_are_what_the_code_generates(path: Path, text: str) -> None:
    assert (ROOT / path).read_text() == text, "run `make docs`"


@pytest.mark.parametrize("name", DASHBOARDS)
def test_the_dashboards_fit_grafanas_schema(name: str) -> None:
    assert problems(DASHBOARDS[name]) == []


@pytest.mark.parametrize(
    ("where", "key", "value"),
    [
        (("options",), "showLegends", True),
        (("options", "legend"), "displayMode", "grid"),
        (("fieldConfig", "defaults", "custom"), "lineWidth", "thick"),
        (("fieldConfig", "defaults"), "units", "s"),
        (("targets", 0), "expression", "up"),
        (("gridPos",), "h", "8"),
        ((), "kind", "timeseries"),
    ],
)
def test_the_schema_rejects_errors(where: tuple[Any, ...], key: str, value: object) -> None:
    spoiled = copy.deepcopy(DASHBOARDS["traffic"])
    place = next(p for p in panels(spoiled) if p["type"] == "timeseries")
    for step in where:
        place = place[step]
    place[key] = value
    assert problems(spoiled)


@pytest.mark.parametrize(("name", "panel"), PANELS, ids=[name for name, _ in PANELS])
def test_a_panel_has_a_description(name: str, panel: dict[str, Any]) -> None:
    assert panel["title"]
    assert panel["description"].endswith(".")
    assert panel["fieldConfig"]["defaults"]["unit"]
    assert panel["targets"]
    for target in panel["targets"]:
        assert target["datasource"]["uid"] in ("${prometheus}", "${postgres}")


@pytest.mark.parametrize("name", DASHBOARDS)
def test_stats_that_can_be_bad_have_thresholds(name: str) -> None:
    for panel in panels(DASHBOARDS[name]):
        if panel["type"] == "stat":
            assert panel["fieldConfig"]["defaults"]["thresholds"]["steps"][0]["value"] is None


@pytest.mark.parametrize("name", DASHBOARDS)
def test_panels_have_ids_and_places_of_their_own(name: str) -> None:
    cells: set[tuple[int, int]] = set()
    everything = DASHBOARDS[name]["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(set(ids)) == len(ids)
    for panel in everything:
        g = panel["gridPos"]
        mine = {
            (x, y) for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])
        }
        assert g["x"] + g["w"] <= 24
        assert not mine & cells, panel["title"]
        cells |= mine


@pytest.mark.parametrize(("where", "expr"), EXPRESSIONS, ids=[where for where, _ in EXPRESSIONS])
def test_every_metric_of_a_panel_is_defined_by_the_code(where: str, expr: str) -> None:
    assert names_in(expr)
    assert not unknown_metrics(expr)


@pytest.mark.parametrize("expr", RULES)
def test_every_metric_of_a_rule_is_defined_by_the_code(expr: str) -> None:
    assert names_in(expr)
    assert not unknown_metrics(expr)


def test_a_metric_that_is_not_defined_is_found() -> None:
    assert unknown_metrics("sum(rate(clickmill_clicks_totals[5m]))") == {"clickmill_clicks_totals"}
    assert unknown_metrics('clickmill_clicks{job="clickmill-ingest"}') == {"clickmill_clicks"}
    assert not unknown_metrics('sum by (job) (up{job="clickmill-ingest"})')


def test_all_names_of_the_contract_exist() -> None:
    labels = {known.name: known.labels for known in (*catalogue.ingest(), *catalogue.aggregator())}
    assert labels["clickmill_http_requests_total"] == ("method", "route", "status")
    kinds = {known.name: known.kind for known in (*catalogue.ingest(), *catalogue.aggregator())}
    for name in ("clickmill_http_request_duration_seconds", "clickmill_commit_duration_seconds"):
        assert kinds[name] == "histogram"
    for name in (
        "clickmill_clicks_total",
        "clickmill_spool_bytes",
        "clickmill_spool_frames",
        "clickmill_publish_failures_total",
        "clickmill_frames_applied_total",
        "clickmill_frames_duplicate_total",
        "clickmill_freshness_seconds",
    ):
        assert name in kinds


def test_one_name_for_one_thing() -> None:
    """What a worker sends is a frame in every metric, and each part has a prefix of its own."""
    assert not [name for name in catalogue.series() if "delta" in name]
    assert all(known.name.startswith("clickmill_") for known in catalogue.ingest())
    labels = {known.name: known.labels for known in catalogue.aggregator()}
    assert labels["clickmill_quarantined_total"] == ("reason",)
    assert "clickmill_frames_shed_total" in labels


def test_no_label_can_hold_a_banner_or_a_source() -> None:
    labels = {label for k in (*catalogue.ingest(), *catalogue.aggregator()) for label in k.labels}
    assert labels <= {"method", "route", "status", "reason", "version", "python", "granian"}


def test_each_metric_says_what_it_means_once() -> None:
    for side in (catalogue.ingest(), catalogue.aggregator()):
        assert len({known.name for known in side}) == len(side)
        assert all(len(known.meaning) > 10 for known in side)


def test_datasources_are_those_that_the_dashboards_ask() -> None:
    path = ROOT / "grafana/provisioning/datasources/clickmill.yml"
    types = {source["type"] for source in yaml.safe_load(path.read_text())["datasources"]}
    assert types == {"prometheus", POSTGRES_TYPE}
    for dashboard in DASHBOARDS.values():
        asked = {v["query"] for v in variables(dashboard) if v["type"] == "datasource"}
        assert asked == types


def test_the_sql_targets_are_as_grafanas_editor_stores_them() -> None:
    # Of Grafana's own type SQLQuery; the builders have no model of this datasource.
    known = {"datasource", "editorMode", "format", "rawQuery", "rawSql", "refId"}
    targets = [
        t for d in DASHBOARDS.values() for p in panels(d) for t in p["targets"] if "rawSql" in t
    ]
    assert len(targets) == len(queries(DASHBOARDS)) > 5
    for target in targets:
        assert set(target) == known
        assert target["format"] in ("table", "time_series")


# --- rules ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("alert", rules.ALERTS, ids=lambda alert: alert.name)
def test_an_alert_has_cases_a_sentence_and_a_heading(alert: rules.Alert) -> None:
    cases = yaml.safe_load((ROOT / "grafana/prometheus/tests/rules_test.yml").read_text())["tests"]
    mine = [c for t in cases for c in t["alert_rule_test"] if c["alertname"] == alert.name]
    assert any(case["exp_alerts"] for case in mine), "no case in which it fires"
    assert any(not case["exp_alerts"] for case in mine), "no case in which it does not"
    assert alert.todo.endswith(".")
    assert alert.severity in ("warning", "critical")
    headings = re.findall(r"^## (\w+)$", (ROOT / rules.RUNBOOK).read_text(), re.MULTILINE)
    assert alert.name in headings
    assert alert.anchor == alert.name.lower()


def test_the_runbook_has_no_heading_without_an_alert() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / rules.RUNBOOK).read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alert.name for alert in rules.ALERTS)


def test_the_runbook_names_settings_and_metrics_that_exist() -> None:
    from clickmill.settings import FIELDS

    text = (ROOT / rules.RUNBOOK).read_text()
    assert set(re.findall(r"\bCLICKMILL_\w+", text)) <= {field.env for field in FIELDS}
    assert set(re.findall(r"\bclickmill_\w+", text)) <= catalogue.series()


def test_the_dashboards_are_small_enough_to_read() -> None:
    for path in (ROOT / "grafana/dashboards").glob("*.json"):
        assert len(json.loads(path.read_text())["panels"]) <= 32
