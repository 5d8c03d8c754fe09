"""Generates the part of docs/benchmarks.md between the two marks, from the stored results.

The text outside the marks is written by hand and kept.
"""

from __future__ import annotations

from pathlib import Path

from bench.report import picture, results, scale, tables
from bench.report.goals import NOT_RUN, goals

PAGE, PICTURE = "benchmarks.md", "benchmarks.svg"
BEGIN, END = "<!-- results: begin (make bench) -->", "<!-- results: end -->"
Records = dict[str, results.Results]
NEW_PAGE = f"# Benchmarks\n\n{BEGIN}\n{END}\n"

TABLES = {**tables.TABLES, "scale": scale.scale}

METHOD = """\
## Method

- `make bench` runs everything. Each contender's server is pinned to core 0, and `wrk` (one thread,
  64 keep-alive connections, random IDs from 10 to 100, no pipelining) to core 1. Clickmill's other
  processes (NATS, Postgres, aggregator, supervisor) also run on core 1.
- A section starts only when other programs have used at most 0.3 cores in total during the last two
  seconds (`/proc/stat`; the load average still includes programs that ended a minute ago). It
  waits up to two minutes for that and then fails. `ARGS=--allow-busy` measures anyway and marks
  the results.
- Contenders alternate: each round warms up and measures each of them once, and ratios are computed
  within a round. Each value is the median of the rounds, with the lowest and the highest in
  parentheses.
- CPU is the kernel's accounting of the server's processes (the process CPU clock, in nanoseconds),
  divided by the number of responses that wrk counted. *Click CPU* is that of the processes that
  answer; *total CPU* includes all other processes of the contender. FastAPI's Redis is in both.
- *Core busy* is the share of its core that a server used. If it is well below 100 %, one thread of
  `wrk` could not send faster, and the load generator limits clicks per second and latency.
- Every response is checked. Before the rounds, wrk compares status and body of each one. In a round
  it counts every status above 399, and all responses together must have exactly the expected
  length. A round with one wrong response or broken connection is discarded.
- Afterwards, the server's own count must be correct: its counters, and for Clickmill the sum in
  Postgres, are between the number of responses that wrk received and that number plus its 64
  connections.
- The fixed-rate sections use a small load generator (`bench/load/fixedrate`), which measures
  latency from the time at which a request was due. As root it runs at real-time priority;
  Clickmill's other processes share its core and are niced by 10. For freshness they may use both
  cores, because the load generator would leave them too little.
- A missing program is reported as missing.
"""


def write(source: Path, folder: Path) -> Path:
    """Writes the page and the chart into a folder; returns the page's path."""
    records = results.read(source)
    folder.mkdir(parents=True, exist_ok=True)
    rows = _measured(records).get("side", {}).get("rows")
    if rows:
        (folder / PICTURE).write_text(picture.bars(rows), encoding="utf-8")
    page = folder / PAGE
    old = page.read_text(encoding="utf-8") if page.exists() else NEW_PAGE
    before, _, rest = old.partition(BEGIN)
    text = "\n".join([BEGIN, "", *_body(records), END])
    page.write_text(f"{before}{text}{rest.partition(END)[2]}", encoding="utf-8")
    return page


def _measured(records: Records) -> dict[str, results.Results]:
    return {name: record["results"] for name, record in records.items()}


def _body(records: Records) -> list[str]:
    measured = _measured(records)
    lines = [*_goal_table(measured), ""]
    if "rows" in measured.get("side", {}):
        lines += [f"![CPU per click, compared]({PICTURE})", ""]
    for name, make in TABLES.items():
        if name in records:
            lines += [*_section(records[name], make), ""]
    return [*lines, *METHOD.splitlines(), "", *_machines(records), ""]


def _goal_table(measured: dict[str, results.Results]) -> list[str]:
    rows = [
        (g.subject, g.wanted, g.measured or NOT_RUN, g.spread, g.verdict) for g in goals(measured)
    ]
    head = ("", "goal", "measured (median)", "lowest to highest", "")
    return ["## Goals", "", *tables.markdown(head, rows)]


def _section(record: results.Results, make: tables.Table) -> list[str]:
    missing = record["results"].get("missing_program")
    if missing:
        lines = [f"## {record['section']}", "", f"Not measured: {missing}."]
    else:
        lines = make(record["results"])
    return [*lines, "", f"*{results.origin(record)}; {results.quietness(record)}*"]


def _machines(records: Records) -> list[str]:
    """The machine and the versions; more than one of each if sections ran on different ones."""
    seen: list[str] = []
    for record in records.values():
        facts = ", ".join(f"{k} {v}" for k, v in record.get("machine", {}).items())
        versions = ", ".join(f"{k} {v}" for k, v in record.get("versions", {}).items())
        text = f"- {facts}. {versions}."
        if text not in seen:
            seen.append(text)
    return ["## Machine and versions", "", *seen]
