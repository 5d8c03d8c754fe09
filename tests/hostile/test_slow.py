"""Slow and silent clients: each wait has an end, and nobody honest is slower for them.

What Granian alone decides, before a request is whole, runs over one way of answering only.
"""

from __future__ import annotations

import socket
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from ingest.worker import HEADER_TIMEOUT_S
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import HOST, Connection, ask, connected, request
from tests.support.wait import eventually

SLOW_SOCKETS = 2_000
HONEST_REQUESTS = 1_500
SLACK_S = 6.0
BODY_TIMEOUT_S = 0.5
JSON = [("Content-Type", "application/json")]
UNREAD_BYTES = 64 << 20
DRIP = request("POST", "/counter/60")[:-4] + b"\r\nX: "


BEGUN = (
    request("POST", "/clicks", b"[" * 9)[:-9],
    request("POST", "/counter/60", b"{}")[:-1],
    request("POST", "/counter/60", b" " * 99_999)[:-9_999],
    request("GET", "/pixel/60.gif", b"{}")[:-1],
    request("POST", "/stats/60", headers=[("Transfer-Encoding", "chunked")]) + b"2\r\n{}\r\n",
)
"""Bodies that never end, of requests that would count."""


SILENT = (b"", b"POST /counter/6", DRIP, request("GET", "/livez"))


def test_silent_and_dripping_connections_are_closed(workers: Workers) -> None:
    """Silent from the start, within the line, within the headers, idle after an answer; and one
    that drips: a byte now and then does not buy more time."""
    worker = workers()
    began = time.monotonic()
    connections = [Connection(worker.port) for _ in range(len(SILENT) + 1)]
    *silent, dripping = connections
    with counts(worker, {}):
        for connection, sent in zip(silent, SILENT, strict=True):
            connection.send(sent)
        dripping.send(DRIP)
        while not dripping.closed(0.2):
            dripping.send(b"a")
            assert time.monotonic() - began < HEADER_TIMEOUT_S + SLACK_S
        assert all(connection.closed(SLACK_S) for connection in silent)
    assert HEADER_TIMEOUT_S - 1 < time.monotonic() - began < HEADER_TIMEOUT_S + SLACK_S
    for connection in connections:
        connection.close()


@pytest.fixture(scope="module")
def worker(module_workers: Workers, way: str) -> Worker:
    """As everywhere, but it waits for a body for half a second only."""
    return module_workers(fastpath=way == "fast", BODY_TIMEOUT=str(BODY_TIMEOUT_S))


def test_a_dripping_body_is_408(worker: Worker) -> None:
    with counts(worker, {}), connected(worker.port) as connection:
        began = time.monotonic()
        connection.send(request("POST", "/clicks", b"[" * 1000)[:-1000])
        while not connection.readable(0.1):
            connection.send(b" ")
        answer = connection.answer()
        assert answer is not None
        assert (answer.status, answer.json["code"]) == (408, "body_timeout")
        assert BODY_TIMEOUT_S * 0.8 < time.monotonic() - began < BODY_TIMEOUT_S + SLACK_S
        assert connection.closed()


def test_a_client_that_never_reads_delays_no_other(worker: Worker) -> None:
    """Pipelines as much as fits and reads nothing: the server stops reading, others go on."""
    with connected(worker.port) as connection:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.socket.settimeout(1)
        block = request("GET", "/metrics") * 1_000
        with pytest.raises(TimeoutError):  # the server takes no more
            connection.socket.sendall(block * (UNREAD_BYTES // len(block)))
        for _ in range(50):
            assert ask(worker.port, "POST", "/counter/61").status == 200


@contextmanager
def slow_sockets(port: int, n: int) -> Iterator[list[socket.socket]]:
    """So many connections: silent, within their headers, within a body of each kind."""
    starts = (b"", DRIP, *BEGUN)
    opened: list[socket.socket] = []
    try:
        for i in range(n):
            opened.append(socket.create_connection((HOST, port), timeout=5))
            opened[-1].sendall(starts[i % len(starts)])
        yield opened
    finally:
        for one in opened:
            one.close()


def honest_latencies(port: int, n: int) -> list[float]:
    """Seconds of so many clicks, one after the other; each must be counted, none refused."""
    times = []
    with connected(port) as connection:
        for _ in range(n):
            began = time.perf_counter()
            connection.send(request("POST", "/counter/62"))
            answer = connection.answer()
            times.append(time.perf_counter() - began)
            assert answer is not None
            assert answer.status == 200
    return sorted(times)


def test_two_thousand_slow_sockets_do_not_slow_other_clients(workers: Workers, way: str) -> None:
    """None refused, none slow. `make bench ONLY=middleware` measures it; the bound here is wide,
    since a test shares its machine."""
    worker = workers(fastpath=way == "fast")
    alone = honest_latencies(worker.port, HONEST_REQUESTS)
    with slow_sockets(worker.port, SLOW_SOCKETS):
        crowded = honest_latencies(worker.port, HONEST_REQUESTS)
        for _ in range(50):
            assert ask(worker.port, "POST", "/counter/62").status == 200
    median = statistics.median(crowded)
    assert median < max(0.005, 5 * statistics.median(alone)), (alone[-15:], crowded[-15:])
    assert worker.clicks() == {62: 2 * HONEST_REQUESTS + 50}
    eventually(lambda: open_files(worker) < 200, 10, "the slow sockets are given back")


def open_files(worker: Worker) -> int:
    return len(list(worker.proc.joinpath("fd").iterdir()))


def test_over_the_limit_of_connections(workers: Workers) -> None:
    """Those over the limit wait in the kernel, and are served as soon as others are gone."""
    worker = workers(MAX_CONNECTIONS="16")
    with slow_sockets(worker.port, 40):
        late = Connection(worker.port)
        late.send(request("POST", "/counter/63"))
        assert not late.readable(0.5), "the limit limits nothing"
    answer = late.answer()
    late.close()
    assert answer is not None
    assert answer.status == 200
    assert worker.clicks() == {63: 1}


def test_stopping_does_not_wait_for_the_slow(workers: Workers, way: str) -> None:
    """Open connections of every kind at SIGTERM: the end comes in time, and no click is lost."""
    worker = workers(fastpath=way == "fast")
    with slow_sockets(worker.port, 60), connected(worker.port) as connection:
        for _ in range(5):
            connection.send(request("POST", "/counter/64"))
            assert connection.answer() is not None
        began = time.monotonic()
        assert worker.stop() == 0
        assert time.monotonic() - began < 6
    assert "Traceback" not in worker.text
    eventually(lambda: worker.tap.clicks[64] == 5, 5, "the last clicks are in frames")


def test_large_bodies_are_bounded_in_number(workers: Workers, way: str) -> None:
    """So many slow large bodies at a time; one more is told to come again, small ones go on."""
    worker = workers(fastpath=way == "fast")
    large = request("POST", "/clicks", b" " * 100_000)[:-90_000]
    held = [Connection(worker.port) for _ in range(70)]
    try:
        for connection in held:
            connection.send(large)
        small = ask(worker.port, "POST", "/clicks", b'[{"bannerID": 65}]', JSON)
        assert small.status == 200
        answers = [connection.answer() for connection in held]
    finally:
        for connection in held:
            connection.close()
    statuses = [answer.status for answer in answers if answer]
    assert statuses.count(429) == 6, statuses
    assert statuses.count(408) == 64
    assert worker.clicks() == {65: 1}
