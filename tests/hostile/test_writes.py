"""Requests that change something, from those who may not: on both ports, with tokens and without.

`tests/unit/test_access.py` has each rule alone, `corpus.WRITES` the bytes on the ingest port.
"""

from __future__ import annotations

import contextlib

import pytest

from tests.support.fix_api import Api, OpenApi
from tests.support.fix_worker import Worker, Workers, counts
from tests.support.raw import HOST, Answer, ask, connected, request

READ, WRITE = "may-read", "may-write"
JSON = ("Content-Type", "application/json")
BATCH = b'[{"bannerID": 17, "count": 3}]'
ENTRY = b'{"name": "x", "target_url": "https://example.org/"}'
EVIL = ("Origin", "http://evil.example")


def bearer(token: str) -> list[tuple[str, str]]:
    return [("Authorization", f"Bearer {token}")] if token else []


def send_batch(worker: Worker, *headers: tuple[str, str]) -> Answer:
    return ask(worker.port, "POST", "/clicks", BATCH, [JSON, *headers])


def verdict(answer: Answer) -> tuple[int, str]:
    return answer.status, answer.json.get("code", "")


def to_host(port: int, host: str, method: str, target: str, body: bytes | None) -> Answer:
    """A request for another host name than localhost."""
    data = request(method, target, body, [JSON])
    with connected(port) as connection:
        connection.send(data.replace(b"Host: localhost", f"Host: {host}".encode()))
        answer = connection.answer()
    assert answer is not None
    return answer


@pytest.fixture(scope="module")
def tokens_worker(module_workers: Workers, way: str) -> Worker:
    """A worker with both tokens."""
    return module_workers(fastpath=way == "fast", STATS_TOKEN=READ, WRITE_TOKEN=f"{WRITE},second")


EXPECTED = [
    ("", (401, "unauthorized")), ("x", (401, "unauthorized")), (READ, (403, "read_only_token")),
    (f"{WRITE},second", (401, "unauthorized")),
]  # fmt: skip


def test_a_batch_wants_the_write_token(tokens_worker: Worker) -> None:
    with counts(tokens_worker, {17: 6, 18: 1}):
        for token, expected in EXPECTED:
            assert verdict(send_batch(tokens_worker, *bearer(token))) == expected
        assert verdict(send_batch(tokens_worker, EVIL, *bearer(WRITE))) == (403, "foreign_origin")
        for token in (WRITE, "second"):
            assert send_batch(tokens_worker, *bearer(token)).status == 200
        assert ask(tokens_worker.port, "POST", "/counter/18").status == 200
    assert ask(tokens_worker.port, "GET", "/metrics", headers=bearer(WRITE)).status == 200


@pytest.fixture(scope="module")
def large(module_workers: Workers) -> Worker:
    return module_workers(WRITE_TOKEN=WRITE)


def test_a_refused_batch_takes_no_place_among_the_large_bodies(large: Worker) -> None:
    """64 of them are kept at a time: strangers must not hold these places."""
    begun = request("POST", "/clicks", b" " * 100_000, [JSON])[:-90_000]
    body = BATCH + b" " * 100_000
    with connected_many(large.port, begun):
        answer = ask(large.port, "POST", "/clicks", body, [JSON, *bearer(WRITE)])
    assert answer.status == 200


def connected_many(port: int, data: bytes) -> contextlib.ExitStack:
    """70 connections that have sent this."""
    stack = contextlib.ExitStack()
    for _ in range(70):
        stack.enter_context(connected(port)).send(data)
    return stack


@pytest.fixture
def guarded(open_api: OpenApi) -> Api:
    """A statistics port with both tokens."""
    return open_api(stats_token=READ, write_token=WRITE)


def test_the_register_wants_the_write_token(guarded: Api) -> None:
    for method in ("PUT", "DELETE"):
        body = ENTRY if method == "PUT" else None
        for token, expected in EXPECTED:
            answer = ask(guarded.port, method, "/banners/17", body, bearer(token))
            assert verdict(answer) == expected
        answer = ask(guarded.port, method, "/banners/17", body, [EVIL, *bearer(WRITE)])
        assert verdict(answer) == (403, "foreign_origin")
    assert not guarded.told
    assert ask(guarded.port, "PUT", "/banners/17", ENTRY, bearer(WRITE)).status == 200
    for token in (READ, WRITE):
        assert ask(guarded.port, "GET", "/banners/17", headers=bearer(token)).status == 200
    assert ask(guarded.port, "DELETE", "/banners/17", headers=bearer(WRITE)).status == 204
    assert ask(guarded.port, "POST", "/stats/17", b"{}", bearer(READ)).status == 200


def test_giving_up_a_source_wants_the_write_token(guarded: Api) -> None:
    body = b'{"source": "web-3", "by": "alice"}'
    for token, expected in EXPECTED:
        answer = ask(guarded.port, "POST", "/sources/give-up", body, bearer(token))
        assert verdict(answer) == expected
    assert ask(guarded.port, "POST", "/sources/give-up", body, bearer(WRITE)).status == 200
    assert ask(guarded.port, "GET", "/sources", headers=bearer(READ)).json == {"sources": []}
    assert verdict(ask(guarded.port, "GET", "/sources")) == (401, "unauthorized")


def test_without_a_write_token_only_this_machine_writes(api: Api, banner: int) -> None:
    told = len(api.told)
    path = f"/banners/{banner}"
    for headers, code in [
        ([EVIL], "foreign_origin"), ([("Origin", "null")], "foreign_origin"),
        ([("X-Forwarded-For", "127.0.0.1")], "write_token_not_set"),
    ]:  # fmt: skip
        for method in ("PUT", "DELETE"):
            answer = ask(api.port, method, path, ENTRY if method == "PUT" else None, headers)
            assert verdict(answer) == (403, code)
    for method in ("PUT", "GET", "DELETE"):
        answer = to_host(api.port, "evil.example", method, path, ENTRY if method == "PUT" else None)
        assert verdict(answer) == (421, "unknown_host")
    assert len(api.told) == told
    own = [("Origin", "http://localhost")]
    assert ask(api.port, "PUT", path, ENTRY, own).status == 200
    assert to_host(api.port, f"{HOST}:{api.port}", "PUT", path, ENTRY).status == 200


def test_the_statistics_port_answers_to_its_own_names_alone(open_api: OpenApi) -> None:
    api = open_api(allowed_hosts="stats.example.org")
    for path in ("/", "/stats/17", "/live", "/banners", "/metrics", "/livez", "/page/main.js"):
        answer = to_host(api.port, "evil.example", "GET", path, None)
        assert verdict(answer) == (421, "unknown_host"), path
    for host in ("stats.example.org", "STATS.example.org:8081", "localhost:1", "[::1]", "10.1.2.3"):
        assert to_host(api.port, host, "GET", "/stats/17", None).status == 200, host
    assert to_host(api.port, "stats.example.org", "PUT", "/banners/17", ENTRY).status == 200
    with connected(api.port) as connection:
        connection.send(b"GET /readyz HTTP/1.0\r\n\r\n")  # as HAProxy checks it
        checked = connection.answer()
        assert checked is not None
        assert checked.status == 200
