"""Where a click's CPU goes: perf's samples of the worker at saturation, by library and function."""

from __future__ import annotations

import re
import subprocess
import tempfile
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

from bench.harness.measure import Plan
from bench.harness.servers import LOAD_CORE
from bench.harness.system import Clickmill
from bench.load import programs, wrk

SAMPLES_A_SECOND = 1_999
"""No multiple of anything that beats in the worker."""
TOP_FUNCTIONS = 25
GRACE_SECONDS = 60.0
LINE = re.compile(
    r"^\s*(?P<share>[\d.]+)%\s+(?P<library>\S+)\s+\[(?P<ring>.)\]\s+(?P<name>.+?)\s*$"
)


def profile(plan: Plan) -> dict[str, Any]:
    """Shares of the samples, in percent."""
    perf = programs.find("perf", "linux-perf")
    with Clickmill() as system:
        return _shares(_samples(perf, system, plan.seconds))


def _samples(perf: str, system: Clickmill, seconds: float) -> str:
    """Sample the worker under load; perf's own report."""
    load = wrk.Load(system.port, LOAD_CORE, seconds + 1)
    with tempfile.TemporaryDirectory() as folder:
        data = str(Path(folder) / "perf.data")
        loading = threading.Thread(target=wrk.run, args=(load,))
        loading.start()
        try:
            _perf(
                [perf, "record", "-q", "-e", "cpu-clock", "-F", str(SAMPLES_A_SECOND), "-o", data,
                 "-p", str(system.clicking()[0]), "--", "sleep", f"{seconds:g}"],
                seconds,
            )  # fmt: skip
        finally:
            loading.join()
        fields = ["--no-children", "-F", "overhead,dso,sym", "--percent-limit", "0"]
        return _perf([perf, "report", "-q", "--stdio", "-i", data, *fields], seconds)


def _perf(command: list[str], seconds: float) -> str:
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds + GRACE_SECONDS, check=False
    )
    if done.returncode:
        raise programs.MissingProgramError(f"perf does not work here: {done.stderr.strip()[-200:]}")
    return done.stdout


def _shares(text: str) -> dict[str, Any]:
    libraries: defaultdict[str, float] = defaultdict(float)
    functions = []
    for line in text.splitlines():
        found = LINE.match(line)
        if found is None:
            continue
        share, library = float(found["share"]), _library(found["library"])
        libraries[library] += share
        functions.append({"share": share, "library": library, "name": found["name"]})
    ordered = sorted(libraries.items(), key=lambda item: -item[1])
    return {
        "libraries": {name: round(share, 1) for name, share in ordered},
        "functions": functions[:TOP_FUNCTIONS],
    }


def _library(name: str) -> str:
    """A library's name without what compilers add to it."""
    if name.startswith("[kernel") or name == "[vdso]":
        return "kernel"
    return name.partition(".cpython-")[0].partition(".so")[0]
