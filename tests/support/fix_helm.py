"""Fixture `render`: the Helm chart, rendered by helm; and what its documents are held against.

The chart of NATS can't be fetched everywhere, so a stand-in has its place: what is asked of that
chart is its name, its condition, and that it is handed the values.
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest
import yaml

CHART: Final = Path(__file__).parents[2] / "deploy" / "helm" / "clickmill"
DEPENDENCY: Final = yaml.safe_load((CHART / "Chart.yaml").read_text())["dependencies"][0]
CUSTOM: Final = "monitoring.coreos.com/v1"
"""Kinds of Prometheus' operator, of which Kubernetes has no schema."""

Document = dict[str, Any]
Render = Callable[..., list[Document]]


@pytest.fixture(scope="module")
def helm() -> str:
    path = shutil.which("helm", path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip("helm is not there: `make test-helm` builds it")
    return path


@pytest.fixture(scope="module")
def kubernetes() -> Any:
    return pytest.importorskip("kubernetes_validate", reason="`make test-helm` installs it")


@pytest.fixture(scope="module")
def versions(kubernetes: Any) -> list[str]:
    """Every version of Kubernetes that is supported, oldest first."""
    found = sorted({v.rpartition(".")[0] for v in kubernetes.utils.all_versions()}, key=_number)
    least = re.search(r">=([\d.]+)\.0-0", (CHART / "Chart.yaml").read_text())
    assert least is not None
    return [version for version in found if _number(version) >= _number(least[1])]


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    """A copy of the chart that may be changed, with the stand-in for NATS."""
    home = tmp_path / "clickmill"
    shutil.copytree(CHART, home)
    stand_in = home / "charts" / DEPENDENCY["name"]
    (stand_in / "templates").mkdir(parents=True)
    version = DEPENDENCY["version"].removeprefix("~")
    about = {"apiVersion": "v2", "name": DEPENDENCY["name"], "version": version}
    (stand_in / "Chart.yaml").write_text(yaml.safe_dump(about))
    (stand_in / "templates" / "given.yaml").write_text(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: stand-in}\n"
        "data: {values: {{ .Values | toJson | quote }}}\n"
    )
    return home


@pytest.fixture
def render(helm: str, chart: Path) -> Render:
    """`render("--set", "a=b", kube="1.33")`: the documents that the chart makes."""

    def run(*arguments: str, kube: str = "1.33", release: str = "click") -> list[Document]:
        done = subprocess.run(
            [helm, "template", release, str(chart), "--kube-version", kube, *arguments],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return run


def only(documents: list[Document], kind: str, end: str = "") -> Document:
    """The one document of that kind whose name ends so."""
    (found,) = [d for d in documents if d["kind"] == kind and d["metadata"]["name"].endswith(end)]
    return found


def containers(documents: list[Document]) -> Iterator[tuple[Document, Document]]:
    """(pod's spec, container) of everything that runs."""
    for document in documents:
        template = document.get("spec", {}).get("template")
        if template:
            for container in template["spec"]["containers"]:
                yield template["spec"], container


def refusals(kubernetes: Any, documents: list[Document], version: str) -> list[str]:
    """What Kubernetes of that version does not know, a line for each document."""
    found = []
    for document in documents:
        if document["apiVersion"] == CUSTOM:
            continue
        try:
            kubernetes.validate(document, version, strict=True)
        except kubernetes.ValidationError as error:
            found.append(f"{document['kind']}: {error.message}")
    return found
