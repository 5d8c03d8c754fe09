"""The results of each section, one JSON file each, with all that a reader needs to judge them."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import msgspec

from bench.harness import machine, versions
from bench.harness.idle import LIMIT_CORES

FOLDER = Path(__file__).parents[1] / "results"
Results = dict[str, Any]
"""What one section has measured."""


def keep(
    folder: Path, name: str, command: str, results: object, how: dict[str, float] | None = None
) -> None:
    """Write a section's results; `how` has rounds, seconds, and how busy the machine was."""
    folder.mkdir(parents=True, exist_ok=True)
    record = {
        "section": name,
        "command": command,
        "when": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        **(how or {}),
        "machine": machine.facts(),
        "versions": versions.found(),
        "results": results,
    }
    text = msgspec.json.format(msgspec.json.encode(record), indent=1)
    (folder / f"{name}.json").write_bytes(text + b"\n")


def read(folder: Path) -> dict[str, Results]:
    """All records that are there, by section."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {record["section"]: record for record in records}


def origin(record: Results) -> str:
    """Where a section's results come from, in one line."""
    how = f"{record['rounds']} rounds of {record['seconds']:g} s" if record.get("rounds") else ""
    return ", ".join(part for part in (f"`{record['command']}`", how, record["when"]) if part)


def quietness(record: Results) -> str:
    """How quiet the machine was before; in bold where it was not, or was not checked."""
    busy = record.get("busy_cores_before")
    if busy is None:
        load = record.get("load_before")
        average = f" (load average {load})" if load is not None else ""
        return f"**the machine was not checked to be idle**{average}"
    if busy > LIMIT_CORES:
        return f"**measured beside other work: {busy:.2f} cores were busy with it**"
    return f"{busy:.2f} cores busy before"
