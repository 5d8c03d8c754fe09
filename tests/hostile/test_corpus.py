"""The raw corpus: each case alone with its answer, then all of it mixed with honest load."""

from __future__ import annotations

import random
import threading
from contextlib import suppress

import pytest

from tests.hostile.corpus import BANNER, CORPUS, SMUGGLED, Case
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import ask, connected, request

ANSWER_S = 4.0
BODY_TIMEOUT_S = 0.5
ROUNDS = 3
ALIVE = b'{"status":"alive"}'
EVERY_CASE = [case for cases in CORPUS.values() for case in cases]
HONEST_BANNERS = range(50, 60)


@pytest.fixture(scope="module")
def worker(module_workers: Workers, way: str) -> Worker:
    """As everywhere, but it waits for a body for half a second only."""
    return module_workers(fastpath=way == "fast", BODY_TIMEOUT=str(BODY_TIMEOUT_S))


def play(worker: Worker, case: Case) -> list[int]:
    """Sends it; the statuses that come back. The connection must then be as the case says."""
    statuses: list[int] = []
    with connected(worker.port, ANSWER_S) as connection:
        connection.send(case.data)
        if case.half_close:
            connection.half_close()
        while len(statuses) < len(case.statuses):
            answer = connection.answer()
            if answer is None:
                return statuses
            statuses.append(answer.status)
        if case.then == "open":
            connection.send(request("GET", "/livez"))
            answer = connection.answer()
            assert answer is not None, f"{case.name}: the connection is closed"
            assert answer.body == ALIVE, f"{case.name}: an answer too many: {answer}"
        elif case.then == "closed":
            answer = connection.answer()
            assert answer is None, f"{case.name}: an answer too many: {answer}"
    return statuses


@pytest.mark.parametrize("kind", list(CORPUS))
def test_each_case_gets_its_response(worker: Worker, kind: str) -> None:
    cases = CORPUS[kind]
    with counts(worker, {BANNER: sum(case.clicks for case in cases)}):
        got = {case.name: tuple(play(worker, case)) for case in cases}
    assert got == {case.name: case.statuses for case in cases}
    assert worker.alive


def test_no_case_has_a_5xx_and_each_click_has_a_200() -> None:
    """The corpus itself keeps the contract: no click behind an error, no 5xx."""
    for case in EVERY_CASE:
        assert all(status < 500 for status in case.statuses), case.name
        assert case.clicks <= case.statuses.count(200), case.name


class Honest:
    """A client that clicks all the time and writes down what was answered."""

    def __init__(self, port: int, banner: int, stop: threading.Event) -> None:
        self.answered, self.failed = 0, 0
        self.banner = banner
        self._port, self._stop = port, stop
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def _run(self) -> None:
        with connected(self._port) as connection:
            while not self._stop.is_set():
                connection.send(request("POST", f"/counter/{self.banner}"))
                answer = connection.answer()
                if answer is None or answer.status != 200:
                    self.failed += 1
                    return
                self.answered += 1


@pytest.mark.parametrize("seed", [1])
def test_the_ledger_of_normal_clients_is_exact_under_attack(
    workers: Workers, way: str, seed: int
) -> None:
    """All cases in random order from several connections at once, while honest clients click."""
    worker = workers(fastpath=way == "fast")
    cases = [case for case in EVERY_CASE if 408 not in case.statuses] * ROUNDS
    random.Random(seed).shuffle(cases)
    stop, fired = threading.Event(), threading.Lock()
    wrong: list[str] = []
    clicks = 0

    def fire() -> None:
        nonlocal clicks
        while True:
            with fired:
                if not cases:
                    return
                case = cases.pop()
            statuses = play(worker, case)
            with fired:
                clicks += case.clicks
                if tuple(statuses) != case.statuses:
                    wrong.append(f"{case.name}: {statuses} and not {case.statuses}")

    honest = [Honest(worker.port, banner, stop) for banner in HONEST_BANNERS]
    shooters = [threading.Thread(target=fire) for _ in range(4)]
    for thread in shooters:
        thread.start()
    for thread in shooters:
        thread.join()
    stop.set()
    for client in honest:
        client.thread.join()
    assert not wrong
    assert not [client.banner for client in honest if client.failed]
    expected = {client.banner: client.answered for client in honest}
    assert dict(worker.clicks()) == {**expected, BANNER: clicks}
    assert SMUGGLED not in worker.clicks()
    assert "Traceback" not in worker.text
    metrics = ask(worker.port, "GET", "/metrics").body.decode().splitlines()
    assert not [m for m in metrics if 'status="5' in m and 'route="readyz"' not in m]


def test_clients_that_disconnect(worker: Worker) -> None:
    """Reset right behind the request: counted or not, but never twice, and nobody else suffers."""
    before = worker.clicks()[BANNER]
    for case in EVERY_CASE[:40]:
        with connected(worker.port) as connection, suppress(OSError):
            connection.send(case.data[: len(case.data) // 2])
            connection.reset()
    for _ in range(50):
        with connected(worker.port) as connection:
            connection.send(request("POST", f"/counter/{BANNER}"))
            connection.reset()
    assert before <= worker.clicks()[BANNER] <= before + 50 + 40
    assert worker.alive
    with counts(worker, {BANNER: 1}):
        assert ask(worker.port, "POST", f"/counter/{BANNER}").status == 200
