"""docs/benchmarks.md from the figures that are there: the part between the two marks is ours.

What stands outside the marks is written by hand (where the time goes, what was tried) and kept.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from bench import picture, tables
from bench.goals import NOT_RUN, goals
from bench.servers import ROOT

DOCS = ROOT / "docs"
PAGE, PICTURE = "benchmarks.md", "benchmarks.svg"
BEGIN, END = "<!-- figures: begin (make bench) -->", "<!-- figures: end -->"
NEW_PAGE = f"# Benchmarks\n\n{BEGIN}\n{END}\n"

METHOD = """\
## Method

- One command, `make bench`. Every contender's server is tied to core 0, `wrk` (one thread, 64
  keep-alive connections, ids 10 to 100 at random, no pipelining) to core 1. What Clickmill needs
  besides its worker (NATS, Postgres, aggregator, supervisor) runs on core 1 too.
- Turns are interleaved: in each round every contender is warmed up and measured once, and a ratio
  is taken within a round. Figures are medians over the rounds, lowest and highest in brackets.
- CPU is the kernel's own accounting of the server's processes (the process CPU clock, in
  nanoseconds), divided by the answers that wrk counted. *Click CPU* is that of the processes that
  answer; *whole CPU* adds everything else that the contender runs. FastAPI's Redis is in both.
- *Core busy* is the share of its core that a server used. Where it is well under 100 %, one thread
  of `wrk` could not send faster, and clicks a second and latency are those of the load.
- Every answer is checked: before the rounds wrk compares status and body of each answer; in a
  round it counts every answer over 399, and all answers together must have exactly the length of
  so many right ones. A round with one wrong answer or broken connection has no figures.
- Afterwards the server's own books must agree: its counters, and for Clickmill the sum in
  Postgres, lie between the answers that wrk saw and those plus its 64 connections.
- Fixed-rate sections use a loader of our own (`bench/contenders/go/loader`), which takes an
  answer's time from when its request was due. It runs at real-time priority where it may (root),
  and the helping processes are set back by 10, as they share its core. For freshness they may run
  on both cores: the loader would leave them too little of its own.
- A program that is not on the machine is named as missing, never left out.
"""


def read_results(folder: Path) -> dict[str, dict[str, Any]]:
    """All records that are there, by section."""
    records = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    return {record["section"]: record for record in records}


def write(results: Path, folder: Path) -> Path:
    """Write the page and the picture into a folder; returns the page's path."""
    records = read_results(results)
    figures = {name: record["figures"] for name, record in records.items()}
    folder.mkdir(parents=True, exist_ok=True)
    rows = figures.get("side", {}).get("rows")
    if rows:
        (folder / PICTURE).write_text(picture.bars(rows), encoding="utf-8")
    page = folder / PAGE
    old = page.read_text(encoding="utf-8") if page.exists() else NEW_PAGE
    before, _, rest = old.partition(BEGIN)
    text = "\n".join([BEGIN, "", *_body(records, figures), END])
    page.write_text(f"{before}{text}{rest.partition(END)[2]}", encoding="utf-8")
    return page


def _body(records: dict[str, dict[str, Any]], figures: dict[str, dict[str, Any]]) -> list[str]:
    lines = [*_goal_table(figures), ""]
    if "rows" in figures.get("side", {}):
        lines += [f"![CPU for each click, side by side]({PICTURE})", ""]
    for name, make in tables.TABLES.items():
        if name in records:
            missing = "missing_program" in figures[name]
            lines += [*_section(records[name], [] if missing else make(figures[name])), ""]
    return [*lines, *METHOD.splitlines(), "", *_machines(records), ""]


def _goal_table(figures: dict[str, dict[str, Any]]) -> list[str]:
    rows = [
        (g.figure, g.wanted, g.measured or NOT_RUN, g.spread, g.verdict) for g in goals(figures)
    ]
    return [
        "## Goals",
        "",
        *tables.markdown(("figure", "goal", "measured (median)", "spread", ""), rows),
    ]


def _section(record: dict[str, Any], lines: list[str]) -> list[str]:
    name = record["section"]
    if "missing_program" in record["figures"]:
        lines = [f"## {name}", "", f"Not measured: {record['figures']['missing_program']}."]
    how = f"{record['rounds']} rounds of {record['seconds']:g} s" if record.get("rounds") else ""
    foot = ", ".join(part for part in (f"`{record['command']}`", how, record["when"]) if part)
    load = f"load average before: {record['load_before']}" if "load_before" in record else ""
    return [*lines, "", f"*{foot}{'; ' + load if load else ''}*"]


def _machines(records: dict[str, dict[str, Any]]) -> list[str]:
    """The machine and the versions; more than one of each if sections ran on different ones."""
    seen: list[str] = []
    for record in records.values():
        facts = ", ".join(f"{k} {v}" for k, v in record.get("machine", {}).items())
        versions = ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items())
        text = f"- {facts}. {versions}."
        if text not in seen:
            seen.append(text)
    return ["## Machine and versions", "", *seen]
