"""The tables of docs/benchmarks.md, one function for each section: results in, lines out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from bench.report.goals import span

Results = dict[str, Any]
Table = Callable[[Results], list[str]]
SMALL_RATIO, LARGE = 0.1, 1_000
"""Ratios under the first are shown with four digits, numbers over the second without any."""
NO_FLUSH = "Without flushing: the interval is 60 s, so frames are sealed only when a minute ends."
RATIO = "**first ÷ second**, per round"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table."""
    lines = ["| " + " | ".join(head) + " |", "| " + " | ".join("---" for _ in head) + " |"]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def cell(spread: dict[str, float], digits: int = 2, scale: float = 1.0) -> str:
    """Median, and lowest to highest in brackets."""
    scaled = {name: value / scale for name, value in spread.items()}
    return f"{scaled['median']:,.{digits}f} ({span(scaled, digits)})"


def side(results: Results) -> list[str]:
    """All contenders."""
    head = (
        "contender", "click CPU µs", "total CPU µs", "Clickmill ÷ contender, click CPU",
        "Clickmill ÷ contender, total CPU", "core busy", "clicks/s", "p50 µs", "p99 µs",
    )  # fmt: skip
    rows = [
        (
            row["name"], cell(row["cpu_us"]), cell(row["whole_us"]),
            *(_against(row, name) for name in ("ratio", "whole_ratio")),
            f"{row['busy']['median']:.0%}",
            cell(row["rate"], 0), cell(row["p50_us"], 0), cell(row["p99_us"], 0),
        )
        for row in sorted(results["rows"], key=lambda row: row["cpu_us"]["median"])
    ]  # fmt: skip
    missing = [f"- **Not measured**: {why}." for why in results["missing"].values()]
    does = [f"- **{row['name']}**: {row['does']}." for row in results["rows"]]
    return [
        "## Comparison: one core, 64 connections, saturation", "", *markdown(head, rows), "",
        ("What each does for a click. All answer `200` with `{\"status\":\"counted\"}`, a content "
        "type and `Access-Control-Allow-Origin`:"), "", *does, *missing,
    ]  # fmt: skip


def bodies(results: Results) -> list[str]:
    """With a body against without, and against Go."""
    head = ("", "click CPU µs", "core busy", "clicks/s", "p99 µs")
    rows = [
        (
            row["name"], cell(row["cpu_us"]), f"{row['busy']['median']:.0%}",
            cell(row["rate"], 0), cell(row["p99_us"], 0),
        )
        for row in results["rows"]
    ]  # fmt: skip
    return [
        "## A body in the segment of the headers, at saturation", "", *markdown(head, rows), "",
        (f"Per round: Clickmill with a body ÷ without {cell(results['body_ratio'])}; with a body ÷ "
        f"Go with that body {cell(results['go_ratio'])}."),
    ]  # fmt: skip


def _against(row: Results, name: str) -> str:
    """Clickmill's value over that row's."""
    if row["key"] == "clickmill":
        return "1"
    return cell(row[name], 4 if row[name]["median"] < SMALL_RATIO else 2)


def _fixed_rate(title: str, results: Results, note: str) -> list[str]:
    head = ("", "p50 µs", "p99 µs", "p99.9 µs", "maximum µs", "load generator delay, p99 µs")
    names = ("p50_us", "p99_us", "p999_us", "max_us", "send_late_p99_us")
    rows = [
        (results[f"{which}_name"], *(cell(results[which][name], 0) for name in names))
        for which in ("first", "second")
    ]
    ratio = (RATIO, "", cell(results["p99_ratio"]), cell(results["p999_ratio"]), "", "")
    return [
        f"## {title}", "", f"At {results['rate']:,.0f} clicks per second. {note}", "",
        *markdown(head, [*rows, ratio]),
    ]  # fmt: skip


def tail(results: Results) -> list[str]:
    """With flushing against without."""
    return _fixed_rate("Half load: flushing every second against never", results, NO_FLUSH)


def counters(results: Results) -> list[str]:
    """Disk against memory."""
    note = "The counters' mapped file in the data directory, or in /dev/shm."
    return _fixed_rate("Half load: counters on disk against in memory", results, note)


def freshness(results: Results) -> list[str]:
    """Answer to visible."""
    head = ("", "clicks followed", "p50 s", "p99 s", "maximum s")
    rows = [
        [name, f"{results[probes]:,}", *(f"{results[key][q]:.2f}" for q in ("p50", "p99", "max"))]
        for name, probes, key in (
            ("alone", "probes_alone", "alone"),
            (f"beside {results['rate']:,.0f} clicks/s", "probes", "seconds"),
        )
    ]
    return [
        "## Freshness", "",
        ("Single clicks at random times, ten a second: from the response until the statistics "
        "include the click. The statistics were queried every 20 ms."), "", *markdown(head, rows),
    ]  # fmt: skip


def batch(results: Results) -> list[str]:
    """POST /clicks."""
    return [
        f"## `POST /clicks`, {results['items']:,} items per array", "",
        (f"Millions of clicks per second of the worker's CPU: "
        f"{cell(results['clicks_per_cpu_second'], 2, 1e6)}; by wall clock, with wrk on one "
        f"core: {cell(results['clicks_per_second'], 2, 1e6)}."),
    ]  # fmt: skip


def keyed(results: Results) -> list[str]:
    """POST /clicks with an Idempotency-Key."""
    head = ("items", "connections", "CPU µs", "with a key", "÷", "p50 µs", "with a key", "÷")
    rows = [
        (
            f"{row['items']:,}", str(row["connections"]),
            *(cell(row[kind]["cpu_us"], 0) for kind in ("plain", "keyed")), cell(row["cpu_ratio"]),
            *(cell(row[kind]["p50_us"], 0) for kind in ("plain", "keyed")), cell(row["p50_ratio"]),
        )
        for row in results["rows"]
    ]  # fmt: skip
    note = "CPU of the worker for each batch. A batch with a key is on disk, synced, when answered."
    return ["## `POST /clicks` with an `Idempotency-Key`", "", *markdown(head, rows), "", note]


def _two(title: str, names: tuple[str, str], results: Results, note: str = "") -> list[str]:
    head = ("", "click CPU µs", "other CPU µs", "clicks/s", "p99 µs")
    rows = [
        (
            name, cell(results[which]["cpu_us"]), cell(results[which]["helping_us"]),
            cell(results[which]["rate"], 0), cell(results[which]["p99_us"], 0),
        )
        for name, which in zip(names, ("first", "second"), strict=True)
    ]  # fmt: skip
    cpu, rate, p99 = (cell(results[f"{name}_ratio"]) for name in ("cpu", "rate", "p99"))
    lines = [f"## {title}", "", *markdown(head, [*rows, (RATIO, cpu, "", rate, p99)])]
    return [*lines, "", note] if note else lines


def price(results: Results) -> list[str]:
    """With flushing against without."""
    names = ("flushing every second", "no flushing")
    return _two("Cost of flushing every second, at saturation", names, results, NO_FLUSH)


def ids(results: Results) -> list[str]:
    """Many against few."""
    names = (f"{results['many']:,} IDs at random", f"{results['few']} IDs")
    note = "Other CPU: NATS, the aggregator and Postgres, which write a row per ID and minute."
    return _two("Many IDs against few", names, results, note)


def scrape(results: Results) -> list[str]:
    """With and without."""
    note = (
        f"A response of `/metrics` took {cell(results['answer_ms'], 1)} ms under load (it is "
        f"queued behind the clicks) and {cell(results['answer_idle_ms'], 1)} ms without."
    )
    return _two("`/metrics` scraped every second", ("scraped", "not scraped"), results, note)


def workers(results: Results) -> list[str]:
    """Two against one."""
    note = (
        "The second worker shares core 1 with wrk, NATS, Postgres and the aggregator, so the "
        "load generator limits the result."
    )
    return _two("Two workers against one", ("two workers", "one worker"), results, note)


def memory(results: Results) -> list[str]:
    """RSS."""
    return [
        "## Memory of a worker", "",
        (f"Resident memory with the mapped counters, after clicks on all IDs: "
        f"{results['default_bytes'] / 1e6:.1f} MB with the default maximum ID, "
        f"{results['million_bytes'] / 1e6:.1f} MB with one million."),
    ]  # fmt: skip


def profile(results: Results) -> list[str]:
    """Where the time goes."""
    libraries = [f"{name} {share:.1f} %" for name, share in results["libraries"].items() if share]
    head = ("share", "library", "function")
    rows = [(f"{f['share']:.1f} %", f["library"], f"`{f['name']}`") for f in results["functions"]]
    return [
        "## Where a click's CPU goes", "",
        f"Samples of perf from the worker at saturation, by library: {', '.join(libraries)}.", "",
        *markdown(head, rows),
    ]  # fmt: skip


def stress(results: Results) -> list[str]:
    """The contract's load scenario."""
    ms = results["latency_ms"]
    return [
        "## The load scenario of the contract", "",
        (f"Shape {results['shape']}, scenario {results['scenario']}, up to "
        f"{results['peak_users']} users over {results['minutes']:g} minutes, Locust on the same "
        f"machine: {results['requests']:,} requests ({results['requests_per_second']:,.0f} per "
        f"second on average), {results['failed']:,} failed, p50 {ms['p50']:.0f} ms, "
        f"p95 {ms['p95']:.0f} ms, p99 {ms['p99']:.0f} ms. {results['clicks_answered']:,} clicks "
        f"answered 200; comparison of the ledger with the statistics, banner by banner: "
        f"{results['ledger']}."),
    ]  # fmt: skip


def generic(title: str, results: Results) -> list[str]:
    """Any results: plain values as a list, each list of rows as a table."""
    lines = [f"## {title}", ""]
    plain = {name: value for name, value in results.items() if not isinstance(value, list | dict)}
    lines += [f"- {_words(name)}: {_value(value)}" for name, value in plain.items()]
    for name, rows in results.items():
        if isinstance(rows, list) and rows and isinstance(rows[0], dict):
            head = [_words(column) for column in rows[0]]
            cells = [[_value(value) for value in row.values()] for row in rows]
            lines += ["", f"{_words(name)}:", "", *markdown(head, cells)]
    return lines


def _words(name: str) -> str:
    return name.replace("_", " ")


def _value(value: object) -> str:
    if value is None:
        return "incomplete"  # infinity, which JSON does not have
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= LARGE else f"{value:,.3g}"
    return f"{value:,}" if isinstance(value, int) else str(value)


def aggregator(results: Results) -> list[str]:
    """The benchmark of the aggregator."""
    return generic("The aggregator", results)


def cardinality(results: Results) -> list[str]:
    """Rows by the number of distinct banners."""
    return generic("Rows by the number of distinct banners", results)


def middleware(results: Results) -> list[str]:
    """Redirects, and fast clients among slow ones."""
    head = ("", "p50 µs", "p99 µs", "p50 ÷ plain POST", "p99 ÷ plain POST")
    rows = [
        (
            row["name"], cell(row["p50_us"], 0), cell(row["p99_us"], 0),
            cell(row["p50_ratio"]), cell(row["p99_ratio"]),
        )
        for row in results["rows"]
    ]  # fmt: skip
    title = f"## Redirects, and clicks among {results['slow_sockets']:,} slow sockets"
    return [title, "", *markdown(head, rows)]


TABLES: dict[str, Table] = {
    "side": side,
    "bodies": bodies,
    "price": price,
    "tail": tail,
    "counters": counters,
    "freshness": freshness,
    "batch": batch,
    "keyed": keyed,
    "ids": ids,
    "scrape": scrape,
    "workers": workers,
    "memory": memory,
    "profile": profile,
    "aggregator": aggregator,
    "cardinality": cardinality,
    "middleware": middleware,
    "stress": stress,
}
