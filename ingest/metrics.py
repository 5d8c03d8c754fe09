"""Every metric of the ingest side: name, type, one line of meaning, and where it is counted.

Why mapped slots: a click may not pay for a metric, any worker must answer for all workers of the
node, and a total may never fall when a worker is replaced. So each worker takes a free slot file,
`<data>/ingest/meters/<layout>/<n>`, holds it with flock, and counts on from what it finds in it.
The layout's own checksum is in the path: another version with other meters begins with others.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os
import time
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric

from ingest._meters import Meters

MAX_SLOTS: Final = 256
METHODS: Final = ("GET", "POST", "OPTIONS", "HEAD", "other")
ROUTES: Final = (
    "counter", "stats", "clicks", "pixel", "click", "clickmill.js", "livez", "readyz", "metrics",
    "other",
)  # fmt: skip
STATUSES: Final = (
    200, 204, 302, 400, 401, 403, 404, 405, 408, 409, 413, 415, 421, 422, 429, 500, 503,
)  # fmt: skip
BOUNDS_NS: Final = tuple(
    us * 1000
    for us in (
        2, 4, 6, 8, 10, 15, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 20_000, 50_000,
        100_000, 200_000, 500_000, 1_000_000, 5_000_000,
    )
)  # fmt: skip


class _Meter(NamedTuple):
    """A gauge counts only while its worker lives. What is shown is the cell divided by `per`, of
    all workers together, or of the one where it is highest."""

    name: str
    kind: str
    meaning: str
    per: float = 1
    highest: bool = False


_SINGLE: Final = (
    _Meter("clickmill_clicks", "counter", "Clicks counted."),
    _Meter(
        "clickmill_publish_failures",
        "counter",
        "Attempts to publish a frame that NATS did not take.",
    ),
    _Meter("clickmill_keyed_batches", "counter", "Batches with an Idempotency-Key stored."),
    _Meter("clickmill_frames_sealed", "counter", "Frames made durable in a spool."),
    _Meter(
        "clickmill_resends",
        "counter",
        "Times that a source was sent again from its high-water mark.",
    ),
    _Meter("clickmill_spool_errors", "counter", "Frames that could not be written to a spool."),
    _Meter("clickmill_spool_damages", "counter", "Damaged places found in spools."),
    _Meter("clickmill_sources_adopted", "counter", "Sources taken over from dead workers."),
    _Meter("clickmill_worker_starts", "counter", "Workers started on this node."),
    _Meter("clickmill_spool_bytes", "gauge", "Bytes in the spools, committed ones included."),
    _Meter("clickmill_spool_frames", "gauge", "Frames not known to be committed."),
    _Meter("clickmill_spool_max_bytes", "gauge", "Limit of all spools together."),
    _Meter("clickmill_frames_too_large", "gauge", "Sources stopped by the max_payload of NATS."),
    _Meter(
        "clickmill_spool_keep_short_seconds",
        "gauge",
        "Seconds by which the spool's limit shortens the keep time of committed frames, in the "
        "worker where it does so most.",
        highest=True,
    ),
    _Meter("clickmill_unsealed_clicks", "gauge", "Clicks in the counters, not yet in a spool."),
    _Meter("clickmill_workers", "gauge", "Running workers of this node."),
    _Meter("clickmill_workers_connected", "gauge", "Running workers with a connection to NATS."),
    _Meter(
        "clickmill_ingest_process_cpu_seconds",
        "counter",
        "CPU time of all workers of this node.",
        1e9,
    ),
    _Meter(
        "clickmill_ingest_process_resident_memory_bytes",
        "gauge",
        "Resident memory of all workers of this node.",
    ),
    _Meter(
        "clickmill_ingest_process_open_fds",
        "gauge",
        "Open files and sockets of all workers of this node.",
    ),
)
_DISK: Final = (
    ("clickmill_spool_disk_free_bytes", "Free space on the spools' disk."),
    ("clickmill_spool_disk_size_bytes", "Size of the spools' disk."),
)
_DURATION: Final = "clickmill_http_request_duration_seconds"
_DURATION_MEANING: Final = (
    "Time from Granian's hand-over to the answer, a body's arrival included; plain clicks are "
    "sampled, 1 in 128, and weighted."
)
_REQUESTS: Final = "clickmill_http_requests"
_REQUESTS_MEANING: Final = "Requests answered."

_REQUEST_CELLS: Final = len(ROUTES) * len(METHODS) * len(STATUSES)
_DURATION_FIRST: Final = _REQUEST_CELLS + len(_SINGLE)
_DURATION_SUM: Final = _DURATION_FIRST + len(BOUNDS_NS) + 1
CELLS: Final = _DURATION_SUM + 1
_MEANING: Final = (ROUTES, METHODS, STATUSES, BOUNDS_NS, [meter.name for meter in _SINGLE])
_HIGHEST: Final = {_REQUEST_CELLS + i for i, meter in enumerate(_SINGLE) if meter.highest}
LAYOUT: Final = f"{zlib.crc32(repr(_MEANING).encode()):08x}"
"""Distinguishes the slots of two versions: the same cell may mean something else in each."""


def request_cell(route: str, method: str, status: int) -> int:
    """The meter of requests with these labels; names that are not listed count as other or 500."""
    r = ROUTES.index(route) if route in ROUTES else len(ROUTES) - 1
    m = METHODS.index(method) if method in METHODS else len(METHODS) - 1
    s = STATUSES.index(status if status in STATUSES else 500)
    return (r * len(METHODS) + m) * len(STATUSES) + s


def cell(name: str) -> int:
    """The meter of one of the unlabelled metrics, by its name. Raises KeyError."""
    for i, meter in enumerate(_SINGLE):
        if meter.name == name:
            return _REQUEST_CELLS + i
    raise KeyError(name)


class FastpathCells:
    """The meters that the compiled fast path counts in."""

    counter_post = request_cell("counter", "POST", 200)
    counter_get = request_cell("counter", "GET", 200)
    pixel_get = request_cell("pixel", "GET", 200)
    click_get = request_cell("click", "GET", 302)
    clicks = cell("clickmill_clicks")
    duration_first = _DURATION_FIRST
    duration_sum = _DURATION_SUM
    duration_bounds_ns: Sequence[int] = BOUNDS_NS
    last = CELLS - 1


class MetersFullError(Exception):
    """More workers than slots: use fewer, or another data directory."""


class Slot:
    """A slot of meters that this process holds; its totals go on where the last holder's ended."""

    def __init__(self, directory: Path) -> None:
        """Takes the first free slot. Raises MetersFullError, OSError."""
        directory = directory / LAYOUT
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._fd = _first_free(directory)
        os.posix_fallocate(self._fd, 0, CELLS * 8)
        self.meters = Meters(mmap.mmap(self._fd, CELLS * 8))
        for meter in _SINGLE:
            if meter.kind == "gauge":
                self.meters.set(cell(meter.name), 0)
        self._cpu_ns = 0
        self.add("clickmill_worker_starts")
        self.set("clickmill_workers", 1)
        self.sample_process()

    def add(self, name: str, n: int = 1) -> None:
        """Count n more of an unlabelled metric."""
        self.meters.add(cell(name), n)

    def set(self, name: str, value: int) -> None:
        """Set a gauge."""
        self.meters.set(cell(name), value)

    def sample_process(self) -> None:
        """Note this process's CPU time, memory and open files; costs about 20 µs.

        What the kernel doesn't tell now stays as it was: no gauge is worth a worker.
        """
        cpu_ns = time.process_time_ns()
        self.add("clickmill_ingest_process_cpu_seconds", cpu_ns - self._cpu_ns)
        self._cpu_ns = cpu_ns
        with contextlib.suppress(OSError):
            resident = int(Path("/proc/self/statm").read_bytes().split()[1]) * mmap.PAGESIZE
            self.set("clickmill_ingest_process_resident_memory_bytes", resident)
        with contextlib.suppress(OSError):
            # The size of this directory is its number of entries, since Linux 6.2; 0 before.
            self.set("clickmill_ingest_process_open_fds", Path("/proc/self/fd").stat().st_size)

    def request(self, route: str, method: str, status: int, took_ns: int) -> None:
        """Count one answered request, and how long it took."""
        self.meters.add(request_cell(route, method, status))
        bucket = next((i for i, b in enumerate(BOUNDS_NS) if took_ns <= b), len(BOUNDS_NS))
        self.meters.add(_DURATION_FIRST + bucket)
        self.meters.add(_DURATION_SUM, took_ns)


def _first_free(directory: Path) -> int:
    for n in range(MAX_SLOTS):
        fd = os.open(directory / str(n), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(fd)
        else:
            return fd
    raise MetersFullError(f"all {MAX_SLOTS} slots of {directory} are taken: run fewer workers")


class NodeCollector:
    """A prometheus-client collector over the slots of all workers of this node, dead ones too."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def describe(self) -> list[Metric]:
        """Nothing: the names are known from `collect` alone, so that registering reads no file."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The sums over all slots; a gauge counts only while its worker lives."""
        totals = self._totals()
        for i, meter in enumerate(_SINGLE, _REQUEST_CELLS):
            family = CounterMetricFamily if meter.kind == "counter" else GaugeMetricFamily
            yield family(meter.name, meter.meaning, value=totals[i] / meter.per)
        yield _requests(totals)
        yield _durations(totals)
        disk = os.statvfs(self.directory)
        for (name, meaning), blocks in zip(_DISK, (disk.f_bavail, disk.f_blocks), strict=True):
            yield GaugeMetricFamily(name, meaning, value=blocks * disk.f_frsize)

    def _totals(self) -> list[int]:
        totals = [0] * CELLS
        for path in sorted((self.directory / LAYOUT).glob("[0-9]*")):
            cells, live = _read_slot(path)
            for i, value in enumerate(cells):
                if value and (live or not _is_gauge(i)):
                    totals[i] = max(totals[i], value) if i in _HIGHEST else totals[i] + value
        return totals


def _is_gauge(i: int) -> bool:
    single = i - _REQUEST_CELLS
    return 0 <= single < len(_SINGLE) and _SINGLE[single].kind == "gauge"


def _read_slot(path: Path) -> tuple[memoryview, bool]:
    with path.open("rb") as file:
        data = file.read(CELLS * 8)
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            live = False
        except BlockingIOError:
            live = True
    return memoryview(data[: len(data) // 8 * 8]).cast("Q"), live


def _requests(totals: list[int]) -> Metric:
    family = CounterMetricFamily(
        _REQUESTS, _REQUESTS_MEANING, labels=("method", "route", "status")
    )  # fmt: skip
    i = 0
    for route in ROUTES:
        for method in METHODS:
            for status in STATUSES:
                if totals[i]:
                    family.add_metric((method, route, str(status)), totals[i])
                i += 1
    return family


def _durations(totals: list[int]) -> Metric:
    buckets, seen = [], 0
    for bound, n in zip((*BOUNDS_NS, None), totals[_DURATION_FIRST:_DURATION_SUM], strict=True):
        seen += n
        buckets.append(("+Inf" if bound is None else repr(bound / 1e9), float(seen)))
    return HistogramMetricFamily(
        _DURATION, _DURATION_MEANING, buckets=buckets, sum_value=totals[_DURATION_SUM] / 1e9
    )
