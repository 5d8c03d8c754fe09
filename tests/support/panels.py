"""What the committed dashboards ask, in PromQL and SQL, as Grafana would send it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).parents[2]
Dashboards = dict[str, dict[str, Any]]

_WORDS: Final = {
    "by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "le",
    "offset", "bool", "inf", "nan",
}  # fmt: skip


def dashboards() -> Dashboards:
    """The committed dashboards by file name."""
    files = sorted((ROOT / "grafana/dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text()) for path in files}


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Its panels, without the headings of rows."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def variables(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    """Its variables."""
    found: list[dict[str, Any]] = dashboard["templating"]["list"]
    return found


def promql(all_of_them: Dashboards) -> list[tuple[str, str]]:
    """(panel or annotation, expression) of all that goes to Prometheus."""
    found = []
    for name, dashboard in all_of_them.items():
        for panel in panels(dashboard):
            found += [
                (f"{name}: {panel['title']}: {target['refId']}", target["expr"])
                for target in panel["targets"]
                if "expr" in target
            ]
        for note in dashboard["annotations"]["list"]:
            if "expr" in note:
                found.append((f"{name}: annotation {note['name']}", note["expr"]))
    return found


def queries(all_of_them: Dashboards) -> list[tuple[str, str]]:
    """(panel, SQL) of all panels that ask Postgres."""
    return [
        (f"{name}: {panel['title']}", target["rawSql"])
        for name, dashboard in all_of_them.items()
        for panel in panels(dashboard)
        for target in panel["targets"]
        if "rawSql" in target
    ]


def names_in(expr: str) -> set[str]:
    """The metrics that an expression names."""
    bare = re.sub(r'"[^"]*"', "", expr)
    bare = re.sub(r"\{[^}]*\}|\[[^\]]*\]", " ", bare)
    bare = re.sub(r"\b(by|without|on|ignoring)\s*\([^)]*\)", " ", bare)
    words = re.findall(r"[A-Za-z_:][\w:]*(?!\s*\()(?![\w:])", bare)
    return {word for word in words if word not in _WORDS}


def filled(expr: str, rate_interval: str = "5s") -> str:
    """An expression with Grafana's variables replaced: every instance."""
    return expr.replace("$__rate_interval", rate_interval).replace("$instance", ".*")


def filled_sql(sql: str, since: datetime, until: datetime) -> str:
    """SQL with the macros of Grafana's Postgres datasource replaced, as it does it: all banners."""
    span = rf"\1 BETWEEN '{since:%Y-%m-%dT%H:%M:%SZ}' AND '{until:%Y-%m-%dT%H:%M:%SZ}'"
    sql = re.sub(r"\$__timeFilter\(([\w.]+)\)", span, sql).replace("${banner:sqlstring}", "'-1'")
    group = r"floor(extract(epoch from \1)/60)*60"
    sql = re.sub(r"\$__timeGroup\(([\w.]+), *\$__interval\)", group, sql)
    assert "$" not in sql, f"a variable that this test does not know: {sql}"
    return sql
