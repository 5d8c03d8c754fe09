"""Many questions of one client: it waits for itself, and nobody else waits for it.

The addresses of the clients are real: all of 127.0.0.0/8 is loopback.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest

from aggregator.reading import live, sharing
from aggregator.reading.sharing import AT_ONCE, INGEST_AT_ONCE
from tests.support.fix_api import Api, OpenApi
from tests.support.fix_system import System, SystemFactory
from tests.support.raw import TIMEOUT_S, Answer, Connection, ask, request
from tests.support.wait import eventually

GREEDY = 40
OTHER = "127.0.0.2"
ASKED = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'clickmill statistics'"
WAITING = ASKED + " AND wait_event_type = 'Lock'"


class From(Connection):
    """A connection from another loopback address."""

    def __init__(self, port: int, source: str) -> None:
        super().__init__(port)
        self.socket.close()
        address = ("127.0.0.1", port)
        self.socket = socket.create_connection(address, TIMEOUT_S, (source, 0))


def ask_from(port: int, source: str, target: str) -> Answer:
    connection = From(port, source)
    try:
        connection.send(request("GET", target))
        answer = connection.answer()
    finally:
        connection.close()
    assert answer is not None
    return answer


@contextlib.contextmanager
def asking(port: int, target: str, n: int = GREEDY) -> Iterator[list[Connection]]:
    """So many connections of one client that have asked and wait for the answer."""
    with contextlib.ExitStack() as stack:
        connections = [Connection(port) for _ in range(n)]
        for connection in connections:
            stack.callback(connection.close)
            connection.send(request("GET", target))
        yield connections


@contextlib.contextmanager
def locked(dsn: str) -> Iterator[psycopg.Connection[Any]]:
    """Statements about minutes wait, as slow ones run; they give up after two seconds."""
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE banner_minute")
        yield connection
        connection.rollback()


def count(dsn: str, sql: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        row = connection.execute(sql.encode()).fetchone()
    assert row is not None
    return int(row[0])


def test_a_client_has_few_statements_running_and_another_is_answered(open_api: OpenApi) -> None:
    """Over both ways in; the other client asks what is not locked, and waits for nobody."""
    api = open_api()
    with locked(api.dsn), asking(api.port, "/stats/17"):
        eventually(lambda: count(api.dsn, WAITING) == AT_ONCE, what="its statements run")
        began = time.monotonic()
        assert ask_from(api.port, OTHER, "/banners").status == 200
        assert time.monotonic() - began < 1.5
        assert count(api.dsn, WAITING) == AT_ONCE


@pytest.fixture
def running(system: SystemFactory) -> System:
    return system()


def test_who_asks_on_the_ingest_port_takes_nothing_from_the_others(running: System) -> None:
    """Not from another client there, not from the statistics port, and not from clicks."""
    dsn = running.address("postgres")
    assert ask(running.port, "GET", "/stats/17").status == 200
    with locked(dsn), asking(running.port, "/stats/17", 100):
        eventually(lambda: count(dsn, WAITING) == INGEST_AT_ONCE, what="one statement runs")
        began = time.monotonic()
        assert ask(running.stats_port, "GET", "/banners").status == 200
        assert running.click(18, 100) == 100
        assert time.monotonic() - began < 1.5
        assert count(dsn, WAITING) == INGEST_AT_ONCE
    running.wait_counts(18, 100)


def test_over_its_share_a_client_is_told_so(system: SystemFactory) -> None:
    """Half of the places of a worker; the next of another client is taken."""
    running = system(max_pending_stats=8)
    dsn = running.address("postgres")
    with locked(dsn), asking(running.port, "/stats/17", 4):
        eventually(lambda: count(dsn, WAITING) == INGEST_AT_ONCE, what="one statement runs")
        answer = ask(running.port, "GET", "/stats/17")
        assert (answer.status, answer.json["code"]) == (429, "too_many_requests")
        assert answer.get("retry-after")
        connection = From(running.port, OTHER)
        connection.send(request("GET", "/stats/abc"))  # answered by the worker itself
        assert connection.readable(5)
        connection.close()


def test_a_client_may_not_queue_without_bound(
    open_api: OpenApi, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sharing, "MAX_WAITING", 8)
    api = open_api()
    with locked(api.dsn), asking(api.port, "/stats/17", 4):
        eventually(lambda: count(api.dsn, WAITING) == AT_ONCE, what="its statements run")
        answer = ask(api.port, "GET", "/stats/17")
        assert (answer.status, answer.json["code"]) == (429, "too_many_requests")
        assert ask_from(api.port, OTHER, "/banners").status == 200


def test_no_client_takes_all_streams(open_api: OpenApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "MAX_LISTENERS", 20)
    api = open_api()
    with asking(api.port, "/live", 12) as connections:
        statuses = [stream_status(connection) for connection in connections]
        assert statuses.count(200) == 10
        assert statuses.count(429) == 2
        other = From(api.port, OTHER)
        other.send(request("GET", "/live"))
        assert stream_status(other) == 200
        other.close()


def stream_status(connection: Connection) -> int:
    """The status of an answer whose body does not end."""
    head = connection._until(b"\r\n\r\n")
    assert head is not None
    return int(head.split(b" ", 2)[1])


def test_behind_a_proxy_on_this_machine_each_client_is_one(open_api: OpenApi) -> None:
    """By the address that the proxy has added last; from elsewhere the header means nothing."""
    api = open_api()
    seen: set[str] = set()
    record(api, seen)
    for forwarded in ("203.0.113.1", "198.51.100.9, 203.0.113.2", "2001:db8::1", "2001:db8::2"):
        headers = [("X-Forwarded-For", forwarded)]
        assert ask(api.port, "GET", "/banners", headers=headers).status == 200
    assert ask(api.port, "GET", "/banners").status == 200
    expected = {"203.0.113.1", "203.0.113.2", "2001:0db8:0000:0000", "127.0.0.1"}
    assert seen == expected


def record(api: Api, seen: set[str]) -> None:
    """Writes down whose turn it is."""
    turn = api.deps.sharing.turn

    def recorded() -> Any:
        seen.add(sharing.asker.get())
        return turn()

    api.deps.sharing.turn = recorded  # type: ignore[method-assign]


def test_clients_that_ask_at_once_are_not_taken_for_each_other(open_api: OpenApi) -> None:
    """The name of the client belongs to the request, however requests are interleaved."""
    api = open_api()
    with locked(api.dsn):
        threads = [
            threading.Thread(target=ask_from, args=(api.port, f"127.0.0.{n}", "/stats/17"))
            for n in range(3, 6)
        ]
        for thread in threads:
            thread.start()
        eventually(lambda: count(api.dsn, WAITING) == 3, what="one statement of each runs")
    for thread in threads:
        thread.join()
