"""`clickmill top`: the running system in a terminal, updated every second.

It reads only `/metrics` of both ports and `/top`, as any client can.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import sys
import time
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

import msgspec
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from clickmill.settings import Settings
from stack import probe, rates
from stack.rates import Look

EVERY_SECONDS: Final = 1.0
TOP_BANNERS: Final = 10
QUANTILES: Final = (0.5, 0.95, 0.99)
LATE_SECONDS: Final = 10.0
SLOW_SECONDS: Final = 0.2
DISK_LOW: Final = 0.1
BAR_CELLS: Final = 24
UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")

Facts = list[tuple[str, Text]]


class Side(NamedTuple):
    """One port: its last two readings; `trouble` says why there is none."""

    before: Look | None
    now: Look | None
    trouble: str = ""


class View(NamedTuple):
    """The content of one screen; `banners` is the response of /top, or why there is none."""

    at: datetime
    ingest: Side
    aggregator: Side
    banners: list[dict[str, Any]] | str


def watch(settings: Settings, once: bool) -> bool:
    """Show the system until Ctrl-C, or once; whether a port answered the last time."""
    console = Console()
    with contextlib.suppress(KeyboardInterrupt):
        if once or not sys.stdout.isatty():
            return asyncio.run(_once(settings, console))
        return asyncio.run(_forever(settings, console))
    return True


async def _once(settings: Settings, console: Console) -> bool:
    nothing = Side(None, None)
    first = await look(settings, View(datetime.now(UTC), nothing, nothing, []))
    await asyncio.sleep(EVERY_SECONDS)
    view = await look(settings, first)
    console.print(picture(view))
    return view.ingest.now is not None or view.aggregator.now is not None


async def _forever(settings: Settings, console: Console) -> bool:
    nothing = Side(None, None)
    view = await look(settings, View(datetime.now(UTC), nothing, nothing, []))
    with Live(picture(view), console=console, screen=True, auto_refresh=False) as live:
        while True:
            due = time.monotonic() + EVERY_SECONDS
            view = await look(settings, view)
            live.update(picture(view), refresh=True)
            await asyncio.sleep(max(0.0, due - time.monotonic()))


# --- reading --------------------------------------------------------------------------------------


async def look(settings: Settings, last: View) -> View:
    """The next view. Errors of the other side are shown, not raised."""
    ingest, aggregator, banners = await asyncio.gather(
        _side(settings, settings.port, last.ingest),
        _side(settings, settings.stats_port, last.aggregator),
        _ask(settings, settings.stats_port, f"/top?limit={TOP_BANNERS}"),
    )
    return View(datetime.now(UTC), ingest, aggregator, _banners(banners))


async def _side(settings: Settings, port: int, last: Side) -> Side:
    answer = await _ask(settings, port, "/metrics")
    if answer.status != 200:
        return Side(None, None, _why(answer))
    try:
        return Side(last.now, rates.read(answer.text, time.monotonic()))
    except ValueError:
        return Side(None, None, "its /metrics can't be parsed: is it Clickmill?")


async def _ask(settings: Settings, port: int, path: str) -> probe.Answer:
    host = settings.host if port == settings.port else settings.stats_host
    return await probe.get(host, port, path, settings.stats_token)


def _why(answer: probe.Answer) -> str:
    if answer.status == 401:
        return "it requires a token: set CLICKMILL_STATS_TOKEN"
    return f"{answer.status or 'no answer'}: {answer.text[:200]}"


def _banners(answer: probe.Answer) -> list[dict[str, Any]] | str:
    if answer.status != 200:
        return _why(answer)
    try:
        ranked: list[dict[str, Any]] = msgspec.json.decode(answer.text)["top"]
    except (msgspec.DecodeError, KeyError, TypeError):
        return "its response can't be parsed"
    return ranked


# --- showing --------------------------------------------------------------------------------------


def picture(view: View) -> RenderableType:
    """The view, drawn."""
    title = Text(f"Clickmill  {view.at:%Y-%m-%d %H:%M:%S} UTC", style="bold")
    faces = Table.grid(expand=True, padding=(0, 1))
    for _ in range(3):
        faces.add_column(ratio=1)
    faces.add_row(
        _panel("Clicks", view.ingest, _clicks),
        _panel("Spool", view.ingest, _spool),
        _panel("Statistics", view.aggregator, _statistics),
    )
    return Group(title, faces, _top(view.banners))


def _panel(title: str, side: Side, facts: Any) -> Panel:
    if side.now is None:
        return Panel(Text(side.trouble or "no data yet", style="red"), title=title)
    grid = Table.grid(expand=True, padding=(0, 1))
    grid.add_column(style="dim")
    grid.add_column(justify="right")
    for name, value in facts(side.before or side.now, side.now):
        grid.add_row(name, value)
    return Panel(grid, title=title)


def _clicks(before: Look, now: Look) -> Facts:
    failed = rates.failures(before, now)
    workers, connected = now.total("clickmill_workers"), now.total("clickmill_workers_connected")
    rows = [
        ("clicks per second", _number(rates.rate(before, now, "clickmill_clicks_total"))),
        ("requests per second", _number(rates.rate(before, now, rates.REQUESTS))),
        ("errors per second", _number(failed, bad=failed > 0)),
        *_quantiles(before, now),
        ("total clicks", _number(now.total("clickmill_clicks_total"))),
        ("workers", _number(workers)),
        ("  connected to NATS", _number(connected, bad=connected < workers)),
        ("  starts in total", _number(now.total("clickmill_worker_starts_total"))),
    ]
    return [*rows, *_process(before, now, "clickmill_ingest_process")]


def _spool(before: Look, now: Look) -> Facts:
    waiting, workers = now.total("clickmill_spool_frames"), now.total("clickmill_workers")
    free = now.total("clickmill_spool_disk_free_bytes")
    size = now.total("clickmill_spool_disk_size_bytes")
    errors = rates.rate(before, now, "clickmill_spool_errors_total")
    failures = rates.rate(before, now, "clickmill_publish_failures_total")
    return [
        ("uncommitted frames", _number(waiting, bad=waiting > 5 * workers)),
        ("unsealed clicks", _number(now.total("clickmill_unsealed_clicks"))),
        ("sealed per second", _number(rates.rate(before, now, "clickmill_frames_sealed_total"))),
        ("publish failures/s", _number(failures, bad=failures > 0)),
        ("write errors/s", _number(errors, bad=errors > 0)),
        ("spool size", _bytes(now.total("clickmill_spool_bytes"))),
        ("  limit", _bytes(now.total("clickmill_spool_max_bytes"))),
        ("disk free", _bytes(free, bad=free < DISK_LOW * size)),
        ("sources adopted", _number(now.total("clickmill_sources_adopted_total"))),
    ]


def _statistics(before: Look, now: Look) -> Facts:
    lag = now.total("clickmill_freshness_seconds")
    silent = now.total("clickmill_sources_silent")
    quarantined = now.total("clickmill_quarantine_waiting_rows")
    commit, frame_lag = (
        rates.quantiles(before, now, [0.95], name)[0]
        for name in ("clickmill_commit_duration_seconds", "clickmill_frame_lag_seconds")
    )
    committed = rates.rate(before, now, "clickmill_clicks_committed_total")
    rows = [
        ("lag", _seconds(lag, bad=not lag < LATE_SECONDS)),
        ("committed per second", _number(committed)),
        ("frames per second", _number(rates.rate(before, now, "clickmill_frames_applied_total"))),
        ("commit time, p95", _seconds(commit)),
        ("frame lag, p95", _seconds(frame_lag)),
        ("duplicates since start", _number(now.total("clickmill_frames_duplicate_total"))),
        ("live sources", _number(now.total("clickmill_sources_live"))),
        ("silent sources", _number(silent, bad=silent > 0)),
        ("quarantined rows", _number(quarantined, bad=quarantined > 0)),
        ("Postgres", _yes(now.total("clickmill_postgres_up"))),
        ("NATS", _yes(now.total("clickmill_nats_up"))),
    ]
    return [*rows, *_process(before, now, "process")]


def _quantiles(before: Look, now: Look) -> Facts:
    found = rates.quantiles(before, now, QUANTILES)
    names = (f"response time, p{q * 100:g}" for q in QUANTILES)
    return [(n, _seconds(v, bad=v > SLOW_SECONDS)) for n, v in zip(names, found, strict=True)]


def _process(before: Look, now: Look, prefix: str) -> Facts:
    cores = rates.rate(before, now, f"{prefix}_cpu_seconds_total")
    return [
        ("cores in use", _number(cores, digits=2)),
        ("memory", _bytes(now.total(f"{prefix}_resident_memory_bytes"))),
    ]


def _top(banners: list[dict[str, Any]] | str) -> Panel:
    title = "Top banners of the last hour"
    if isinstance(banners, str):
        return Panel(Text(banners, style="red"), title=title)
    if not banners:
        return Panel(Text("no clicks yet", style="dim"), title=title)
    table = Table.grid(expand=True, padding=(0, 2))
    for justify in ("right", "left", "right", "left"):
        table.add_column(justify=justify)
    most = max(int(b["Counts"]) for b in banners) or 1
    for b in banners:
        bar = "█" * max(1, round(BAR_CELLS * int(b["Counts"]) / most))
        name = Text(str(b.get("name") or ""), overflow="ellipsis", no_wrap=True)
        table.add_row(str(b["bannerID"]), name, _number(int(b["Counts"])), Text(bar, style="blue"))
    return Panel(table, title=title)


def _number(value: float, bad: bool = False, digits: int = 0) -> Text:
    digits = digits or (1 if 0 < value < 10 and value % 1 else 0)
    return _text("–" if math.isnan(value) else f"{value:,.{digits}f}", bad)


def _bytes(value: float, bad: bool = False) -> Text:
    if math.isnan(value):
        return _text("–", bad)
    power = min(int(math.log2(max(value, 1)) // 10), len(UNITS) - 1)
    return _text(f"{value / 1024**power:,.3g} {UNITS[power]}", bad)


def _seconds(value: float, bad: bool = False) -> Text:
    if math.isnan(value):
        return _text("–", bad)
    if value < 1e-3:
        return _text(f"{value * 1e6:,.0f} µs", bad)
    return _text(f"{value * 1e3:,.1f} ms" if value < 1 else f"{value:,.1f} s", bad)


def _yes(value: float) -> Text:
    return _text("up", False) if value == 1 else _text("down", True)


def _text(text: str, bad: bool) -> Text:
    return Text(text, style="bold red" if bad else "bold")
