"""`clickmill doctor` against a real Postgres, with a clock that is wrong."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from clickmill.fields import PREFIX
from stack.doctor.finding import Kind
from tests.support.ports import free_port


@pytest.mark.parametrize(("offset", "way"), [("+90s", "ahead of"), ("-90s", "behind")])
def test_a_clock_that_differs_from_that_of_postgres(
    database: str, tmp_path: Path, offset: str, way: str
) -> None:
    settings = {
        "POSTGRES_DSN": database, "DATA_DIR": tmp_path, "PORT": free_port(),
        "STATS_PORT": free_port(),
    }  # fmt: skip
    env = {k: v for k, v in os.environ.items() if not k.startswith(PREFIX)}
    env |= {PREFIX + name: str(value) for name, value in settings.items()}
    command = [sys.executable, "-P", "-m", "stack.cli", "doctor"]
    right, wrong = (
        subprocess.run(words, env=env, capture_output=True, text=True, timeout=60, check=False)
        for words in (command, ["faketime", "-f", offset, *command])
    )
    assert "ok      clock: differs by 0" in right.stdout
    assert right.returncode == Kind.NATS
    assert "failed  clock: is 9" in wrong.stdout or "failed  clock: is 8" in wrong.stdout
    assert f"s {way} that of Postgres" in wrong.stdout
    assert wrong.returncode == Kind.NATS + Kind.MACHINE
