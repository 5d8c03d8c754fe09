"""Whole access logs, for replaying: their requests, what could not be read, and IDs for targets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from stack.imports.accesslog import Request, open_log, parse_line

MAX_BAD_SHOWN = 20
"""Bad lines that are shown in full; all of them are counted."""
MAX_LINE_SHOWN = 120

IdOrder = Literal["first", "frequent"]


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


def parse(lines: Iterable[bytes]) -> Log:
    """Read all lines; empty ones are passed over, unreadable ones counted and remembered."""
    log = Log()
    for number, line in enumerate(lines, start=1):
        text = line.rstrip(b"\r\n")
        if not text:
            continue
        request = parse_line(text)
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
