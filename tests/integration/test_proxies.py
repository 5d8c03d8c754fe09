"""The configurations of `deploy/proxy`, each in the real program, in front of scripted backends.

What matters most: a click that was sent to a node is never sent again, since it may have been
counted; one that could not be sent goes to the other node. `test_proxies_load.py` has real nodes.
"""

from __future__ import annotations

import http.client
import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import backends
from tests.support.backends import Backend
from tests.support.balancers import CLICKS_HOST, KINDS, STATS_HOST, Balancer, running
from tests.support.ports import HOST

TIMEOUT_S = 15.0
METHODS = ("POST", "GET")


class Stand:
    """A balancer with its two nodes and two aggregators."""

    def __init__(self, balancer: Balancer, nodes: list[Backend], others: list[Backend]) -> None:
        self.balancer, self.nodes, self.aggregators = balancer, nodes, others

    def arrivals(self, path: str) -> int:
        return sum(backend.times(path) for backend in (*self.nodes, *self.aggregators))


@pytest.fixture(params=KINDS)
def stand(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Stand]:
    parts = [Backend() for _ in range(4)]
    ports = [part.port for part in parts]
    try:
        with running(request.param, tmp_path, ports[:2], ports[2:]) as balancer:
            yield Stand(balancer, parts[:2], parts[2:])
            for part in parts:
                part.end_streams()  # Caddy waits for them when it stops
    finally:
        for part in parts:
            part.close()


def connect(stand: Stand) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(HOST, stand.balancer.port, timeout=TIMEOUT_S)


def status(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    host: str = CLICKS_HOST,
    body: bytes | None = None,
) -> int:
    """The status of one request; 0 where the connection broke."""
    try:
        connection.request(method, path, body, {"Host": host})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException):
        connection.close()
        return 0
    return answer.status


def ask(
    stand: Stand, method: str, path: str, host: str = CLICKS_HOST, body: bytes | None = None
) -> int:
    connection = connect(stand)
    try:
        return status(connection, method, path, host, body)
    finally:
        connection.close()


def test_a_click_that_could_not_be_sent_goes_to_the_other_node(stand: Stand) -> None:
    dead, alive = stand.nodes
    dead.close()
    for banner in range(20):
        path, method = f"/counter/{banner}", METHODS[banner % 2]
        # Caddy 2.6 can't send a body twice.
        with_body = method == "POST" and stand.balancer.kind != "caddy"
        assert ask(stand, method, path, body=b"{}" if with_body else None) == 200
        assert (stand.arrivals(path), alive.times(path)) == (1, 1)


def test_a_body_for_a_dead_node_takes_no_other_node_away(stand: Stand) -> None:
    """Caddy blames the second node for a body that it can't send twice, and then none is left."""
    dead, _ = stand.nodes
    dead.close()
    answers = [ask(stand, "POST", f"/counter/{banner}", body=b"{}") for banner in range(20)]
    refused = answers.count(502)
    assert answers.count(200) == 20 - refused
    assert refused <= (2 if stand.balancer.kind == "caddy" else 0)


@pytest.mark.parametrize("method", METHODS)
def test_a_click_that_was_sent_is_never_sent_again(stand: Stand, method: str) -> None:
    for node in stand.nodes:
        node.behaviour = backends.DIES
    for banner in range(2):
        assert ask(stand, method, f"/counter/{banner}") in (0, 502)
    # A node that has just failed is left alone for a while: the second may not have been sent.
    assert stand.arrivals("/counter/0") == 1
    assert stand.arrivals("/counter/1") <= 1


@pytest.mark.parametrize("method", METHODS)
def test_nor_over_a_connection_that_served_before(stand: Stand, method: str) -> None:
    for node in stand.nodes:
        node.behaviour = backends.DIES_SECOND
    connection = connect(stand)
    for banner in range(4):
        path = f"/pixel/{banner}.gif" if method == "GET" else f"/counter/{banner}"
        status(connection, method, path)
        assert stand.arrivals(path) <= 1
    connection.close()
    assert sum(len(node.arrived) for node in stand.nodes) >= 2


def test_a_batch_arrives_whole(stand: Stand) -> None:
    body = b'[{"bannerID": 17, "count": 3}]' + b" " * 200_000
    connection = connect(stand)
    connection.request("POST", "/clicks", body, {"Host": CLICKS_HOST})
    assert connection.getresponse().status == 200
    connection.close()
    (arrived,) = [one for node in stand.nodes for one in node.arrived]
    assert arrived.body == body


def test_a_node_is_told_who_asks_and_how(stand: Stand) -> None:
    connection = connect(stand)
    forged = {"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "gopher", "Host": CLICKS_HOST}
    connection.request("GET", "/counter/17", headers=forged)
    assert connection.getresponse().status == 200
    connection.close()
    (arrived,) = [one for node in stand.nodes for one in node.arrived]
    assert arrived.headers["host"] == CLICKS_HOST
    assert arrived.headers["x-forwarded-for"] == HOST
    assert arrived.headers["x-forwarded-proto"] == "http"
    assert arrived.headers["x-forwarded-host"] == CLICKS_HOST


def test_tls_ends_at_the_proxy(stand: Stand, tmp_path: Path) -> None:
    context = ssl.create_default_context(cafile=str(tmp_path / "clickmill.crt"))
    address = (HOST, stand.balancer.tls_port)
    with (
        socket.create_connection(address, timeout=TIMEOUT_S) as plain,
        context.wrap_socket(plain, server_hostname=CLICKS_HOST) as secured,
    ):
        request = (
            f"POST /counter/17 HTTP/1.1\r\nHost: {CLICKS_HOST}\r\nContent-Length: 2\r\n\r\n{{}}"
        )
        secured.sendall(request.encode())
        assert secured.recv(65536).startswith(b"HTTP/1.1 200")
    (arrived,) = [one for node in stand.nodes for one in node.arrived]
    assert arrived.headers["x-forwarded-proto"] == "https"
    assert arrived.body == b"{}"


def test_statistics_under_a_name_and_under_a_path(stand: Stand) -> None:
    assert ask(stand, "GET", "/stats/17?step=1h", STATS_HOST) == 200
    assert ask(stand, "GET", "/clickmill/stats/17?step=1h") == 200
    assert ask(stand, "GET", "/clickmill/") == 200
    assert ask(stand, "GET", "/clickmill") == 301
    arrived = [one for aggregator in stand.aggregators for one in aggregator.arrived]
    assert sorted(one.path for one in arrived) == ["/", "/stats/17?step=1h", "/stats/17?step=1h"]
    assert {one.headers["host"] for one in arrived} == {CLICKS_HOST, STATS_HOST}


@pytest.mark.parametrize("place", [(STATS_HOST, "/live"), (CLICKS_HOST, "/clickmill/live")])
def test_events_of_the_live_page_come_at_once(stand: Stand, place: tuple[str, str]) -> None:
    for aggregator in stand.aggregators:
        aggregator.behaviour = backends.STREAMS
    host, path = place
    connection = connect(stand)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    assert answer.read(len(backends.EVENT)) == backends.EVENT
    for aggregator in stand.aggregators:
        aggregator.more.set()
    assert answer.read(len(backends.EVENT)) == backends.EVENT
    connection.close()


def test_the_script_is_open(stand: Stand) -> None:
    assert ask(stand, "GET", "/clickmill.js") == 200
    assert ask(stand, "GET", "/clickmillxjs") == 404


@pytest.mark.parametrize("path", ["/metrics", "/readyz", "/livez", "/", "/clicksandmore"])
def test_nothing_else_of_a_node_is_open_to_strangers(stand: Stand, path: str) -> None:
    assert ask(stand, "GET", path) == 404
    assert not any(node.arrived for node in stand.nodes)
