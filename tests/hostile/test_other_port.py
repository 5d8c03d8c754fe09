"""The statistics port under the same corpus, and statistics that hang: nobody falls over."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from signal import SIGSTOP

import pytest

from tests.hostile.corpus import CORPUS
from tests.support.fix_api import Api
from tests.support.fix_system import System, SystemFactory
from tests.support.fix_worker import Worker, Workers
from tests.support.raw import Answer, ask, connected
from tests.support.wait import eventually

ANSWER_S = 4.0
QUIET_S = 0.2
MAX_PENDING = 2


def statuses(port: int, data: bytes, half_close: bool) -> list[int]:
    """Whatever comes back, until the server closes or says nothing more."""
    found = []
    with connected(port, ANSWER_S) as connection:
        connection.send(data)
        if half_close:
            connection.half_close()
        try:
            while answer := connection.answer():
                found.append(answer.status)
                connection.socket.settimeout(QUIET_S)
        except TimeoutError:
            pass
    return found


def test_the_statistics_port_survives_the_corpus_too(system: SystemFactory) -> None:
    """No 5xx, no crash, nothing counted. Aimed at its own addresses: /counter is none of them."""
    running = system()
    aggregator = running.children()["aggregator"]
    cases = [case for kind in CORPUS.values() for case in kind if 408 not in case.statuses]
    wrong = []
    for path in (b"/stats/", b"/banners/"):
        jobs = [
            (case.name, case.data.replace(b"/counter/", path), case.half_close) for case in cases
        ]
        with ThreadPoolExecutor(8) as pool:
            got = list(pool.map(lambda job: statuses(running.stats_port, job[1], job[2]), jobs))
        wrong += [(job[0], s) for job, s in zip(jobs, got, strict=True) if any(n >= 500 for n in s)]
    assert not wrong
    assert running.children()["aggregator"] == aggregator
    assert "Traceback" not in running.output
    assert ask(running.stats_port, "GET", "/stats?bannerID=40").json["Counts"] == 0


@pytest.mark.parametrize("port", ["ingest", "statistics"])
@pytest.mark.parametrize("piece", [1_000, 30_000, 1_000_000])
def test_headers_have_a_bound_on_both_ports(
    module_workers: Workers, api: Api, port: str, piece: int
) -> None:
    """32 KiB always pass and more than 64 KiB never do, in whichever pieces they arrive."""
    number = api.port if port == "statistics" else header_worker(module_workers).port
    for size, expected in ((32_700, 200), (65_537, 431), (100_000, 431), (420_000, 431)):
        head = b"GET /livez HTTP/1.1\r\nHost: localhost\r\nX: "
        data = head + b"a" * (size - len(head) - 4) + b"\r\n\r\n"
        with connected(number, ANSWER_S) as connection:
            for at in range(0, len(data), piece):
                connection.send(data[at : at + piece])
            answer = connection.answer()
        assert answer is not None
        assert answer.status == expected, size


_header_workers: list[Worker] = []


def header_worker(workers: Workers) -> Worker:
    """One for all sizes."""
    if not _header_workers:
        _header_workers.append(workers())
    return _header_workers[0]


def timed(running: System, banner: int) -> tuple[Answer, float]:
    began = time.monotonic()
    answer = ask(running.port, "GET", f"/stats/{banner}")
    return answer, time.monotonic() - began


def test_statistics_that_hang_are_bounded_and_clicks_go_on(system: SystemFactory) -> None:
    """A stopped aggregator: so many requests wait, the next is refused at once, clicks count."""
    running = system(max_pending_stats=MAX_PENDING)
    assert timed(running, 17)[0].status == 200
    os.kill(running.children()["aggregator"], SIGSTOP)
    with ThreadPoolExecutor(MAX_PENDING + 2) as pool:
        asked = list(pool.map(lambda _: timed(running, 17), range(MAX_PENDING + 2)))
        assert running.click(17, 20) == 20
    assert [answer.status for answer, _ in asked] == [503] * (MAX_PENDING + 2)
    assert {answer.json["code"] for answer, _ in asked} == {"stats_unavailable"}
    assert sorted(seconds < 1 for _, seconds in asked) == [False] * MAX_PENDING + [True] * 2
    eventually(lambda: timed(running, 17)[0].status == 200, 20, "the aggregator is replaced")
    running.wait_counts(17, 20)
