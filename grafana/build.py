"""Writes the files that Prometheus and Grafana read, and docs/metrics.md: `make docs`.

python -m grafana.build            write the files
python -m grafana.build --check    name those that are not current, and exit with 1
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import yaml
from grafana_foundation_sdk.builders.dashboard import Dashboard
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard as Model
from grafana_foundation_sdk.models.dashboard import Panel
from grafana_foundation_sdk.models.table import Options as Table

from grafana import catalogue, pipeline, rules, traffic

ROOT: Final = Path(__file__).parent.parent
DASHBOARDS: Final = {"traffic": traffic.build, "pipeline": pipeline.build}
_MADE: Final = "# Made by `make docs` from {}: change that file, not this one.\n"


def files() -> Iterator[tuple[Path, str]]:
    """(path, text) of each generated file."""
    here = Path("grafana")
    for name, build in DASHBOARDS.items():
        text = json.dumps(_finished(build()), cls=JSONEncoder, indent=2, sort_keys=True)
        yield here / "dashboards" / f"{name}.json", text + "\n"
    yield here / "prometheus" / "rules.yml", rules_text()
    yield Path("docs") / "metrics.md", catalogue.page()


def _finished(builder: Dashboard) -> Model:
    """Numbers the panels, and removes what the builders add and today's Grafana no longer has."""
    model = builder.build()
    for number, panel in enumerate(model.panels or [], start=1):
        panel.id_val = number
        if isinstance(panel, Panel) and isinstance(panel.options, Table):
            panel.options.footer = None
    for variable in (model.templating and model.templating.list_val) or []:
        variable.auto = variable.auto_count = variable.auto_min = None
    return model


def rules_text(scale: float = 1) -> str:
    """The rule file; `scale` shortens all its durations, for tests."""
    text = yaml.safe_dump(rules.rule_file(scale), sort_keys=False, width=100)
    return _MADE.format("grafana/rules.py") + text


def main(arguments: list[str]) -> int:
    """Entry; the exit code."""
    stale = [(p, text) for p, text in files() if not _holds(ROOT / p, text)]
    for path, text in stale:
        if "--check" in arguments:
            print(f"{path} is not current: run `make docs`")
            continue
        (ROOT / path).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / path).write_text(text)
        print(f"wrote {path}")
    return 1 if stale and "--check" in arguments else 0


def _holds(path: Path, text: str) -> bool:
    return path.is_file() and path.read_text() == text


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
