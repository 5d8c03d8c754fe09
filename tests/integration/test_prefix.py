"""CLICKMILL_PREFIX: what visitors' browsers ask for is under it, too, and nothing else is."""

from __future__ import annotations

import pytest

from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import ask

PREFIX = "/c"
TARGET = "https://example.org/sale"


@pytest.fixture(scope="module")
def worker(module_workers: Workers, way: str) -> Worker:
    return module_workers(fastpath=way == "fast", targets={17: TARGET}, PREFIX=PREFIX)


@pytest.mark.parametrize("prefix", ["", PREFIX])
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/counter/17", 200),
        ("POST", "/counter/17", 200),
        ("GET", "/pixel/17.gif", 200),
        ("GET", "/click/17", 302),
    ],
)
def test_a_click_with_and_without_it(
    worker: Worker, prefix: str, method: str, path: str, status: int
) -> None:
    with counts(worker, {17: 2}):
        plain = ask(worker.port, method, prefix + path)
        with_body = ask(worker.port, method, prefix + path, b"{}")
    same = ask(worker.port, method, path)
    assert (plain.status, plain.body) == (with_body.status, with_body.body) == (status, same.body)
    assert plain.get("location") == (TARGET if status == 302 else None)


def test_the_script(worker: Worker) -> None:
    assert ask(worker.port, "GET", "/c/clickmill.js") == ask(worker.port, "GET", "/clickmill.js")


@pytest.mark.parametrize(
    "path",
    [
        "/c", "/c/", "/c/c/counter/17", "/d/counter/17", "/ccounter/17", "/c/livez", "/c/metrics",
        "/c/readyz", "/c/stats/17", "/c/clicks", "/c/counter", "/c/pixel/17", "//c/counter/17",
    ],
)  # fmt: skip
def test_nothing_else_is_under_it(worker: Worker, path: str) -> None:
    with counts(worker, {}):
        for method in ("GET", "POST"):
            assert ask(worker.port, method, path).status == 404, method


def test_a_bad_id_under_it(worker: Worker) -> None:
    with counts(worker, {}):
        assert ask(worker.port, "POST", "/c/counter/abc").status == 400
        assert ask(worker.port, "POST", "/c/counter/100000").status == 404
        assert ask(worker.port, "DELETE", "/c/counter/17").status == 405


def test_the_routes_are_labelled_without_it(worker: Worker) -> None:
    assert ask(worker.port, "GET", "/c/pixel/17.gif").status == 200
    text = ask(worker.port, "GET", "/metrics").body.decode()
    assert 'method="GET",route="pixel",status="200"' in text
    assert PREFIX + "/" not in text
