"""Every line of every process has a time and a level, as text and as JSON."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess

import pytest

from tests.support.fix_system import PROGRAM, SystemFactory
from tests.support.wait import eventually

TEXT = re.compile(
    r"[\w-]+ +\| \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z (DEBUG|INFO|WARNING|ERROR|CRITICAL) +\S.*"
)
PROCESSES = {"clickmill", "nats", "postgres", "aggregator", "ingest-1"}


@pytest.mark.parametrize("kind", ["text", "json"])
def test_all_processes_log_in_one_format(system: SystemFactory, kind: str) -> None:
    one = system(log_format=kind, log_level="debug")
    worker = one.children()["ingest-1"]
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: "killed by SIGKILL" in one.output, 20, "the supervisor has noticed")
    eventually(lambda: one.replaced("ingest-1", worker), 20, "another worker runs")
    one.stop()
    lines = one.output.splitlines()
    if kind == "text":
        addresses = slice(lines.index("Clickmill is ready."), lines.index("Press Ctrl-C to stop."))
        del lines[addresses]
        others = [line for line in lines if line and not TEXT.fullmatch(line)]
        assert others == ["Press Ctrl-C to stop."]
        names = {line.partition("|")[0].strip() for line in lines if "|" in line}
        assert any("WARNING" in line and "killed by SIGKILL" in line for line in lines)
    else:
        records = [json.loads(line) for line in lines]
        names = {record["process"] for record in records}
        needed, optional = {"time", "level", "message", "process"}, {"logger", "traceback"}
        assert all(needed <= record.keys() <= needed | optional for record in records)
        [killed] = [record for record in records if "killed by SIGKILL" in record["message"]]
        assert (killed["level"], killed["process"]) == ("warning", "clickmill")
    assert names == PROCESSES


def test_why_it_does_not_start_is_a_record_too(system: SystemFactory) -> None:
    one = system()
    env = one.env | {"CLICKMILL_LOG_FORMAT": "json", "CLICKMILL_PROT": "1"}
    done = subprocess.run(
        [*PROGRAM, "up"], env=env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    warning, error = map(json.loads, done.stderr.splitlines())
    assert warning["level"] == "warning"
    assert "did you mean CLICKMILL_PORT?" in warning["message"]
    assert error["level"] == "critical"
    assert "already running" in error["message"]
