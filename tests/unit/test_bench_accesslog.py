"""Access logs: which lines are requests, what each target's ID is, and when each is due."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from bench.load import accesslog

COMMON = b'127.0.0.1 - frank [10/Oct/2000:13:55:36 -0700] "GET /a.gif HTTP/1.0" 200 2326\n'
COMBINED = (
    b'127.0.0.1 - - [10/Oct/2000:13:55:36 -0700] "POST /b?x=1 HTTP/1.1" 302 - '
    b'"http://example.org/[start]" "Mozilla/5.0 (X11) \\"quoted\\""\n'
)


def line(clock: str, request: str) -> bytes:
    return f'- - - [17/May/2015:{clock} +0000] "{request}" 200 1\n'.encode()


def test_reads_both_formats() -> None:
    log = accesslog.parse([COMMON, COMBINED])
    assert [(r.method, r.target) for r in log.requests] == [("GET", "/a.gif"), ("POST", "/b?x=1")]
    assert log.requests[0].time == 971211336
    assert log.bad_count == 0


@pytest.mark.parametrize(
    "bad",
    [
        b'- - - [17/May/2015:10:05:03 +0000] "-" 408 0\n',
        b'- - - [17/May/2015:10:05:03 +0000] "\\x16\\x03\\x01" 400 226\n',
        b'- - - [99/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 1\n',
        b'- - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1\n',
        b"no log at all\n",
        b"\xff\xfe\x00\n",
    ],
)
def test_counts_a_bad_line_and_knows_its_number(bad: bytes) -> None:
    log = accesslog.parse([COMMON, bad, b"\n", COMBINED])
    assert len(log.requests) == 2
    assert (log.bad_count, log.bad_shown[0].number) == (1, 2)


def test_shows_a_bounded_number_of_bad_lines_and_counts_all() -> None:
    log = accesslog.parse([b"bad\n"] * (accesslog.MAX_BAD_SHOWN + 5))
    assert log.bad_count == accesslog.MAX_BAD_SHOWN + 5
    assert len(log.bad_shown) == accesslog.MAX_BAD_SHOWN


def test_head_and_options_are_not_clicks() -> None:
    methods = ("GET", "HEAD", "OPTIONS", "POST", "GET", "PROPFIND")
    log = accesslog.parse([line("10:05:03", f"{method} /x HTTP/1.1") for method in methods])
    assert log.clicks_by_target == {"/x": 3}
    assert log.methods.total() == 6


def test_paths_that_are_not_utf8_stay_distinct() -> None:
    log = accesslog.parse(
        [b'- - - [17/May/2015:10:05:03 +0000] "GET /\xe4 HTTP/1.1" 200 1\n',
         b'- - - [17/May/2015:10:05:03 +0000] "GET /\xe5 HTTP/1.1" 200 1\n']
    )  # fmt: skip
    assert len(log.clicks_by_target) == 2


def test_ids_by_first_appearance_and_by_frequency() -> None:
    log = accesslog.parse([line("10:05:03", f"GET {t} HTTP/1.1") for t in ("/a", "/b", "/c", "/b")])
    assert accesslog.give_ids(log.requests, "first") == {"/a": 1, "/b": 2, "/c": 3}
    assert accesslog.give_ids(log.requests, "frequent", first_id=10)["/b"] == 10


def test_arrivals_are_in_order_of_time_and_spread_over_their_second() -> None:
    log = accesslog.parse(
        [line("10:05:05", "GET /late HTTP/1.1"), line("10:05:03", "GET /a HTTP/1.1"),
         line("10:05:03", "GET /b HTTP/1.1")]
    )  # fmt: skip
    due = [(offset, request.target) for offset, request in accesslog.arrivals(log.requests)]
    assert due == [(0.0, "/a"), (0.5, "/b"), (2.0, "/late")]
    assert list(accesslog.arrivals([])) == []


def test_gzip_is_recognized_by_its_content(tmp_path: Path) -> None:
    path = tmp_path / "access.log"  # no .gz
    path.write_bytes(gzip.compress(COMMON + COMBINED))
    assert len(accesslog.read(path).requests) == 2


def test_a_truncated_gzip_is_reported(tmp_path: Path) -> None:
    path = tmp_path / "access.log.gz"
    path.write_bytes(gzip.compress(COMMON * 500)[:-20])
    with pytest.raises(OSError, match="copy it again"):
        accesslog.read(path)
