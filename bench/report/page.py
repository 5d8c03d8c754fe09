"""docs/benchmarks.md from the results that are there: the part between the two marks is made here.

What stands outside the marks is written by hand (where the time goes, what was tried) and kept.
"""

from __future__ import annotations

from pathlib import Path

from bench.report import picture, results, tables
from bench.report.goals import NOT_RUN, goals

PAGE, PICTURE = "benchmarks.md", "benchmarks.svg"
BEGIN, END = "<!-- results: begin (make bench) -->", "<!-- results: end -->"
Records = dict[str, results.Results]
NEW_PAGE = f"# Benchmarks\n\n{BEGIN}\n{END}\n"

METHOD = """\
## Method

- One command, `make bench`. Every contender's server is tied to core 0, `wrk` (one thread, 64
  keep-alive connections, ids 10 to 100 at random, no pipelining) to core 1. What Clickmill needs
  besides its worker (NATS, Postgres, aggregator, supervisor) runs on core 1 too.
- A section is measured only while other programs use at most 0.3 cores, over the last two seconds
  and all cores together (`/proc/stat`; the load average still counts what ended a minute ago). It
  waits up to two minutes for that, then refuses. `ARGS=--allow-busy` measures all the same, and
  the results are marked.
- Turns are interleaved: in each round every contender is warmed up and measured once, and a ratio
  is taken within a round. Each value is the median over the rounds, with the lowest and the
  highest in brackets.
- CPU is the kernel's own accounting of the server's processes (the process CPU clock, in
  nanoseconds), divided by the answers that wrk counted. *Click CPU* is that of the processes that
  answer; *whole CPU* adds everything else that the contender runs. FastAPI's Redis is in both.
- *Core busy* is the share of its core that a server used. Where it is well under 100 %, one thread
  of `wrk` could not send faster, and clicks a second and latency are limited by the load.
- Every answer is checked: before the rounds wrk compares status and body of each answer; in a
  round it counts every answer over 399, and all answers together must have exactly the length of
  that many right ones. A round with one wrong answer or broken connection gives no result.
- Afterwards the server's own count must agree: its counters, and for Clickmill the sum in
  Postgres, lie between the answers that wrk saw and those plus its 64 connections.
- Fixed-rate sections use a small loader (`bench/load/fixedrate`), which measures an answer's time
  from when its request was due. As root it runs at real-time priority; the helping processes,
  which share its core, are niced by 10. For freshness they may run on both cores, as the loader
  would leave them too little of its own.
- A program that is not on the machine is named as missing.
"""


def write(source: Path, folder: Path) -> Path:
    """Write the page and the picture into a folder; returns the page's path."""
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
        lines += [f"![CPU for each click, side by side]({PICTURE})", ""]
    for name, make in tables.TABLES.items():
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
