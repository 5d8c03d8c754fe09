"""Access logs in the Common and Combined Log Formats: lines in, requests out.

Pure apart from opening the file. The Combined format is the Common one with two quoted fields at
the end, and both have the time in [brackets] before the first quoted field, the request line; so
one pattern reads both. Named after the file that web servers write.
"""

from __future__ import annotations

import gzip
import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Literal, cast

GZIP_MAGIC = b"\x1f\x8b"
TIME_FORMAT = "%d/%b/%Y:%H:%M:%S %z"
CLICK_METHODS = frozenset({"GET", "POST"})
"""The methods that count as clicks; HEAD, OPTIONS and the rest are sent but count nothing."""
MAX_BAD_SHOWN = 20
"""Bad lines that are shown in full; all of them are counted."""
MAX_LINE_SHOWN = 120

# host ident user [time] "METHOD target HTTP/x.y" status …; a quote inside is written as \"
_LINE = re.compile(
    rb"^[^\"]*?\[(?P<time>\d\d?/[A-Za-z]{3}/\d{4}:[^\]]+)\] "
    rb'"(?P<method>[A-Z]{1,20}) (?P<target>(?:[^"\\ ]|\\.)+)(?: HTTP/[0-9.]+)?" '
    rb"(?:\d{3}|-)(?: |$)"
)

IdOrder = Literal["first", "frequent"]


@dataclass(frozen=True, slots=True)
class Request:
    """One readable line: what was asked for, and when (Unix seconds, as exact as the log is)."""

    time: float
    method: str
    target: str

    @property
    def is_click(self) -> bool:
        """True for the methods that Clickmill counts."""
        return self.method in CLICK_METHODS


@dataclass(frozen=True, slots=True)
class BadLine:
    """A line that is no request: its number, from 1, and its beginning."""

    number: int
    text: str


@dataclass(slots=True)
class Log:
    """A whole log: its requests in the order of the file, and what could not be read."""

    requests: list[Request] = field(default_factory=list)
    bad_count: int = 0
    bad_shown: list[BadLine] = field(default_factory=list)

    @property
    def clicks_by_target(self) -> Counter[str]:
        """The GET and POST lines of each target: what the statistics must show."""
        return Counter(r.target for r in self.requests if r.is_click)

    @property
    def methods(self) -> Counter[str]:
        """Lines by method."""
        return Counter(r.method for r in self.requests)


def open_log(path: Path) -> IO[bytes]:
    """Open a log, plain or gzip: told by its first bytes, not by its name."""
    with path.open("rb") as raw:
        packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    if packed:
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


class _Clock:
    """Log times to Unix seconds; neighbours share a second, so the last one is remembered."""

    def __init__(self) -> None:
        self._text = b""
        self._seconds = 0.0

    def seconds(self, text: bytes) -> float:
        """Unix seconds of a log's time; ValueError when it is not a time."""
        if text != self._text:
            stamp = datetime.strptime(text.decode("ascii"), TIME_FORMAT)  # noqa: DTZ007  (has %z)
            self._seconds = stamp.timestamp()
            self._text = text
        return self._seconds


def parse_line(line: bytes, clock: _Clock) -> Request | None:
    """Read one line; None when it is not a request in either format."""
    match = _LINE.match(line)
    if match is None:
        return None
    try:
        seconds = clock.seconds(match["time"])
    except ValueError:
        return None
    # latin-1 keeps every byte apart from every other: no two targets can fall together.
    return Request(seconds, match["method"].decode(), match["target"].decode("latin-1"))


def parse(lines: Iterable[bytes]) -> Log:
    """Read all lines; empty ones are passed over, unreadable ones counted and remembered."""
    log, clock = Log(), _Clock()
    for number, line in enumerate(lines, start=1):
        text = line.rstrip(b"\r\n")
        if not text:
            continue
        request = parse_line(text, clock)
        if request is not None:
            log.requests.append(request)
            continue
        log.bad_count += 1
        if len(log.bad_shown) < MAX_BAD_SHOWN:
            log.bad_shown.append(BadLine(number, text.decode("latin-1")[:MAX_LINE_SHOWN]))
    return log


def read(path: Path) -> Log:
    """Read a log file, plain or gzip. OSError when it can't be opened or unpacked."""
    try:
        with open_log(path) as lines:
            return parse(lines)
    except EOFError as error:
        raise OSError(f"{path} ends in the middle of its gzip data: copy it again") from error


def give_ids(requests: Iterable[Request], order: IdOrder, first_id: int = 1) -> dict[str, int]:
    """Give each request target an ID, in order of first appearance or most frequent first."""
    counts = Counter(r.target for r in requests)  # keeps the order of first appearance
    targets = [t for t, _ in counts.most_common()] if order == "frequent" else list(counts)
    return {target: first_id + place for place, target in enumerate(targets)}


def arrivals(requests: list[Request]) -> Iterator[tuple[float, Request]]:
    """Pair each request with its second after the log's first, in order of time.

    Servers write a line when the answer is done but stamp it with the arrival, so a log is not
    quite sorted. Its times are whole seconds: the requests of one second are spread evenly over
    it, in the order of their lines, since no site has a burst at each full second.
    """
    ordered = sorted(requests, key=lambda r: r.time)
    if not ordered:
        return
    per_second = Counter(r.time for r in ordered)
    seen: Counter[float] = Counter()
    start = ordered[0].time
    for request in ordered:
        share = seen[request.time] / per_second[request.time]
        seen[request.time] += 1
        yield request.time - start + share, request
