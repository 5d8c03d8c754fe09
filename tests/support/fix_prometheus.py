"""A real Prometheus that scrapes a real system, with the project's own rules in a hurry.

prometheus = Prometheus(directory, ingest=[running.port], aggregator=[running.stats_port])
prometheus.query("up"); prometheus.firing()
"""

from __future__ import annotations

import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any, Final

import yaml

from grafana import build, rules
from tests.support.ports import free_port
from tests.support.wait import eventually

READY_S: Final = 20.0
STOP_S: Final = 10.0
SCRAPE: Final = "500ms"
SCALE: Final = 1 / 30
"""`for: 1m` becomes two seconds, and a range of five minutes ten."""


class QueryError(AssertionError):
    """Prometheus refused an expression."""


def program(name: str) -> str:
    """The path of `prometheus` or `promtool`."""
    path = shutil.which(name)
    assert path, f"{name} is missing: `make test` installs it, or apt-get install prometheus"
    return path


def promtool(*arguments: str, text: str = "") -> subprocess.CompletedProcess[str]:
    """Runs promtool; its output is in `stdout` and `stderr`."""
    argv = [program("promtool"), *arguments]
    return subprocess.run(argv, input=text, capture_output=True, text=True, timeout=60, check=False)


class Prometheus:
    """One server; ports are on this machine. `stop` must be called."""

    def __init__(
        self, directory: Path, ingest: list[int], aggregator: list[int], scale: float = SCALE
    ) -> None:
        self.port = free_port()
        config = self._config(directory, ingest, aggregator, scale)
        self._log = (directory / "prometheus.log").open("wb")
        self._process = subprocess.Popen(
            [
                program("prometheus"),
                f"--config.file={config}",
                f"--storage.tsdb.path={directory / 'tsdb'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
                "--log.level=warn",
            ],
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        try:
            eventually(self._is_ready, READY_S, "Prometheus is ready")
        except AssertionError:
            self.stop()
            raise

    def _config(self, home: Path, ingest: list[int], aggregator: list[int], scale: float) -> Path:
        (home / "rules.yml").write_text(build.rules_text(scale))
        jobs = {rules.INGEST: ingest, rules.AGGREGATOR: aggregator}
        config = {
            "global": {
                "scrape_interval": SCRAPE,
                "scrape_timeout": SCRAPE,
                "evaluation_interval": SCRAPE,
            },
            "rule_files": ["rules.yml"],
            "scrape_configs": [
                {
                    "job_name": job,
                    "static_configs": [{"targets": [f"127.0.0.1:{port}" for port in ports]}],
                }
                for job, ports in jobs.items()
            ],
        }
        path = home / "prometheus.yml"
        path.write_text(yaml.safe_dump(config))
        return path

    def _is_ready(self) -> bool:
        assert self._process.poll() is None, Path(self._log.name).read_text()
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/-/ready", timeout=2) as answer:
            return bool(answer.status == 200)

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"http://127.0.0.1:{self.port}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            with error:
                raise QueryError(error.read().decode()) from error

    def query(self, expr: str) -> list[dict[str, Any]]:
        """The series of an expression, as of now. Raises QueryError."""
        found: list[dict[str, Any]] = self._get("query", query=expr)["result"]
        return found

    def value(self, expr: str) -> float:
        """The one value of an expression. AssertionError where there is none, or several."""
        found = self.query(expr)
        assert len(found) == 1, f"{expr}: {found}"
        return float(found[0]["value"][1])

    def series(self, match: str, label: str) -> list[str]:
        """The values of a label, as Grafana asks for those of a variable."""
        found: list[str] = self._get(f"label/{label}/values", **{"match[]": match})
        return found

    def firing(self) -> dict[str, dict[str, Any]]:
        """The alerts that fire now, by name."""
        alerts = self._get("alerts")["alerts"]
        return {a["labels"]["alertname"]: a for a in alerts if a["state"] == "firing"}

    def rules(self) -> list[dict[str, Any]]:
        """All rules with their health."""
        return [rule for group in self._get("rules")["groups"] for rule in group["rules"]]

    def targets_up(self) -> bool:
        """Whether the last scrape of every target worked."""
        targets = self._get("targets")["activeTargets"]
        return bool(targets) and all(target["health"] == "up" for target in targets)

    def stop(self) -> None:
        """Ends it, and waits for that."""
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        finally:
            self._process.kill()
            self._process.wait()
            self._log.close()
