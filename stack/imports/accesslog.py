"""Access logs in the Common and Combined Log Formats: lines in, requests out.

Pure apart from opening the file. The Combined format is the Common one with two quoted fields at
the end, and both have the time in [brackets] before the first quoted field, the request line; so
one pattern reads both.
"""

from __future__ import annotations

import gzip
import re
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from pathlib import Path
from typing import IO, cast

GZIP_MAGIC = b"\x1f\x8b"
TIME_FORMAT = "%d/%b/%Y:%H:%M:%S %z"
CLICK_METHODS = frozenset({"GET", "POST"})
"""The methods that count as clicks; HEAD, OPTIONS and the rest are sent but count nothing."""

# host ident user [time] "METHOD target HTTP/x.y" status …; a quote inside is written as \"
_LINE = re.compile(
    rb"^[^\"]*?\[(?P<time>\d\d?/[A-Za-z]{3}/\d{4}:[^\]]+)\] "
    rb'"(?P<method>[A-Z]{1,20}) (?P<target>(?:[^"\\ ]|\\.)+)(?: HTTP/[0-9.]+)?" '
    rb"(?P<status>\d{3}|-)(?: |$)"
)


@dataclass(frozen=True, slots=True)
class Request:
    """One readable line: what was asked for, and when (Unix seconds, as exact as the log is)."""

    time: float
    method: str
    target: str
    status: int = field(default=0, compare=False)
    """Of its answer; 0 where the log does not say."""

    @property
    def is_click(self) -> bool:
        """True for the methods that Clickmill counts."""
        return self.method in CLICK_METHODS


def open_log(path: Path) -> IO[bytes]:
    """Open a log, plain or gzip: told by its first bytes, not by its name."""
    with path.open("rb") as raw:
        packed = raw.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    if packed:
        return cast(IO[bytes], gzip.open(path, "rb"))
    return path.open("rb")


@lru_cache(maxsize=1)  # neighbours share a second
def _seconds(text: bytes) -> float:
    """Unix seconds of a log's time; ValueError when it is not a time."""
    return datetime.strptime(text.decode("ascii"), TIME_FORMAT).timestamp()  # noqa: DTZ007  (has %z)


def parse_line(line: bytes) -> Request | None:
    """Read one line; None when it is not a request in either format."""
    match = _LINE.match(line)
    if match is None:
        return None
    try:
        seconds = _seconds(match["time"])
    except ValueError:
        return None
    # latin-1 keeps every byte apart from every other: no two targets can fall together.
    target, status = match["target"].decode("latin-1"), match["status"]
    return Request(seconds, match["method"].decode(), target, int(status) if status != b"-" else 0)
