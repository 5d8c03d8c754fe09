"""What the people who carry on the work lean on: workflow, hooks, versions, `make` for one test."""

from __future__ import annotations

import json
import re
import subprocess
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from tests.mutants import table
from tests.mutants.known import KNOWN

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text())
STEPS = [step for job in WORKFLOW["jobs"].values() for step in job["steps"]]
PYTHONS = [
    found[1]
    for line in PROJECT["classifiers"]
    if (found := re.search(r"Python :: (3\.\d+)$", line))
]


def test_the_workflow_fits_its_schema() -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/github-workflows.json"
    check = jsonschema.Draft7Validator(json.loads(vendored.read_text()))
    # YAML 1.1 takes the key `on` for a truth.
    workflow = {"on" if key is True else key: value for key, value in WORKFLOW.items()}
    check.validate(workflow)
    with pytest.raises(jsonschema.ValidationError):
        check.validate(workflow | {"jobs": {"test": {"run-on": "ubuntu-24.04"}}})


@pytest.mark.parametrize("job", ["test", "package"])
def test_the_workflow_runs_on_every_promised_python(job: str) -> None:
    assert WORKFLOW["jobs"][job]["strategy"]["matrix"]["python"] == PYTHONS
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


def test_the_workflow_calls_existing_targets_and_scripts() -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    calls = [step["run"] for step in STEPS if "run" in step]
    assert {call.split()[1] for call in calls if call.startswith("make ")} <= set(targets)
    scripts = [call.split()[0] for call in calls if call.startswith("scripts/")]
    assert scripts
    assert all((ROOT / script).exists() for script in scripts)


def test_the_hook_before_a_commit_is_make_lint() -> None:
    config = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())
    assert [hook["entry"] for repo in config["repos"] for hook in repo["hooks"]] == ["make lint"]


def test_the_changelog_has_this_version() -> None:
    text = (ROOT / "CHANGELOG.md").read_text()
    assert re.search(
        rf"^## {re.escape(PROJECT['version'])} - \d{{4}}-\d\d-\d\d$", text, re.MULTILINE
    )


def test_security_points_to_the_projects_advisories() -> None:
    assert PROJECT["urls"]["Security"] in (ROOT / "SECURITY.md").read_text()


@pytest.mark.parametrize(
    ("arguments", "needs"),
    [
        ("tests/unit/test_wire.py", False),
        ("-x tests/unit/test_wire.py::test_a_frame_survives_encoding_and_decoding", False),
        ("tests/unit tests/browser", True),
        ("", True),
    ],
)
def test_a_unit_test_needs_no_browser_nor_prometheus(
    arguments: str, needs: bool, tmp_path: Path
) -> None:
    empty = [f"VENV={tmp_path}/venv", f"PAGE={tmp_path}/page", f"ARGS={arguments}"]
    asked = subprocess.run(
        ["make", "-n", "test", *empty], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert "requirements-dev.lock" in asked
    assert ("scripts/os-packages test" in asked) is needs
    assert ("scripts/page" in asked) is needs


def test_the_known_mutants_are_still_in_the_code() -> None:
    for mutant in KNOWN:
        file, _, test = mutant.test.partition("::")
        assert mutant.old in table.code_file(ROOT, mutant.file).read_text(), mutant.name
        assert f"def {test}(" in table.test_file(ROOT, file).read_text(), mutant.name


def test_every_mutated_module_and_its_tests_exist() -> None:
    for module, tests in table.TESTS.items():
        assert table.code_file(ROOT, f"{module}.py"), module
        for test in tests:
            file, _, name = test.partition("::")
            text = table.test_file(ROOT, f"{file}.py").read_text()
            assert f"def {name}" in text, test
