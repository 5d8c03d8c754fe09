"""Prometheus' own tool takes our configuration and rules, and our cases of them pass."""

from __future__ import annotations

from pathlib import Path

from grafana import build, rules
from tests.support.fix_prometheus import SCALE, promtool

ROOT = Path(__file__).parents[2]


def test_promtool_takes_configuration_and_rules(tmp_path: Path) -> None:
    for name in ("prometheus.yml", "rules.yml"):
        (tmp_path / name).write_bytes((ROOT / "grafana/prometheus" / name).read_bytes())
    (tmp_path / "stats_token").write_text("none")
    assert (
        done := promtool("check", "config", str(tmp_path / "prometheus.yml"))
    ).returncode == 0, done
    rules_file = str(tmp_path / "rules.yml")
    assert (
        done := promtool("check", "rules", "--lint=all", "--lint-fatal", rules_file)
    ).returncode == 0, done


def test_the_accelerated_rules_are_valid(tmp_path: Path) -> None:
    (tmp_path / "rules.yml").write_text(build.rules_text(SCALE))
    done = promtool("check", "rules", "--lint-fatal", str(tmp_path / "rules.yml"))
    assert done.returncode == 0, done
    assert rules.scaled("x[5m] / y[30s]", 0.1) == "x[30000ms] / y[3000ms]"


def test_promtools_cases_pass() -> None:
    done = promtool("test", "rules", str(ROOT / "grafana/prometheus/tests/rules_test.yml"))
    assert done.returncode == 0, done.stdout + done.stderr
