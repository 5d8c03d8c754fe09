"""Clicks whose body comes after their headers, as plain bytes: each is answered and counted, and
the connection stays open for the next. Over both ways; real clients are in `tests/clients`.
"""

from __future__ import annotations

import itertools
import resource
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

import pytest

from tests.support.bodies import CHUNKED, KIB, SHAPES, asked, chunk, head, in_two
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import Answer, Connection, ask, connected
from tests.support.wait import eventually

BANNER: Final = 30
COUNTED: Final = {"status": "counted"}
BODY_TIMEOUT_S: Final = 0.5
SLACK_S: Final = 6.0
MIB: Final = 1024 * KIB
HELD: Final = 150
HELD_BYTES: Final = 900 * KIB
MAX_GROWTH_BYTES: Final = 60 * MIB

SMALL_SHAPES: Final = [shape for shape in SHAPES if not shape.endswith("KB")]
CLICKS: Final = {
    "POST": f"/counter/{BANNER}",
    "GET": f"/counter/{BANNER}",
    "pixel": f"/pixel/{BANNER}.gif",
    "click": f"/click/{BANNER}",
    "stats": f"/stats/{BANNER}",
}
LENGTHS: Final = ("Content-Length: 20", "Content-Length: 20000", CHUNKED)
CUT: Final = (*LENGTHS, "Content-Length: 20000\r\nTrailer: X")
MANY, FEW = 150, 5


@pytest.fixture(scope="module")
def worker(module_workers: Workers, way: str) -> Worker:
    """As everywhere, but a banner has a target, and a body is waited for a shorter time."""
    targets = {BANNER: "https://example.org/"}
    return module_workers(way == "fast", targets, BODY_TIMEOUT=str(BODY_TIMEOUT_S))


@pytest.mark.parametrize("shape", SHAPES)
def test_every_click_is_answered_and_counted_on_one_connection(worker: Worker, shape: str) -> None:
    pieces = SHAPES[shape]
    many = 2 * FEW if shape.endswith("KB") else MANY
    with counts(worker, {BANNER: many}), connected(worker.port) as connection:
        for _ in range(many):
            answer = asked(connection, pieces("POST", CLICKS["POST"]))
            assert answer.json == COUNTED
            assert answer.get("connection") is None


@pytest.mark.parametrize("route", CLICKS)
def test_on_every_route_that_counts(worker: Worker, route: str) -> None:
    method = "POST" if route in ("POST", "stats") else "GET"
    status = 302 if route == "click" else 200
    with counts(worker, {BANNER: FEW * len(SMALL_SHAPES)}):
        for shape in SMALL_SHAPES:
            with connected(worker.port) as connection:
                for _ in range(FEW):
                    answer = asked(connection, SHAPES[shape](method, CLICKS[route]))
                    assert answer.status == status, shape


def refused(answer: Answer | None, status: int, code: str) -> bool:
    """With a word that the connection ends here."""
    assert answer is not None
    assert answer.get("connection") == "close"
    return (answer.status, answer.json["code"]) == (status, code)


@pytest.mark.parametrize("shape", ["later", "chunks", "20 KB"])
def test_an_error_takes_its_body_in_as_well(worker: Worker, shape: str) -> None:
    """Nothing of it is left over on a connection that goes on."""
    errors = {("POST", "/nothing"): 404, ("POST", "/pixel/1.gif"): 405, ("PUT", "/clicks"): 405,
              ("POST", "/counter/x"): 400, ("POST", "/counter/100000"): 404,
              ("GET", "/click/31"): 404, ("POST", "/clicks"): 415}  # fmt: skip
    with counts(worker, {BANNER: len(errors)}), connected(worker.port) as connection:
        for (method, target), status in errors.items():
            answer = asked(connection, SHAPES[shape](method, target))
            assert answer.status == status, target
            assert answer.get("connection") is None
            assert asked(connection, in_two("POST", CLICKS["POST"])).json == COUNTED


def test_expect_100_continue(worker: Worker) -> None:
    """The client sends its body once it is asked to, as curl does."""
    with counts(worker, {BANNER: 40}), connected(worker.port) as connection:
        for length in (2, 20 * KIB) * 20:
            lines = (f"Content-Length: {length}", "Expect: 100-continue")
            connection.send(head(CLICKS["POST"], *lines))
            first = connection.answer()
            assert first is not None
            assert first.status == 100
            connection.send(b" " * length)
            answer = connection.answer()
            assert answer is not None
            assert answer.json == COUNTED


@pytest.mark.parametrize("target", ["/counter/30", "/stats/30", "/clicks", "/nothing"])
def test_a_body_over_the_limit_is_413(worker: Worker, target: str) -> None:
    """A client that goes on sending is not reset, and sees the answer; then the connection ends."""
    data = b" " * (4 * MIB)
    with counts(worker, {}):
        for body in (
            head(target, f"Content-Length: {len(data)}") + data,
            head(target, CHUNKED) + chunk(data) + chunk(b""),
        ):
            with connected(worker.port) as connection:
                connection.send(body[: 2 * MIB])
                assert connection.readable(SLACK_S)
                connection.socket.sendall(body[2 * MIB :])
                assert refused(connection.answer(), 413, "body_too_large")
                assert connection.closed()


def test_the_limit_is_a_setting(workers: Workers, way: str) -> None:
    worker = workers(way == "fast", BODY_MAX_BYTES="1KiB")
    for length, status in ((KIB, 200), (KIB + 1, 413)):
        assert ask(worker.port, "POST", CLICKS["POST"], b" " * length).status == status
    assert worker.clicks() == {BANNER: 1}


def test_a_body_as_large_as_the_limit_counts(worker: Worker) -> None:
    data = b" " * MIB
    with counts(worker, {BANNER: 2}), connected(worker.port) as connection:
        for body in (head(CLICKS["POST"], f"Content-Length: {MIB}") + data,
                     head(CLICKS["POST"], CHUNKED) + chunk(data) + chunk(b"")):  # fmt: skip
            connection.send(body)
            answer = connection.answer()
            assert answer is not None
            assert answer.json == COUNTED


def test_a_late_body_is_408(worker: Worker) -> None:
    """On every route, of every length: what drips buys no time."""
    targets = [*CLICKS.values(), "/clicks", "/nothing"]
    cases = list(itertools.product(targets, LENGTHS))
    with counts(worker, {}), ThreadPoolExecutor(len(cases)) as pool:
        times = list(pool.map(lambda case: drip_until_refused(worker, *case), cases))
    assert min(times) > BODY_TIMEOUT_S * 0.95
    assert max(times) < BODY_TIMEOUT_S + SLACK_S


def drip_until_refused(worker: Worker, target: str, length: str) -> float:
    """How many seconds it took."""
    method = "GET" if target.startswith(("/pixel", "/click/")) else "POST"
    with connected(worker.port) as connection:
        began = time.monotonic()
        connection.send(head(target, length, method=method))
        while not connection.readable(0.1):
            connection.send(chunk(b" ") if length == CHUNKED else b" ")
        took = time.monotonic() - began
        assert refused(connection.answer(), 408, "body_timeout"), (target, length)
        assert connection.closed()
    return took


@pytest.mark.parametrize("lines", CUT)
def test_a_body_that_breaks_off_counts_nothing(worker: Worker, lines: str) -> None:
    """Closed, reset or half-closed within the body: no click, and no line in the log."""
    logged = worker.text
    begun = head(CLICKS["POST"], lines) + (b"5\r\n{" if lines == CHUNKED else b"{")
    with counts(worker, {}):
        for end in (Connection.close, Connection.reset):
            for wait in (0.0, 0.002) * 10:
                connection = Connection(worker.port)
                connection.send(begun)
                time.sleep(wait)
                end(connection)
        with connected(worker.port) as connection:
            connection.send(begun)
            connection.half_close()
            assert refused(connection.answer(), 400, "body_cut")
    assert worker.text == logged


def test_late_bodies_are_in_the_metrics(worker: Worker) -> None:
    def total(status: int) -> float:
        name = f'{{method="POST",route="counter",status="{status}"}} '
        lines = ask(worker.port, "GET", "/metrics").body.decode().splitlines()
        found = [line for line in lines if name in line and "requests_total" in line]
        return float(found[0].rpartition(" ")[2]) if found else 0.0

    for status, is_whole in ((200, True), (408, False)):
        before = total(status)
        with connected(worker.port) as connection:
            connection.send(head(CLICKS["POST"], "Content-Length: 2"))
            connection.send(b"{}" if is_whole else b"{")
            answer = connection.answer()
            assert answer is not None
            assert answer.status == status
        assert total(status) == before + 1


def test_many_slow_large_bodies_do_not_fill_the_memory(workers: Workers, way: str) -> None:
    """Each nearly as large as a body may be, and none goes on: their bytes are not kept."""
    worker = workers(way == "fast", BODY_TIMEOUT="20")
    before = resident_bytes(worker)
    held = [Connection(worker.port) for _ in range(HELD)]
    try:
        for i, connection in enumerate(held):
            lines = CHUNKED if i % 2 else f"Content-Length: {HELD_BYTES + 1}"
            data = b" " * HELD_BYTES
            connection.send(head(CLICKS["POST"], lines) + (chunk(data) if i % 2 else data))
        eventually(lambda: not unread_bytes(worker), 10, "the worker has read what was sent")
        assert resident_bytes(worker) - before < MAX_GROWTH_BYTES
        for i, connection in enumerate(held):
            connection.send(chunk(b"") if i % 2 else b" ")
            answer = connection.answer()
            assert answer is not None
            assert answer.json == COUNTED
    finally:
        for connection in held:
            connection.close()
    assert worker.clicks() == {BANNER: HELD}


def resident_bytes(worker: Worker) -> int:
    return int((worker.proc / "statm").read_text().split()[1]) * resource.getpagesize()


def unread_bytes(worker: Worker) -> int:
    """What the kernel holds of what was sent to the worker, in both its queues."""
    ours, total = f":{worker.port:04X}", 0
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        sent, received = queues.split(":")
        total += int(received, 16) if local.endswith(ours) else 0
        total += int(sent, 16) if remote.endswith(ours) else 0
    return total
